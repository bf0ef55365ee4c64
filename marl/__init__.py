"""Learning: collect, learn, report. ``marl.train(env="spread", algorithm="mappo", policy="graph")`` does it all."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marl import testing
    from marl.runs.api import load, resume, train
    from marl.runs.run import Run

_LAZY = {"train": "marl.runs.api", "resume": "marl.runs.api", "load": "marl.runs.api", "Run": "marl.runs.run"}

__all__ = ["Run", "load", "resume", "testing", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "testing":
        return importlib.import_module("marl.testing")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
