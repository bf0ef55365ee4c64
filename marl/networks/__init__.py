"""Policies, critics, and the layers they are made of."""
