"""Flocking: modules that move in the plane, hear those near them, and come to share a velocity or a place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, softshrink

from coordination import tree
from coordination.gather import neighbour_sum
from coordination.graph import Graph
from coordination.names import unknown
from coordination.proximity import nearest, within
from envs.base import View
from envs.population.base import Population, PopulationState, TopologySetting, modules_spec
from envs.render.scene import Scene
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

TASKS = ("flocking", "rendezvous")
TIME_STEP = 0.1
LIMIT = 1.0  # most acceleration (flocking) or speed (rendezvous) along an axis; velocities begin in [-LIMIT, LIMIT]
REACH = TIME_STEP * LIMIT  # how far one full action moves what is to be agreed on, along an axis
HALVINGS = 60  # of the interval in which a minimum is sought: beyond the precision of float64


@dataclass(frozen=True)
class Sensing:
    """Who is heard: the nearest ``most`` of those within ``radius``, which may be infinite."""

    radius: float
    most: int


@tree.struct
class Flock:
    """Where modules are and go.

    Attributes:
        position: ``[B, N, 2]``; NaN where a slot is empty.
        velocity: ``[B, N, 2]`` per unit of time.
        sensing: The rule of :attr:`near`; None where links do not depend on positions.
    """

    position: Tensor = tree.axes("N 2")
    velocity: Tensor = tree.axes("N 2")
    sensing: Sensing | None = tree.shared(default=None)

    @cached_property
    def near(self) -> tuple[Graph, Tensor]:
        """Who hears whom, and ``[B]`` how many links within the radius found no slot; sought once for every state."""
        assert self.sensing is not None
        if math.isinf(self.sensing.radius):
            graph = nearest(self.position, self.sensing.most)
            return graph, torch.zeros(self.position.shape[0], dtype=torch.int64, device=self.position.device)
        return within(self.position, self.sensing.radius, self.sensing.most)


class Flocking(Population[Flock]):
    """Agreement in motion, over links that follow the positions: on a velocity (flocking) or a place (rendezvous).

    Modules begin uniformly in a square of area N around the origin, so that density, and with it the mean number of
    neighbours (``pi radius^2``), is the same for any N. With ``x_i`` the velocity (flocking) or position (rendezvous)
    of module i, its reward is ``-|x_i - mean x|^2`` after the step: the team pays N times the variance.

    - ``flocking``: the action is an acceleration ``u``, held for a step of T = 0.1: ``r += T v + T^2 u / 2``,
      ``v += T u``. Double integrator and cost are those of Tolstaya et al. 2019 (arXiv:1903.10527). Deviations:
      accelerations are at most 1 along either axis; velocities begin uniformly in [-1, 1] without a common bias;
      modules may meet (no potential keeps them apart); they see means over those they hear; a start need not be
      connected.
    - ``rendezvous``: the action is a velocity of at most 1 along either axis, ``r += T u`` (Ando et al. 1999, with
      bounded speed). Modules begin at rest; a failed one stands still, where in flocking it drifts on.

    **Optimum.** No policy pays less than :meth:`least_cost`, which follows from how far ``x_i`` can get in t steps.
    Full speed towards the first mean, with everyone in sight, pays 1.02 times as much on average for 12 modules, 1.0002
    for 1,000, and exactly this for two. While the graph stays connected, :func:`local_averaging` brings all ``x_i``
    together; those out of each other's reach cannot know of each other, and each group agrees by itself.

    A module sees ``disagreement``, the mean of ``x_j - x_i`` over whom it hears, in units of one full action;
    ``offset``, the mean of ``r_j - r_i`` (flocking only); its ``velocity``; and ``neighbours``, how many it hears.

    Where modules leave, one that has just left may take up a neighbour's slot in the first view after; nothing else of
    it is heard.

    Args:
        num_agents: Number of modules; None for as many as ``modules`` count, or 16.
        modules: How many there are of each kind; kinds differ by name only.
        task: What to agree on.
        topology: ``radius:R``, links among modules within R (raising it adds links in proportion to its square);
            ``knn:K``, one-way links from the K nearest however far; or a fixed one as in
            :class:`~envs.population.base.Population`, for which positions do not matter.
        capacity: Most neighbours of one module under ``radius``; those farther away are dropped, and counted.
        dynamics: As in :class:`~envs.population.base.Population`, without ``rewire``.
        horizon: Steps after which an episode is truncated; None for no limit.

    Raises:
        ValueError: If an argument is out of range.
    """

    moving = True

    def __init__(
        self,
        *,
        num_agents: int | None = None,
        modules: Mapping[str, int] | None = None,
        task: Literal["flocking", "rendezvous"] = "flocking",
        topology: TopologySetting = "radius:1.5",
        capacity: int = 16,
        dynamics: Mapping[str, float] | None = None,
        horizon: int | None = 100,
    ) -> None:
        if task not in TASKS:
            raise ValueError(unknown("task", task, TASKS))
        if capacity < 1:
            raise ValueError(f"capacity: must be at least 1, got {capacity}")
        self.flocking = task == "flocking"
        parts = {"disagreement": 2, **({"offset": 2} if self.flocking else {}), "velocity": 2, "neighbours": 1}
        info: dict = {"variance": "last", "order": "last", "spread": "last", "neighbours": "mean", "dropped": "sum"}
        agents = modules_spec(num_agents, modules, ObservationSpec.named(**parts), ActionSpec.box(-1, 1, 2), info=info)
        self.sensing = _sensing(topology, capacity, agents.num_agents)
        fixed = topology if self.sensing is None else "empty"
        super().__init__(agents, topology=fixed, dynamics=dynamics, horizon=horizon)

    def begin(self, generator: torch.Generator, n: int) -> Flock:
        """Modules uniform in the square; in rendezvous they are at rest."""
        shape, device = (n, self.num_agents, 2), generator.device
        half = math.sqrt(self.num_agents) / 2
        position = torch.empty(shape, device=device).uniform_(-half, half, generator=generator)
        velocity = torch.zeros(shape, device=device)
        if self.flocking:
            velocity.uniform_(-LIMIT, LIMIT, generator=generator)
        return Flock(position, velocity, self.sensing)

    def links(self, modules: Flock) -> Graph:
        """By distance, or the fixed topology."""
        return self._graph if self.sensing is None else modules.near[0]

    def play(self, state: PopulationState[Flock], action: Tensor, generator: torch.Generator) -> tuple[Flock, Tensor]:
        """Move; then everyone pays for its distance to the mean."""
        push, before, alive = action.clamp(-1, 1) * LIMIT, state.modules, state.alive
        if self.flocking:
            position = before.position.add(before.velocity, alpha=TIME_STEP).add_(push, alpha=TIME_STEP**2 / 2)
            velocity = before.velocity.add(push, alpha=TIME_STEP)
        else:
            position, velocity = before.position.add(push, alpha=TIME_STEP), push
        if alive is not None:
            position = torch.where(alive.unsqueeze(-1), position, torch.nan)
        after = Flock(position, velocity, self.sensing)
        return after, _apart(self._agreed(after), alive).neg_()

    def observe(self, state: PopulationState[Flock]) -> Tensor:
        """Mean offsets to whom one hears, own velocity, and how many those are; zeros in empty slots."""
        flock, alive = state.modules, state.alive
        own = [flock.velocity, flock.position] if self.flocking else [flock.position]
        told = torch.cat([*own, torch.ones_like(flock.position[..., :1])], -1)
        if alive is not None:
            told = torch.where(alive.unsqueeze(-1), told, 0.0)
        total = neighbour_sum(told, state.graph)
        count = total[..., -1:]
        offset = (total - told * count)[..., :-1] / count.clamp(min=1)  # zero where nobody is heard
        offset[..., :2].div_(REACH)
        obs = torch.cat([offset, flock.velocity, count], -1)
        return obs if alive is None else torch.where(alive.unsqueeze(-1), obs, 0.0)

    def scene(self, state: PopulationState[Flock]) -> Scene | None:
        """Modules where they are, unless links have nothing to do with that."""
        return None if self.sensing is None else Scene(state.modules.position)

    def info(self, state: PopulationState[Flock]) -> dict[str, Tensor]:
        """Over the living: how far agreement and order have come, how far they are spread, and whom they hear.

        ``variance`` is the mean of ``|x_i - mean x|^2``; ``order`` the length of the mean heading, 1 where all move one
        way (Vicsek et al. 1995); ``spread`` the root mean square distance to the centroid; ``neighbours`` how many one
        hears on average; ``dropped`` counts links within the radius that found no slot.
        """
        flock, alive = state.modules, state.alive
        apart = _mean(_apart(flock.position, alive), alive)
        return {
            "variance": _mean(_apart(flock.velocity, alive), alive) if self.flocking else apart,
            "order": _centre(normalize(flock.velocity, dim=-1), alive).norm(dim=-1),
            "spread": apart.sqrt(),
            "neighbours": self._heard(state),
            "dropped": torch.zeros_like(apart) if self.sensing is None else flock.near[1].to(apart.dtype),
        }

    def least_cost(self, state: PopulationState[Flock], steps: int) -> Tensor:
        """What ``steps`` steps from here cost the team at least, whoever hears whom, while nothing else happens.

        After t steps ``x_i`` is within ``t REACH`` of where it is now along either axis, wherever the mean is then, so
        the cost of that step is at least ``min_c sum_i max(0, |x_i - c| - t REACH)^2``, summed over both axes.

        Returns:
            ``[B]`` float64, the sum over the steps.
        """
        start = self._agreed(state.modules).double().transpose(-1, -2)
        return torch.stack([_least_apart(start, t * REACH).sum(-1) for t in range(1, steps + 1)]).sum(0)

    def _heard(self, state: PopulationState[Flock]) -> Tensor:
        """``[B]`` how many one living module hears on average."""
        up = state.graph.up()
        if up is not None and state.alive is None:  # then links need only be counted
            return up.sum(-1) / self.num_agents
        return _mean(state.num_heard().expand_as(state.reward), state.alive)

    def _agreed(self, flock: Flock) -> Tensor:
        """``[B, N, 2]`` what modules are to agree on."""
        return flock.velocity if self.flocking else flock.position


def local_averaging(view: View, agents: AgentSpec) -> Tensor:
    """Half the way to the mean of those one hears, as far as one action goes.

    Every ``x_i`` moves to a mixture of itself and its neighbours, with at least half of its own weight, so that the
    spread along either axis never grows, and goes to zero where the graph stays connected, or is so together over
    some steps again and again (Jadbabaie, Lin and Morse 2003, IEEE TAC 48(6)).

    Args:
        view: What the modules of :class:`Flocking` see.
        agents: Who they are.

    Returns:
        ``[*, N, 2]`` float32.
    """
    return (view.obs[..., :2] / 2).clamp(-1, 1)


def _sensing(topology: TopologySetting, capacity: int, num_agents: int) -> Sensing | None:
    """The rule that ``radius:R`` or ``knn:K`` means; None for a fixed topology."""
    name, _, value = topology.partition(":") if isinstance(topology, str) else ("", "", "")
    if name not in ("radius", "knn"):
        return None
    try:
        number = int(value) if name == "knn" else float(value)
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        kind = "whole number, as in knn:7" if name == "knn" else "number, as in radius:1.5"
        raise ValueError(f"topology {topology!r}: expected a positive {kind}")
    others = max(num_agents - 1, 1)
    if name == "knn":
        return Sensing(math.inf, min(int(number), others))
    return Sensing(float(number), min(capacity, others))


def _mean(x: Tensor, alive: Tensor | None) -> Tensor:
    """``[B]`` mean of ``x [B, N]`` over the living; zero where nobody lives."""
    if alive is None:
        return x.mean(-1)
    return torch.where(alive, x, 0.0).sum(-1) / alive.sum(-1).clamp(min=1)


def _centre(x: Tensor, alive: Tensor | None) -> Tensor:
    """``[B, D]`` mean of ``x [B, N, D]`` over the living."""
    return torch.stack([_mean(axis, alive) for axis in x.unbind(-1)], -1)


def _apart(x: Tensor, alive: Tensor | None) -> Tensor:
    """``[B, N]`` squared distance of ``x [B, N, 2]`` to its mean over the living."""
    return (x - _centre(x, alive).unsqueeze(-2)).square().sum(-1)


def _least_apart(x: Tensor, reach: float) -> Tensor:
    """``[*]`` least ``sum_i max(0, |x_i - c| - reach)^2`` over c, for ``x [*, N]``; convex, so its slope is halved."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = softshrink(x - middle, reach).sum(-1, keepdim=True) > 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return softshrink(x - (low + high) / 2, reach).square().sum(-1)
