"""Cooperative navigation: N agents spread over N landmarks; equal to ``mpe2.simple_spread_v3`` step for step.

The all-pairs geometry of a state is worked out once, for rewards, information and the contact forces of the following
step; what it needs on the way is not kept, so that it stays in the cache.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.particle.physics import CONTACT_FORCE, TIME_STEP, closest, integrate, lengths, offsets, push
from envs.particle.planes import (
    apart,
    body_axis,
    copies_first,
    count_positive,
    places,
    planes,
    pressure,
    seen_by_few,
    seen_by_many,
)
from envs.particle.world import at_least, moves, scatter
from envs.render.scene import Scene
from envs.spaces import ObservationSpec
from envs.spec import AgentSpec

CONTACT_DISTANCE = 0.3  # two radii of 0.15
COVER_DISTANCE = 0.1


class Geometry(NamedTuple):
    """Of the places of all pairs, worked out once for each state, what is used more than once.

    Attributes:
        nearest: ``[B, N]`` distance of each landmark to the nearest agent.
        uncovered: ``[B]`` their sum.
        collisions: ``[B, N]`` float: how many others each agent overlaps with.
        pressed: How deep each agent presses into the others, in planes.
        offsets: In planes, from each agent to the landmarks and to all agents, where these are few.
    """

    nearest: Tensor
    uncovered: Tensor
    collisions: Tensor
    pressed: Tensor
    offsets: tuple[Tensor, Tensor] | None


@tree.struct
class SpreadState:
    """Where everything is.

    Attributes:
        position: ``[B, N, 2]`` of the agents; episodes begin in [-1, 1].
        velocity: ``[B, N, 2]`` of the agents, per unit of time.
        landmark: ``[B, N, 2]`` positions of the landmarks, which never move.
    """

    position: Tensor = tree.axes("N 2")
    velocity: Tensor = tree.axes("N 2")
    landmark: Tensor = tree.axes("N 2")

    @cached_property
    def bodies(self) -> tuple[Tensor, Tensor, Tensor]:
        """Position, velocity and landmarks in planes (:mod:`envs.particle.planes`)."""
        return planes(self.position), planes(self.velocity), planes(self.landmark)

    @cached_property
    def geometry(self) -> Geometry:
        """What follows from the places of all pairs."""
        axis, (position, _, landmark) = body_axis(self.position.shape[1]), self.bodies
        to_landmark, square = apart(position, landmark, axis)
        nearest = copies_first(square.amin(axis - 1).sqrt_(), axis)
        offset, square = apart(position, position, axis)
        distance = square.clamp_(min=1e-24).sqrt_()
        gap = CONTACT_DISTANCE - distance
        collisions = copies_first(count_positive(gap, axis) - 1, axis)  # less itself
        pressed = pressure(offset, distance, gap, axis)
        return Geometry(nearest, nearest.sum(-1), collisions, pressed, (to_landmark, offset) if axis == 1 else None)


class Spread(Task[SpreadState]):
    """``simple_spread_v3`` of mpe2 1.1 (Lowe et al. 2017, arXiv:1706.02275): cover all landmarks without colliding.

    A step moves every agent by its old velocity, then changes the velocity by damping, push and contact, the last
    felt at the old positions. The reward of agent i is ``-(1 - local_ratio) D - local_ratio C_i``: D sums, over
    landmarks, the distance to the nearest agent, C_i counts the agents that i overlaps with.

    Deviations from mpe2: two agents at exactly one point do not push each other (mpe2 divides by zero); the
    curriculum and the early end on success are left out.

    Args:
        num_agents: Agents and landmarks N, at least 1.
        local_ratio: Weight of the own collisions, in [0, 1]; raising it shares less of the reward.
        max_cycles: Steps after which an episode is truncated.
        continuous_actions: Five pushes in [0, 1] (none, left, right, down, up) instead of a choice among them.
        num_agent_neighbors: How many of the nearest other agents are seen, nearest first, padded with zeros;
            None for all, in order.
        num_landmark_neighbors: The same for landmarks.
    """

    ends_early = False

    def __init__(
        self,
        *,
        num_agents: int = 3,
        local_ratio: float = 0.5,
        max_cycles: int = 25,
        continuous_actions: bool = False,
        num_agent_neighbors: int | None = None,
        num_landmark_neighbors: int | None = None,
    ) -> None:
        at_least(1, num_agents=num_agents, max_cycles=max_cycles)
        at_least(1, num_agent_neighbors=num_agent_neighbors, num_landmark_neighbors=num_landmark_neighbors)
        if not 0 <= local_ratio <= 1:
            raise ValueError(f"local_ratio: must be in [0, 1], got {local_ratio}")
        self.num_agents, self.local_ratio, self.horizon = num_agents, local_ratio, max_cycles
        self.num_agent_neighbors, self.num_landmark_neighbors = num_agent_neighbors, num_landmark_neighbors
        others = num_agents - 1 if num_agent_neighbors is None else num_agent_neighbors
        self._silence = 2 * others
        self.agents = AgentSpec.single(
            num_agents,
            ObservationSpec.named(
                velocity=2,
                position=2,
                landmarks=2 * (num_landmark_neighbors or num_agents),
                others=2 * others,
                communication=self._silence,
            ),
            moves(continuous_actions),
            info={"collisions": "sum", "covered": "last", "distance": "sum"},
        )
        self._graph = default_graph(num_agents)

    def initial(self, generator: torch.Generator, n: int) -> SpreadState:
        """Agents and landmarks uniform in the square, at rest."""
        position, landmark = (scatter(generator, n, self.num_agents) for _ in range(2))
        return SpreadState(position, torch.zeros_like(position), landmark)

    def advance(
        self, state: SpreadState, action: Tensor, generator: torch.Generator
    ) -> tuple[SpreadState, Tensor, Tensor]:
        """One step of physics; nothing terminates."""
        axis, (position, velocity, _) = body_axis(self.num_agents), state.bodies
        kick = planes(push(action)).sub_(state.geometry.pressed, alpha=CONTACT_FORCE * TIME_STEP)
        moved = integrate(position, velocity, kick)
        after = SpreadState(places(moved[0], axis), places(moved[1], axis), state.landmark)
        shared = after.geometry.uncovered.unsqueeze(-1) * (self.local_ratio - 1)
        reward = torch.sub(shared, after.geometry.collisions, alpha=self.local_ratio).contiguous()
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: SpreadState) -> View:
        """Own velocity and position, offsets to landmarks and others, and the silence of the others."""
        position, velocity, landmark = state.bodies
        if self.num_agent_neighbors is not None or self.num_landmark_neighbors is not None:
            obs = self._seen_of_neighbours(state)
        elif state.geometry.offsets is not None:
            obs = seen_by_few(position, velocity, *state.geometry.offsets)
        else:
            obs = seen_by_many(position, velocity, landmark)
        return View(obs, torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device), self._graph)

    def _seen_of_neighbours(self, state: SpreadState) -> Tensor:
        """``[B, N, O]`` with the nearest landmarks and others alone."""
        n, offset = self.num_agents, offsets(state.position, state.landmark)
        distance = lengths(offset)
        seen = (
            closest(offset[:, :, :n], distance[..., :n], self.num_landmark_neighbors),
            closest(offset[:, :, n:], distance[..., n:], self.num_agent_neighbors),
        )
        silence = offset.new_zeros(1).expand(*offset.shape[:2], self._silence)
        return torch.cat([state.velocity, state.position, *seen, silence], -1)

    def scene(self, state: SpreadState) -> Scene:
        """Agents and landmarks."""
        return Scene(state.position, {"landmark": state.landmark})

    def info(self, state: SpreadState) -> dict[str, Tensor]:
        """Ordered pairs of overlapping agents, landmarks with an agent within 0.1, and the sum of ``nearest``."""
        found = state.geometry
        return {
            "collisions": found.collisions.sum(-1),
            "covered": (found.nearest < COVER_DISTANCE).sum(-1, dtype=found.nearest.dtype),
            "distance": found.uncovered,
        }
