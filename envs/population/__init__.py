"""Populations: networked module-agents on any topology, 2 to 100,000 of them, with known or bounded optima."""
