"""Worlds: batched native environments, and every PettingZoo environment through one door."""
