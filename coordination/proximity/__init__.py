"""Graphs of moving agents: the k nearest, or those within a radius, of every agent in every sample."""

from coordination.proximity.lists import nearest, within

__all__ = ["nearest", "within"]
