"""Probes about rewards, time and choices: what each agent must learn for itself."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.base import View
from envs.spaces import ActionSpec
from marl.testing.probe import Bits, Probe


class OneStep(Probe):
    """1 for choice 1: the value is 1."""

    asks = "a reward at once"

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return action.float()

    def best(self, state: Bits, gamma: float) -> Tensor:
        """Choice 1."""
        return torch.ones_like(state.bit)

    def value(self, state: Bits, gamma: float) -> Tensor | None:
        """1 each."""
        return torch.ones_like(state.bit).float()


class Constant(OneStep):
    """Always 1, whatever is done: every value is 1."""

    asks = "a reward that depends on nothing"
    tells = False

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return torch.ones_like(state.bit).float()


class Observation(Probe):
    """The own bit as +1 or -1, whatever is done: the value is what is seen, the mean return nothing."""

    asks = "a value that depends on the observation"
    tells = False

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return 2.0 * state.bit - 1

    def value(self, state: Bits, gamma: float) -> Tensor:
        """The reward."""
        return 2.0 * state.bit - 1

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """Coins are fair."""
        return 0.0


class Delayed(Probe):
    """Bits are 0 at first and become what was chosen; the second step pays each its bit: worth gamma in the first."""

    asks = "a reward one step after the choice it pays for"
    steps = 2

    def initial(self, generator: torch.Generator, n: int) -> Bits:
        """Zeros."""
        return Bits(torch.zeros(n, 2, dtype=torch.int64), torch.zeros(n, dtype=torch.int64))

    def follow(self, state: Bits, action: Tensor, generator: torch.Generator) -> Bits:
        """The first choice stays."""
        return Bits(torch.where(state.step.unsqueeze(-1) == 0, action, state.bit), state.step + 1)

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return torch.where(state.step.unsqueeze(-1) == 1, state.bit, 0).float()

    def best(self, state: Bits, gamma: float) -> Tensor:
        """Choice 1."""
        return torch.ones_like(state.bit)

    def value(self, state: Bits, gamma: float) -> Tensor:
        """Gamma, then 1."""
        return (gamma ** (1 - state.step).unsqueeze(-1).float()).expand(-1, 2)


class Discounted(Delayed):
    """Either 1 now, or 3/2 in the second step, which pays for choice 1: worth waiting for if gamma is above 2/3."""

    asks = "a smaller reward now against a larger one later"
    LATER = 1.5

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return torch.where(state.step.unsqueeze(-1) == 0, 1.0 - action, self.LATER * state.bit)

    def best(self, state: Bits, gamma: float) -> Tensor:
        """Wait if that is worth more."""
        return torch.full_like(state.bit, int(self.LATER * gamma > 1))

    def value(self, state: Bits, gamma: float) -> Tensor:
        """The better of both; then what was waited for."""
        first = torch.full_like(state.bit, max(1.0, self.LATER * gamma), dtype=torch.float32)
        return torch.where(state.step.unsqueeze(-1) == 0, first, self.LATER * state.bit)

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """Undiscounted."""
        return self.LATER if self.LATER * gamma > 1 else 1.0


class TimeLimit(OneStep):
    """1 for choice 1 for ever; cut off after three steps, which is no end: every value is 1 / (1 - gamma).

    The step is not shown, so that the state in which an episode is cut off looks like all others.
    """

    asks = "episodes that are cut off before they end"
    steps = 10**9
    horizon = 3

    def view(self, state: Bits) -> View:
        """The own bit alone."""
        shown = super().view(state)
        return View(shown.obs * torch.tensor([1.0, 0.0]), shown.alive, shown.graph)

    def value(self, state: Bits, gamma: float) -> Tensor | None:
        """A geometric series; without a discount it has no sum."""
        if gamma >= 1:
            return None
        return torch.full_like(state.bit, 1 / (1 - gamma), dtype=torch.float32)

    def mean_return(self, gamma: float, hears: bool, remembers: bool) -> float:
        """Of three steps."""
        return 3.0


class Action(Probe):
    """1 for naming the own bit: the best policy earns 1 each."""

    asks = "a choice that depends on the observation"

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return (action == state.bit).float()

    def value(self, state: Bits, gamma: float) -> Tensor:
        """1 each."""
        return torch.ones_like(state.bit).float()


class Reals(Action):
    """1 less the square of the distance from -1/2 or 1/2, as the own bit says, for a real in [-1, 1]."""

    asks = "a real number that depends on the observation"
    needs = frozenset({"reals"})
    action = ActionSpec.box(-1, 1, 1)

    def pay(self, state: Bits, action: Tensor) -> Tensor:
        """See the class."""
        return 1 - (action - self.best(state, 1.0)).square()

    def best(self, state: Bits, gamma: float) -> Tensor:
        """The number asked for."""
        return state.bit - 0.5
