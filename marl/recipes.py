"""Recipes: algorithm names as combinations of an update rule and a critic; all else is chosen freely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """What an algorithm's name stands for.

    Attributes:
        algorithm: ``module:Class`` of the update rule.
        config: ``module:Class`` of its settings.
        critic: Default critic: ``local``, ``central`` or ``graph``.
        summary: One line for ``concert list``.
        source: Paper.
        settings: Settings that differ from the class's defaults.
    """

    algorithm: str
    config: str
    critic: str
    summary: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    "ippo": Recipe(
        "marl.algorithms.ppo:PPO",
        "marl.algorithms.config:PPOConfig",
        "local",
        "independent PPO: each agent's critic sees what its policy sees",
        "de Witt et al. 2020, arXiv:2011.09533",
    ),
    "mappo": Recipe(
        "marl.algorithms.ppo:PPO",
        "marl.algorithms.config:PPOConfig",
        "central",
        "multi-agent PPO: the critic sees the whole team while training",
        "Yu et al. 2022, arXiv:2103.01955",
    ),
    "iql": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "independent Q-learning: each agent learns the values of its own choices",
        "Tan 1993; Mnih et al. 2015",
        {"mixer": "none"},
    ),
    "vdn": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "value decomposition: a team's value is the sum of its agents'",
        "Sunehag et al. 2018, arXiv:1706.05296",
        {"mixer": "sum"},
    ),
    "qmix": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "a team's value is a monotone function of its agents', made by the state",
        "Rashid et al. 2018, arXiv:1803.11485",
        {"mixer": "monotonic"},
    ),
    "qplex": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "values and advantages are mixed apart; any ordering of joint choices fits",
        "Wang et al. 2021, arXiv:2008.01062",
        {"mixer": "duplex"},
    ),
}
