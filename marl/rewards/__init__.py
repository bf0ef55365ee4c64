"""From raw rewards to the ones learned from."""
