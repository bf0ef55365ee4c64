"""Runs: folders that training fills, as objects to make, look at, act with and go on from."""
