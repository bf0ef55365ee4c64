"""The native environments by name, and scripted policies to compare learned ones with; loads no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from coordination.names import unknown


@dataclass(frozen=True)
class Entry:
    """One native environment.

    Attributes:
        target: The task class, ``module:Class``.
        summary: What the agents have to do.
        agents: How many there are.
        optimum: The best return known, or what bounds it.
        source: Where the task comes from.
        scripted: A hand-written policy for it, ``module:function``, or None.
    """

    target: str
    summary: str
    agents: str
    optimum: str
    source: str
    scripted: str | None = None


ENVIRONMENTS = {
    "climbing": Entry(
        target="envs.matrix.games:Climbing",
        summary="two agents climb to a joint action guarded by penalties",
        agents="2",
        optimum="11 a step",
        source="Claus and Boutilier 1998, AAAI",
    ),
    "penalty": Entry(
        target="envs.matrix.games:Penalty",
        summary="two agents pick one of two equal optima without a word",
        agents="2",
        optimum="10 a step",
        source="Claus and Boutilier 1998, AAAI",
    ),
    "spread": Entry(
        target="envs.particle.spread:Spread",
        summary="agents cover all landmarks and keep from colliding; equal to mpe2.simple_spread_v3",
        agents="1 to 10 as in mpe2, any number here (3)",
        optimum="not known in closed form; the scripted assignment bounds it from below",
        source="Lowe et al. 2017, arXiv:1706.02275; physics of mpe2 1.1",
        scripted="envs.particle.scripted:spread_assignment",
    ),
    "two_step": Entry(
        target="envs.matrix.games:TwoStep",
        summary="the first agent chooses which matrix game both play; a sum of values cannot tell which is better",
        agents="2",
        optimum="8 an episode",
        source="Rashid et al. 2018, arXiv:1803.11485, section 5",
    ),
}

SCRIPTED = {"mpe2.simple_spread_v3": "envs.particle.scripted:spread_assignment"}


def resolve(name: str) -> Entry:
    """The native environment of this name.

    Raises:
        ValueError: If there is none; the message names the closest.
    """
    if name not in ENVIRONMENTS:
        also = "; or an import path such as mpe2.simple_spread_v3"
        raise ValueError(unknown("environment", name, ENVIRONMENTS) + also)
    return ENVIRONMENTS[name]


def scripted(name: str) -> str | None:
    """Where the hand-written policy of a native or third-party environment stands, ``module:function``, or None."""
    return ENVIRONMENTS[name].scripted if name in ENVIRONMENTS else SCRIPTED.get(name)


def load(target: str) -> Any:
    """Import what ``module:Name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
