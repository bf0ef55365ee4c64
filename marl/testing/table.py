"""What a check found: numbers beside the right ones, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class ProbeError(AssertionError):
    """An algorithm did not learn what it must; the message says what, what was expected, and what was found."""


@dataclass(frozen=True)
class Finding:
    """One number of one probe.

    Attributes:
        probe: Name of the probe.
        quantity: ``return``: mean over agents, of the greedy policy; ``value, step k``: of the state for which it is
            farthest from right.
        expected: By hand.
        found: After training.
        tolerance: How far apart the two may be.
    """

    probe: str
    quantity: str
    expected: float
    found: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether it is near enough."""
        return abs(self.found - self.expected) <= self.tolerance


@dataclass(frozen=True)
class Table:
    """What was found, and what was not looked at and why.

    Attributes:
        findings: Number by number.
        skipped: Reasons by probe, or by ``probe: quantity``.
    """

    findings: tuple[Finding, ...]
    skipped: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether everything that was looked at is right."""
        return all(finding.passed for finding in self.findings)

    def __str__(self) -> str:
        head = f"{'probe':<14}{'quantity':<16}{'expected':>10}{'found':>10}  passed"
        rows = [
            f"{f.probe:<14}{f.quantity:<16}{f.expected:>10.3f}{f.found:>10.3f}  {'yes' if f.passed else 'NO'}"
            for f in self.findings
        ]
        return "\n".join([head, *rows, *(f"skipped {name}: {reason}" for name, reason in self.skipped.items())])
