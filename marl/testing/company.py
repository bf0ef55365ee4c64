"""Probes about others and about what cannot be seen now: links, masks, deaths, births, memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from envs.base import View
from envs.spaces import ActionSpec
from marl.testing.probe import Bits, Probe, coins


class Partner(Probe):
    """1 for naming the partner's bit, which only a link can tell: 1 each with links, one half without."""

    asks = "a choice that depends on what only the partner sees"
    network: ClassVar[Mapping[str, Any]] = {"policy": {"name": "graph", "hidden": 32}}

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return (action == self.best(state, 1.0)).float()

    def best(self, state: Bits, gamma: float) -> Tensor:
        """The partner's bit."""
        return state.bit.flip(-1)

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """A coin without a link to hear over."""
        return 1.0 if hears else 0.5


class Masked(Probe):
    """Nothing in the first step; in the second each choice pays its number, but 2 is forbidden where the bit is 0.

    There it would pay 3. In the first step 2 is forbidden to all, and bits are not shown: the mean is 3/2, and gamma
    times that before.
    """

    asks = "a choice that would pay more, but is forbidden"
    steps = 2
    action = ActionSpec.discrete(3)

    def view(self, state: Bits) -> View:
        """The mask tells what the observation does not."""
        shown = super().view(state)
        obs = torch.cat([torch.zeros_like(shown.obs[..., :1]), shown.obs[..., 1:]], -1)
        third = ((state.bit == 1) & (state.step == 1).unsqueeze(-1)).unsqueeze(-1)
        mask = torch.cat([torch.ones_like(third), torch.ones_like(third), third], -1)
        return View(obs, shown.alive, shown.graph, action_mask=mask)

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        paid = torch.where((action == 2) & (state.bit == 0), 3, action)
        return torch.where(state.step.unsqueeze(-1) == 1, paid, 0).float()

    def best(self, state: Bits, gamma: float) -> Tensor:
        """The largest that is allowed."""
        return torch.where(state.step.unsqueeze(-1) == 1, 1 + state.bit, 0)

    def value(self, state: Bits, gamma: float) -> Tensor:
        """Of the first step; in the second it depends on whether the critic knows the mask."""
        value = torch.full_like(state.bit, 1.5 * gamma, dtype=torch.float32)
        return torch.where(state.step.unsqueeze(-1) == 0, value, float("nan"))

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """Half of the time 1, half of the time 2."""
        return 1.5


class Dying(Probe):
    """1 for naming the own bit: the second agent in the first step, in which it dies; the first in the second."""

    asks = "a partner that dies"
    steps = 2

    def alive(self, state: Bits) -> Tensor:
        """The second agent lives for one step."""
        return torch.stack([torch.ones_like(state.step, dtype=torch.bool), state.step == 0], -1)

    def advance(self, state: Bits, action: Tensor, generator: torch.Generator) -> tuple[Bits, Tensor, Tensor]:
        """Who is not there any more has terminated."""
        after, reward, over = super().advance(state, action, generator)
        return after, reward, self.alive(state) & (over | ~self.alive(after))

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        due = torch.stack([state.step == self.steps - 1, torch.ones_like(state.step, dtype=torch.bool)], -1)
        return ((action == state.bit) & due).float()

    def value(self, state: Bits, gamma: float) -> Tensor:
        """What comes of the own life alone."""
        first = gamma ** (self.steps - 1 - state.step).float()
        return torch.stack([first, torch.ones_like(first)], -1)


class Newborn(Dying):
    """Three steps; the second agent dies in the first, its slot stays empty for one, then a newborn takes it.

    Each is paid for naming its own bit in its last step: the newborn, with a bit of its own, 2, the others 1. No value
    of the dead agent may hold anything of the newborn's.
    """

    asks = "a newborn in the slot of a dead agent"
    steps = 3

    def alive(self, state: Bits) -> Tensor:
        """The second slot is empty in the second step."""
        return torch.stack([torch.ones_like(state.step, dtype=torch.bool), state.step != 1], -1)

    def follow(self, state: Bits, action: Tensor, generator: torch.Generator) -> Bits:
        """The newborn's bit is new."""
        fresh = torch.stack([torch.zeros_like(state.step, dtype=torch.bool), state.step == 1], -1)
        return Bits(torch.where(fresh, coins(generator, len(state.step)), state.bit), state.step + 1)

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        second = torch.where(state.step == 2, 2.0, 1.0)
        return super().pay(state, action) * torch.stack([torch.ones_like(second), second], -1)

    def value(self, state: Bits, gamma: float) -> Tensor:
        """What comes of the own life alone."""
        second = torch.where(state.step == 2, 2.0, 1.0)
        return super().value(state, gamma) * torch.stack([torch.ones_like(second), second], -1)

    def team_value(self, state: Bits, gamma: float) -> Tensor:
        """A team lives on: the first to die earns it 1 at once, the newborn and the first agent 3 in the last step."""
        last = 3 * gamma ** (2 - state.step).float()
        return (last + (state.step == 0)).unsqueeze(-1)

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """1 in the first slot, 1 and 2 in the second."""
        return 2.0


class Remembered(Probe):
    """The own bit is shown in the first of two steps only; 1 for naming it in the second: 1 with memory, else 1/2."""

    asks = "something to remember"
    needs = frozenset({"memory"})
    steps = 2
    network: ClassVar[Mapping[str, Any]] = {"memory": {"name": "gru", "hidden": 32}}
    algorithm: ClassVar[Mapping[str, Any]] = {"sequence": 4}

    def view(self, state: Bits) -> View:
        """Nothing in the second step."""
        shown = super().view(state)
        return View(torch.where((state.step == 0).reshape(-1, 1, 1), shown.obs, 0.0), shown.alive, shown.graph)

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return ((action == state.bit) & (state.step == 1).unsqueeze(-1)).float()

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """A coin without memory."""
        return 1.0 if remembers else 0.5


class Told(Remembered):
    """As :class:`Remembered`, with 1 for naming the partner's bit: 1 with links and memory, 1/2 without either."""

    asks = "something to remember that only the partner saw"
    network: ClassVar[Mapping[str, Any]] = {**Partner.network, **Remembered.network}

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return super().pay(state, action.flip(-1)).flip(-1)

    def best(self, state: Bits, gamma: float) -> Tensor:
        """The partner's bit."""
        return state.bit.flip(-1)

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """A coin without a link to hear over or memory."""
        return 1.0 if hears and remembers else 0.5
