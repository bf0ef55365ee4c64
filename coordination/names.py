"""Names a user typed that nobody knows: one message that offers the closest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for an unknown name, with the closest known one if any is close.

    Args:
        kind: What the name stands for, e.g. ``topology``.
        name: What was given.
        known: What could have been given.

    >>> unknown("topology", "rign", ["grid", "ring"])
    "unknown topology 'rign'; did you mean 'ring'? One of: grid, ring"
    """
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}; {hint}One of: {', '.join(names)}"
