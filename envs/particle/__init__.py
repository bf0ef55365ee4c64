"""Worlds of round bodies in the plane: the MPE tasks, batched over copies and agents."""
