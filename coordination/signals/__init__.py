"""Reward signals: a chain of declared maps from raw rewards to what each agent learns from.

Loading this package loads no torch: names are imported when first used, so that command lines can list signals.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coordination.signals.registry import STAGES, build

if TYPE_CHECKING:
    from coordination.signals.base import RewardBundle, RewardStage, SharedReward, Trajectory
    from coordination.signals.credit import Counterfactual, Difference, FactorShapley, Shapley
    from coordination.signals.potential import Potential
    from coordination.signals.shaping import CommCost, Objectives
    from coordination.signals.sharing import KHop, Local, Team
    from coordination.signals.smoothing import CoalitionShare, ConsensusSmooth
    from coordination.signals.temporal import Coherence, Redistribute

_BASE = dict.fromkeys(("RewardBundle", "RewardStage", "SharedReward", "Trajectory"), "coordination.signals.base")
_LAZY = _BASE | {path.split(":")[1]: path.split(":")[0] for path in STAGES.values()}

__all__ = [
    "STAGES",
    "CoalitionShare",
    "Coherence",
    "CommCost",
    "ConsensusSmooth",
    "Counterfactual",
    "Difference",
    "FactorShapley",
    "KHop",
    "Local",
    "Objectives",
    "Potential",
    "Redistribute",
    "RewardBundle",
    "RewardStage",
    "Shapley",
    "SharedReward",
    "Team",
    "Trajectory",
    "build",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
