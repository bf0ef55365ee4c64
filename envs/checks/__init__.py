"""Checks of PettingZoo environments over whole episodes."""

from envs.checks.check import Report, check

__all__ = ["Report", "check"]
