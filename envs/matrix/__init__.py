"""Matrix games with a known optimum, for tests and teaching."""
