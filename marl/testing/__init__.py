"""Probes for algorithms: does mine learn what it must? ``marl.testing.check_algorithm("mappo")`` says."""

from marl.testing.check import PROBES, check_algorithm
from marl.testing.probe import Bits, Probe
from marl.testing.table import Finding, ProbeError, Table

__all__ = ["PROBES", "Bits", "Finding", "Probe", "ProbeError", "Table", "check_algorithm"]
