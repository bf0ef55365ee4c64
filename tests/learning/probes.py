"""Probe worlds: tiny tasks whose values and best returns are known by hand."""

from __future__ import annotations

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
    """A private bit of each agent, and the step of the episode."""

    bit: Tensor = tree.axes("N")  # [B, N] 0 or 1
    step: Tensor = tree.axes("")  # [B]


class Probe(Task[Bits]):
    """Two agents, each seeing its own bit and the step; episodes of ``steps`` steps that truly end."""

    steps = 1

    def __init__(self, linked: bool = True, num_agents: int = 2) -> None:
        self.agents = AgentSpec.single(num_agents, ObservationSpec.named(bit=1, step=1), ActionSpec.discrete(2))
        pairs = torch.tensor([[0, 1], [1, 0]]) if linked else torch.zeros(2, 0)
        self.links = Topology(pairs, num_agents)

    def initial(self, generator: torch.Generator, n: int) -> Bits:
        bits = torch.randint(2, (n, self.agents.num_agents), generator=generator)
        return Bits(bits, torch.zeros(n, dtype=torch.int64))

    def advance(self, state: Bits, action: Tensor, generator: torch.Generator) -> tuple[Bits, Tensor, Tensor]:
        reward = self.pay(state, action.squeeze(-1)).float()
        after = Bits(state.bit, state.step + 1)
        return after, reward, (after.step >= self.steps).unsqueeze(-1).expand_as(reward)

    def view(self, state: Bits) -> View:
        step = state.step.unsqueeze(-1).expand_as(state.bit)
        obs = torch.stack([2.0 * state.bit - 1, step.float()], -1)
        return View(obs, torch.ones_like(state.bit, dtype=torch.bool), Graph(topology=self.links))

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """Reward ``[B, N]`` of ``action [B, N]``."""
        raise NotImplementedError


class Constant(Probe):
    """Always 1: every value is 1."""

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        return torch.ones_like(action)


class Seen(Probe):
    """The own bit as +1 or -1: the value is what is seen."""

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        return 2 * state.bit - 1


class Delayed(Probe):
    """Nothing, then 1: the first value is the discount."""

    steps = 2

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        return (state.step == 1).unsqueeze(-1).expand_as(action)


class Chosen(Probe):
    """1 for naming the own bit: the best policy earns 1 each."""

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        return action == state.bit


class Partner(Probe):
    """1 for naming the partner's bit, which only a link can tell: 1 each with links, one half without."""

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        return action == state.bit.flip(-1)


class Remembered(Probe):
    """The own bit is shown in the first of two steps only; 1 for naming it in the second: 1 with memory, else 1/2."""

    steps = 2

    def view(self, state: Bits) -> View:
        shown = super().view(state)
        obs = torch.where((state.step == 0).reshape(-1, 1, 1), shown.obs, torch.zeros_like(shown.obs))
        return View(obs, shown.alive, shown.graph)

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        return (action == state.bit) & (state.step == 1).unsqueeze(-1)


class Told(Remembered):
    """As :class:`Remembered`, with 1 for naming the partner's bit: 1 with memory and links, 1/2 without either."""

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        return (action == state.bit.flip(-1)) & (state.step == 1).unsqueeze(-1)
