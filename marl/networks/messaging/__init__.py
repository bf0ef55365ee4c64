"""Learned communication: networks whose agents send each other messages over the links."""
