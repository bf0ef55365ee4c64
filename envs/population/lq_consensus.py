"""Linear-quadratic consensus: modules push their values together over the links, with a Riccati optimum at any size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from coordination import tree
from envs.population import riccati
from envs.population.base import Population, PopulationState, TopologySetting, modules_spec
from envs.spaces import ActionSpec, ObservationSpec


@tree.struct
class Values:
    """What the modules hold.

    Attributes:
        value: ``[B, N]``; standard normal at the beginning.
    """

    value: Tensor = tree.axes("N")


class LQConsensus(Population[Values]):
    """Each module pushes its value, ``x <- x + u``, and pays for the push and for standing apart from those it hears.

    The cost of a step is ``sum_i [1/2 sum_{j heard by i} (x_i - x_j)^2 + r u_i^2]``, which on an undirected topology
    is ``x^T L x + r u^T u`` with the Laplacian L: a linear-quadratic regulator (Kalman 1960) that falls apart into one
    scalar problem for each eigenvalue of L. Each module is rewarded with the negative of its own term, so that rewards
    add up to the team's. A module sees its value, and the mean difference to those it hears.

    The least mean cost per module is :meth:`optimal_cost`: 2.636620 on a ring of 100,000 with r = 1, in an episode
    without end. Bounding the push by 3 costs less than one part in a million of that. Where dynamics are on, it is the
    optimum of the undisturbed population and no bound.

    Args:
        num_agents: Number of modules; None for as many as ``modules`` count, or 16.
        modules: How many of each kind; kinds differ in name only.
        topology: Who hears whom.
        dynamics: Rates by event; a module that comes has a fresh value.
        control_cost: r, above 0; raising it makes patience pay.
        max_push: Largest push, in units of the standard deviation of first values; lowering it keeps random play tame.
        horizon: Steps after which an episode is truncated; from 25 on the optimum is within 0.01% of that without end.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        num_agents: int | None = None,
        modules: Mapping[str, int] | None = None,
        topology: TopologySetting = "ring",
        dynamics: Mapping[str, float] | None = None,
        control_cost: float = 1.0,
        max_push: float = 3.0,
        horizon: int = 32,
    ) -> None:
        for name, number in (("control_cost", control_cost), ("max_push", max_push)):
            if not number > 0:
                raise ValueError(f"{name}: must be above 0, got {number}")
        agents = modules_spec(
            num_agents,
            modules,
            ObservationSpec.named(value=1, difference=1),
            ActionSpec.box(-max_push, max_push, 1),
            info={"deviation": "last"},
        )
        super().__init__(agents, topology=topology, dynamics=dynamics, horizon=horizon)
        self.control_cost, self.max_push = control_cost, max_push

    def begin(self, generator: torch.Generator, n: int) -> Values:
        """Standard normal values."""
        return Values(torch.randn(n, self.num_agents, generator=generator, device=generator.device))

    def play(self, state: PopulationState[Values], action: Tensor, generator: torch.Generator) -> tuple[Values, Tensor]:
        """Pay for where everyone stands and for the pushes, then move."""
        value, push = state.modules.value, action[..., 0].clamp(-self.max_push, self.max_push)
        square = value * value
        apart = square * state.num_heard() + state.heard(square) - 2 * value * state.heard(value)
        return Values(value + push), -(0.5 * apart + self.control_cost * push * push)

    def observe(self, state: PopulationState[Values]) -> Tensor:
        """Own value, and the mean difference to those heard."""
        value, count = state.modules.value, state.num_heard()
        difference = (state.heard(value) - count * value) / count.clamp(min=1)
        return torch.stack([value, difference], -1)

    def info(self, state: PopulationState[Values]) -> dict[str, Tensor]:
        """``deviation [B]``: standard deviation of the values of all living modules."""
        value, alive = state.modules.value, state.alive
        if alive is None:
            return {"deviation": (value - value.mean(-1, keepdim=True)).square().mean(-1).sqrt()}
        count = alive.sum(-1, keepdim=True).clamp(min=1)
        mean = torch.where(alive, value, 0.0).sum(-1, keepdim=True) / count
        return {"deviation": (torch.where(alive, value - mean, 0.0).square() / count).sum(-1).sqrt()}

    def optimal_cost(self) -> float:
        """Least expected cost of an episode, per module, without dynamics and without the bound on pushes."""
        return riccati.optimal_cost(self.topology, self.control_cost, self.horizon)

    def random_cost(self) -> float:
        """Expected cost of an episode, per module, of pushes uniform in their range, without dynamics.

        A value starts with variance 1 and gains ``v = max_push^2 / 3`` a step; differences of independent values have
        the sum of their variances: ``sum_t [E / N (1 + t v) + r v]`` with E directed edges.
        """
        assert self.horizon is not None
        steps, gain, degree = self.horizon, self.max_push**2 / 3, self.topology.num_edges / self.num_agents
        return degree * (steps + gain * steps * (steps - 1) / 2) + self.control_cost * gain * steps
