"""Cooperative navigation: N agents spread over N landmarks; equal to ``mpe2.simple_spread_v3`` step for step.

The all-pairs geometry of a state is worked out once and kept with it: rewards, information, observations and the
contact forces of the following step all read the same two tensors.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.particle.physics import CONTACT_FORCE, TIME_STEP, closest, contact, integrate, lengths, offsets, push
from envs.particle.world import at_least, moves, scatter
from envs.spaces import ObservationSpec
from envs.spec import AgentSpec

CONTACT_DISTANCE = 0.3  # two radii of 0.15
COVER_DISTANCE = 0.1


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
    def offset(self) -> Tensor:
        """``[B, N, 2N-1, 2]`` from each agent to every landmark, then to every other agent in order."""
        return offsets(self.position, self.landmark)

    @cached_property
    def distance(self) -> Tensor:
        """``[B, N, 2N-1]`` lengths of the offsets."""
        return lengths(self.offset)

    @cached_property
    def nearest(self) -> Tensor:
        """``[B, N]`` distance of each landmark to the nearest agent."""
        return self.distance[..., : self.position.shape[1]].amin(1)

    @cached_property
    def collisions(self) -> Tensor:
        """``[B, N]`` float: how many others each agent overlaps with."""
        return (self.distance[..., self.position.shape[1] :] < CONTACT_DISTANCE).sum(-1, dtype=self.position.dtype)


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
        n = self.num_agents
        pressed = contact(state.offset[:, :, n:], state.distance[..., n:], CONTACT_DISTANCE)
        kick = push(action).sub_(pressed, alpha=CONTACT_FORCE * TIME_STEP)
        after = SpreadState(*integrate(state.position, state.velocity, kick), state.landmark)
        shared = after.nearest.sum(-1, keepdim=True) * (self.local_ratio - 1)
        reward = torch.sub(shared, after.collisions, alpha=self.local_ratio)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: SpreadState) -> View:
        """Own velocity and position, offsets to landmarks and others, and the silence of the others."""
        position = state.position
        if self.num_agent_neighbors is None and self.num_landmark_neighbors is None:
            seen = (state.offset.flatten(2),)
        else:
            n = self.num_agents
            seen = (
                closest(state.offset[:, :, :n], state.distance[..., :n], self.num_landmark_neighbors),
                closest(state.offset[:, :, n:], state.distance[..., n:], self.num_agent_neighbors),
            )
        silence = position.new_zeros(1).expand(*position.shape[:2], self._silence)
        obs = torch.cat([state.velocity, position, *seen, silence], -1)
        return View(obs, torch.ones(position.shape[:2], dtype=torch.bool, device=position.device), self._graph)

    def info(self, state: SpreadState) -> dict[str, Tensor]:
        """Ordered pairs of overlapping agents, landmarks with an agent within 0.1, and the sum of ``nearest``."""
        return {
            "collisions": state.collisions.sum(-1),
            "covered": (state.nearest < COVER_DISTANCE).sum(-1, dtype=state.nearest.dtype),
            "distance": state.nearest.sum(-1),
        }
