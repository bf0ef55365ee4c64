"""Probe: a tiny world whose values and best returns are known by hand; what all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.native import Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec


@tree.struct
class Bits:
    """A bit of each agent, and the step of the episode."""

    bit: Tensor = tree.axes("N")  # [B, N] 0 or 1
    step: Tensor = tree.axes("")  # [B]


class Probe(Task[Bits]):
    """Two agents that hear each other, each seeing its own bit and the step; episodes of ``steps`` steps truly end.

    Attributes:
        asks: What a learner must get right.
        steps: Steps of an episode.
        needs: What it cannot be learned without: ``reals`` (continuous actions), ``memory``.
        network: Networks it is played with where none are chosen.
        algorithm: Settings it is played with, where the algorithm has them and none are chosen.
        tells: Whether the return tells a good policy from a bad one.

    Args:
        linked: Whether the agents hear each other.
    """

    asks: ClassVar[str]
    steps: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    network: ClassVar[Mapping[str, Any]] = {}
    algorithm: ClassVar[Mapping[str, Any]] = {}
    tells: ClassVar[bool] = True
    action: ClassVar[ActionSpec] = ActionSpec.discrete(2)

    def __init__(self, linked: bool = True) -> None:
        self.agents = AgentSpec.single(2, ObservationSpec.named(bit=1, step=1), self.action)
        self.links = Topology(torch.tensor([[0, 1], [1, 0]]) if linked else torch.zeros(2, 0), 2)

    def initial(self, generator: torch.Generator, n: int) -> Bits:
        """Fair coins."""
        return Bits(coins(generator, n), torch.zeros(n, dtype=torch.int64))

    def advance(self, state: Bits, action: Tensor, generator: torch.Generator) -> tuple[Bits, Tensor, Tensor]:
        """Pay, and go on."""
        reward = torch.where(self.alive(state), self.pay(state, action.squeeze(-1)), 0.0)
        after = self.follow(state, action.squeeze(-1), generator)
        return after, reward, (after.step >= self.steps).unsqueeze(-1).expand_as(reward)

    def view(self, state: Bits) -> View:
        """The own bit as -1 or 1, and the step; empty slots hold no number, which must not matter."""
        step, alive = state.step.unsqueeze(-1).expand_as(state.bit), self.alive(state)
        obs = torch.stack([2.0 * state.bit - 1, step.float()], -1)
        return View(torch.where(alive.unsqueeze(-1), obs, float("nan")), alive, Graph(topology=self.links))

    def alive(self, state: Bits) -> Tensor:
        """``[B, N]`` bool: who lives."""
        return torch.ones_like(state.bit, dtype=torch.bool)

    def follow(self, state: Bits, action: Tensor, generator: torch.Generator) -> Bits:
        """The next state after ``action [B, N]``."""
        return Bits(state.bit, state.step + 1)

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """Reward ``[B, N]`` of ``action [B, N]``."""
        raise NotImplementedError

    def best(self, state: Bits, gamma: float) -> Tensor:
        """``[B, N]`` what a learner with discount ``gamma`` should do: by default name the own bit."""
        return state.bit

    def value(self, state: Bits, gamma: float) -> Tensor | None:
        """``[B, N]`` values under :meth:`best`, NaN where nothing is claimed; None where nothing is at all."""
        return None

    def team_value(self, state: Bits, gamma: float) -> Tensor | None:
        """``[B, 1]`` values of the team under :meth:`best`: by default the sum over the living."""
        value = self.value(state, gamma)
        return None if value is None else torch.where(self.alive(state), value, 0.0).sum(-1, keepdim=True)

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """Mean return of an agent under the best policy for what agents can know.

        Args:
            gamma: Discount of the learner.
            hears: Whether an agent's choice can depend on what the other sees.
            remembers: Whether it can depend on what was seen before.
        """
        return 1.0


def coins(generator: torch.Generator, n: int) -> Tensor:
    """``[n, 2]`` fair ones."""
    return torch.randint(2, (n, 2), generator=generator)
