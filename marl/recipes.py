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
        sharing: Default sharing of weights.
        lacks: What it cannot be used with, and why: ``reals`` (continuous actions), ``memory``.
    """

    algorithm: str
    config: str
    critic: str
    summary: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sharing: str = "all"
    lacks: Mapping[str, str] = field(default_factory=dict)


CHOICES = {"reals": "it compares the values of all choices, and reals cannot be listed"}
BLIND = {"memory": "its critics judge by what is seen now, and cannot tell whether something was remembered well"}

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
    "happo": Recipe(
        "marl.algorithms.happo:HAPPO",
        "marl.algorithms.config:HAPPOConfig",
        "central",
        "groups of agents improve by PPO one after another, each given what the others became (sharing=all is MAPPO)",
        "Zhong et al. 2024, arXiv:2304.09870",
        sharing="none",
    ),
    "coma": Recipe(
        "marl.algorithms.coma:COMA",
        "marl.algorithms.config:COMAConfig",
        "central",
        "each agent's choice is weighed against its policy's mean, the others' choices kept; discrete",
        "Foerster et al. 2018, arXiv:1705.08926",
        lacks=CHOICES,
    ),
    "iql": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "independent Q-learning: each agent learns the values of its own choices",
        "Tan 1993; Mnih et al. 2015",
        {"mixer": "none"},
        lacks=CHOICES,
    ),
    "vdn": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "value decomposition: a team's value is the sum of its agents'",
        "Sunehag et al. 2018, arXiv:1706.05296",
        {"mixer": "sum"},
        lacks=CHOICES,
    ),
    "qmix": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "a team's value is a monotone function of its agents', made by the state",
        "Rashid et al. 2018, arXiv:1803.11485",
        {"mixer": "monotonic"},
        lacks=CHOICES,
    ),
    "qplex": Recipe(
        "marl.algorithms.value:ValueLearner",
        "marl.algorithms.config:ValueConfig",
        "local",
        "values and advantages are mixed apart; any ordering of joint choices fits",
        "Wang et al. 2021, arXiv:2008.01062",
        {"mixer": "duplex"},
        lacks=CHOICES,
    ),
    "iddpg": Recipe(
        "marl.algorithms.ddpg:DDPG",
        "marl.algorithms.config:DDPGConfig",
        "local",
        "deterministic policies, each with a critic of its own action alone",
        "Lillicrap et al. 2016, arXiv:1509.02971",
        lacks=BLIND,
    ),
    "maddpg": Recipe(
        "marl.algorithms.ddpg:DDPG",
        "marl.algorithms.config:DDPGConfig",
        "central",
        "deterministic policies, critics that see what everybody does",
        "Lowe et al. 2017, arXiv:1706.02275",
        lacks=BLIND,
    ),
    "matd3": Recipe(
        "marl.algorithms.ddpg:DDPG",
        "marl.algorithms.config:DDPGConfig",
        "central",
        "MADDPG with twin critics, smoothed targets and fewer policy updates",
        "Ackermann et al. 2019, arXiv:1910.01465",
        {"twin": True, "smoothing": 0.2, "policy_every": 2},
        lacks=BLIND,
    ),
    "isac": Recipe(
        "marl.algorithms.sac:SAC",
        "marl.algorithms.config:SACConfig",
        "local",
        "soft actor-critic, each agent for itself",
        "Haarnoja et al. 2018, arXiv:1812.05905",
        lacks=BLIND,
    ),
    "masac": Recipe(
        "marl.algorithms.sac:SAC",
        "marl.algorithms.config:SACConfig",
        "central",
        "soft actor-critic with critics that see what everybody does",
        "Haarnoja et al. 2018; Lowe et al. 2017",
        lacks=BLIND,
    ),
}
