"""Learning: collect, learn, report."""
