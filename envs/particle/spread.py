"""Cooperative navigation: N agents spread over N landmarks; equal to ``mpe2.simple_spread_v3`` step for step.

The all-pairs geometry of a state is worked out once and kept with it: rewards, information, observations and the
contact forces of the following step all read the same two tensors.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

TIME_STEP = 0.1
KEPT_VELOCITY = 0.75  # one minus the damping of a step
THRUST = 5.0  # force of a full push, on a mass of one
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
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
        n = self.position.shape[1]
        seen, own = _pairs(n, self.position.device)
        points = torch.cat([self.landmark, self.position], 1)
        return (points.index_select(1, seen) - points.index_select(1, own)).view(-1, n, 2 * n - 1, 2)

    @cached_property
    def distance(self) -> Tensor:
        """``[B, N, 2N-1]`` lengths of the offsets."""
        square = self.offset * self.offset
        return (square[..., 0] + square[..., 1]).sqrt_()

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
        counts = {"num_agents": num_agents, "max_cycles": max_cycles}
        seen = {"num_agent_neighbors": num_agent_neighbors, "num_landmark_neighbors": num_landmark_neighbors}
        for name, value in (counts | {k: v for k, v in seen.items() if v is not None}).items():
            if value < 1:
                raise ValueError(f"{name}: must be at least 1, got {value}")
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
            ActionSpec.box(0, 1, 5) if continuous_actions else ActionSpec.discrete(5),
            info={"collisions": "sum", "covered": "last", "distance": "sum"},
        )
        self._graph = default_graph(num_agents)

    def initial(self, generator: torch.Generator, n: int) -> SpreadState:
        """Agents and landmarks uniform in the square, at rest."""
        rest = torch.zeros(n, self.num_agents, 2, device=generator.device)
        position, landmark = (torch.empty_like(rest).uniform_(-1, 1, generator=generator) for _ in range(2))
        return SpreadState(position, rest, landmark)

    def advance(
        self, state: SpreadState, action: Tensor, generator: torch.Generator
    ) -> tuple[SpreadState, Tensor, Tensor]:
        """One step of physics; nothing terminates."""
        push = self._push(action).sub_(_contact(state), alpha=CONTACT_FORCE * TIME_STEP)
        after = SpreadState(
            position=torch.add(state.position, state.velocity, alpha=TIME_STEP),
            velocity=push.add_(state.velocity, alpha=KEPT_VELOCITY),
            landmark=state.landmark,
        )
        shared = after.nearest.sum(-1, keepdim=True) * (self.local_ratio - 1)
        reward = torch.sub(shared, after.collisions, alpha=self.local_ratio)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def _push(self, action: Tensor) -> Tensor:
        """``[B, N, 2]`` change of velocity by the agents' own doing."""
        if self.agents.discrete:
            moves = _moves(action.device)
            return moves.index_select(0, action.reshape(-1)).view(*action.shape[:2], 2)
        pushes = action.clamp(0, 1)
        return (pushes[..., 2::2] - pushes[..., 1::2]).mul_(THRUST * TIME_STEP)

    def view(self, state: SpreadState) -> View:
        """Own velocity and position, offsets to landmarks and others, and the silence of the others."""
        position = state.position
        if self.num_agent_neighbors is None and self.num_landmark_neighbors is None:
            seen = (state.offset.flatten(2),)
        else:
            n = self.num_agents
            seen = (
                _closest(state.offset[:, :, :n], state.distance[..., :n], self.num_landmark_neighbors),
                _closest(state.offset[:, :, n:], state.distance[..., n:], self.num_agent_neighbors),
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


def _contact(state: SpreadState) -> Tensor:
    """``[B, N, 2]`` sum of unit vectors to the others, each times a soft penetration depth.

    The depth is ``k log(1 + exp((d_min - d) / k))`` with margin k: the overlap where there is one, else almost zero.
    """
    n = state.position.shape[1]
    distance = state.distance[..., n:].clamp(min=1e-12)
    depth = F.softplus(CONTACT_DISTANCE - distance, beta=1 / CONTACT_MARGIN).div_(distance)
    x, y = state.offset[:, :, n:].unbind(-1)
    return torch.stack([(x * depth).sum(-1), (y * depth).sum(-1)], -1)


def _closest(offset: Tensor, distance: Tensor, count: int | None) -> Tensor:
    """``[B, N, 2 count]``: the nearest of ``offset [B, N, M, 2]``, nearest first, padded with zeros; None takes all."""
    if count is None:
        return offset.flatten(2)
    found = min(count, distance.shape[-1])
    order = distance.topk(found, largest=False).indices
    picked = offset.gather(2, order.unsqueeze(-1).expand(-1, -1, -1, 2)).flatten(2)
    return F.pad(picked, (0, 2 * (count - found)))


@lru_cache(maxsize=64)
def _pairs(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of [landmarks, agents] seen by each agent, ``[N (2N-1)]``, and the row of that agent, as often."""
    rows = torch.arange(2 * n).expand(n, -1)
    seen = rows[rows != torch.arange(n, 2 * n).unsqueeze(1)]
    own = torch.arange(n, 2 * n).repeat_interleave(2 * n - 1)
    return seen.to(device), own.to(device)


@lru_cache(maxsize=8)
def _moves(device: torch.device) -> Tensor:
    """``[5, 2]`` changes of velocity by the choices none, left, right, down, up."""
    return torch.tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], device=device) * (THRUST * TIME_STEP)
