"""Tag: slow adversaries chase faster prey among obstacles; equal to ``mpe2.simple_tag_v3`` step for step.

The all-pairs geometry of a state is worked out once and kept with it, as in spread.
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
from envs.particle.physics import (
    CONTACT_FORCE,
    TIME_STEP,
    closest,
    contact,
    integrate,
    lengths,
    offsets,
    pairs,
    push,
    reaches,
)
from envs.particle.world import at_least, moves, scatter
from envs.render.scene import Scene
from envs.spaces import ObservationSpec
from envs.spec import AgentSpec, Group

ADVERSARY_RADIUS, GOOD_RADIUS, OBSTACLE_RADIUS = 0.075, 0.05, 0.2
ADVERSARY_THRUST, GOOD_THRUST = 3.0, 4.0
ADVERSARY_SPEED, GOOD_SPEED = 1.0, 1.3  # at most
CAPTURE = 10.0  # paid for a touch
OBSTACLE_BOUND = 0.9


@tree.struct
class TagState:
    """Where everything is; adversaries come before good agents.

    Attributes:
        position: ``[B, N, 2]`` of the agents; episodes begin in [-1, 1].
        velocity: ``[B, N, 2]`` of the agents, per unit of time.
        landmark: ``[B, M, 2]`` positions of the obstacles, which never move; in [-0.9, 0.9].
    """

    position: Tensor = tree.axes("N 2")
    velocity: Tensor = tree.axes("N 2")
    landmark: Tensor = tree.axes("M 2")

    @cached_property
    def offset(self) -> Tensor:
        """``[B, N, M+N-1, 2]`` from each agent to every obstacle, then to every other agent in order."""
        return offsets(self.position, self.landmark)

    @cached_property
    def distance(self) -> Tensor:
        """``[B, N, M+N-1]`` lengths of the offsets."""
        return lengths(self.offset)


class Tag(Task[TagState]):
    """``simple_tag_v3`` of mpe2 1.1 (Lowe et al. 2017, arXiv:1706.02275): predators and prey.

    At every step each adversary is paid 10 for every pair of an adversary and a good agent that touch, whoever they
    are; a good agent pays 10 for each adversary that touches it, and for leaving the square: along each axis, with
    x the distance from the centre, nothing below 0.9, then ``10 (x - 0.9)``, and from 1 on ``min(exp(2x - 2), 10)``.
    All bodies are solid; good agents are smaller, faster and stronger. Adversaries are team 0, good agents team 1.

    Deviations from mpe2: two bodies at exactly one point do not push each other (mpe2 divides by zero); the
    curriculum and the early end on success are left out.

    Args:
        num_good: Good agents, the prey.
        num_adversaries: Those who chase them.
        num_obstacles: Obstacles, at least 0.
        max_cycles: Steps after which an episode is truncated.
        continuous_actions: Five pushes in [0, 1] (none, left, right, down, up) instead of a choice among them.
        num_agent_neighbors: How many of the nearest other agents are seen, nearest first, padded with zeros; velocities
            of adversaries show as zeros then. None for all, in order, with the velocities of good agents alone.
        num_landmark_neighbors: The same for obstacles.

    Raises:
        ValueError: If an argument is too small.
    """

    ends_early = False

    def __init__(
        self,
        *,
        num_good: int = 1,
        num_adversaries: int = 3,
        num_obstacles: int = 2,
        max_cycles: int = 25,
        continuous_actions: bool = False,
        num_agent_neighbors: int | None = None,
        num_landmark_neighbors: int | None = None,
    ) -> None:
        at_least(1, num_good=num_good, num_adversaries=num_adversaries, max_cycles=max_cycles)
        at_least(0, num_obstacles=num_obstacles)
        at_least(1, num_agent_neighbors=num_agent_neighbors, num_landmark_neighbors=num_landmark_neighbors)
        self.num_good, self.num_adversaries, self.num_obstacles = num_good, num_adversaries, num_obstacles
        self.num_agent_neighbors, self.num_landmark_neighbors = num_agent_neighbors, num_landmark_neighbors
        self.horizon, n = max_cycles, num_good + num_adversaries
        kinds = (("adversary", 0, num_adversaries, num_good), ("agent", num_adversaries, num_good, num_good - 1))
        seen = {
            "landmarks": 2 * (num_obstacles if num_landmark_neighbors is None else num_landmark_neighbors),
            "others": 2 * (num_agent_neighbors or n - 1),
        }
        action, groups = moves(continuous_actions), []
        for name, start, size, prey in kinds:
            speeds = 2 * (num_agent_neighbors or prey)
            observed = ObservationSpec.named(velocity=2, position=2, **seen, velocities=speeds)
            groups.append(Group(name, start, size, observed, action))
        self.agents = AgentSpec(
            tuple(groups),
            tuple(f"{group.name}_{i}" for group in groups for i in range(group.size)),
            team=(0,) * num_adversaries + (1,) * num_good,
            info={"captures": "sum"},
        )
        self._graph = default_graph(n)

    def initial(self, generator: torch.Generator, n: int) -> TagState:
        """Agents uniform in the square, at rest; obstacles not quite as far out."""
        position = scatter(generator, n, self.agents.num_agents)
        landmark = scatter(generator, n, self.num_obstacles, OBSTACLE_BOUND)
        return TagState(position, torch.zeros_like(position), landmark)

    def advance(self, state: TagState, action: Tensor, generator: torch.Generator) -> tuple[TagState, Tensor, Tensor]:
        """One step of physics; nothing terminates."""
        a, device = self.num_adversaries, action.device
        kick = torch.cat([push(action[:, :a], ADVERSARY_THRUST), push(action[:, a:], GOOD_THRUST)], 1)
        kick.sub_(contact(state.offset, state.distance, self._reach(device)), alpha=CONTACT_FORCE * TIME_STEP)
        place = integrate(state.position, state.velocity, kick, _top_speed(a, self.num_good, device))
        after = TagState(*place, state.landmark)
        caught = self._touching(after).sum(1)
        captures = (CAPTURE * caught.sum(1, keepdim=True)).expand(-1, a)
        reward = torch.cat([captures, -CAPTURE * caught - _straying(after.position[:, a:])], 1)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: TagState) -> View:
        """Own velocity and position, offsets to obstacles and others, and the velocities of other good agents."""
        m, offset = self.num_obstacles, state.offset
        if self.num_agent_neighbors is None and self.num_landmark_neighbors is None:
            seen = (offset.flatten(2),)
        else:
            seen = (
                closest(offset[:, :, :m], state.distance[..., :m], self.num_landmark_neighbors),
                closest(offset[:, :, m:], state.distance[..., m:], self.num_agent_neighbors),
            )
        obs = torch.cat([state.velocity, state.position, *seen, self._velocities(state)], -1)
        return View(obs, torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device), self._graph)

    def scene(self, state: TagState) -> Scene:
        """Agents and obstacles."""
        return Scene(state.position, {"obstacle": state.landmark})

    def info(self, state: TagState) -> dict[str, Tensor]:
        """Pairs of an adversary and a good agent that touch."""
        return {"captures": self._touching(state).sum((1, 2))}

    def _reach(self, device: torch.device) -> Tensor:
        radii = (ADVERSARY_RADIUS,) * self.num_adversaries + (GOOD_RADIUS,) * self.num_good
        return reaches(radii, (OBSTACLE_RADIUS,) * self.num_obstacles, device)

    def _touching(self, state: TagState) -> Tensor:
        """``[B, adversaries, good]`` float: who touches whom; an adversary sees the good agents last."""
        between = state.distance[:, : self.num_adversaries, -self.num_good :]
        return (between < ADVERSARY_RADIUS + GOOD_RADIUS).to(between.dtype)

    def _velocities(self, state: TagState) -> Tensor:
        """``[B, N, 2 G]`` of the other good agents; with neighbours ``[B, N, 2 count]``, adversaries at rest."""
        b, n, _ = state.velocity.shape
        a, device = self.num_adversaries, state.velocity.device
        if self.num_agent_neighbors is None:
            shown = F.pad(state.velocity, (0, 0, 0, 1)).index_select(1, _good_seen(a, self.num_good, device))
            return shown.view(b, n, 2 * self.num_good)
        shown = F.pad(state.velocity[:, a:], (0, 0, a, 0)).index_select(1, pairs(n, 0, device)[0])
        near = state.distance[..., self.num_obstacles :]
        return closest(shown.view(b, n, n - 1, 2), near, self.num_agent_neighbors)


def _straying(position: Tensor) -> Tensor:
    """``[B, G]`` penalty for leaving the square, of ``position [B, G, 2]``."""
    x = position.abs()
    near = (10 * (x - 0.9)).clamp(min=0)
    return torch.where(x < 1, near, (2 * x - 2).exp().clamp(max=10)).sum(-1)


@lru_cache(maxsize=32)
def _top_speed(adversaries: int, good: int, device: torch.device) -> Tensor:
    """``[N, 1]``."""
    speeds = [ADVERSARY_SPEED] * adversaries + [GOOD_SPEED] * good
    return torch.tensor(speeds, device=device).unsqueeze(1)


@lru_cache(maxsize=32)
def _good_seen(adversaries: int, good: int, device: torch.device) -> Tensor:
    """``[N G]`` good agents whose velocity each agent sees, in order; N for none, which fills the rows of prey."""
    prey = torch.arange(adversaries, adversaries + good)
    others = prey.expand(good, -1)[~torch.eye(good, dtype=torch.bool)].view(good, good - 1)
    rows = torch.cat([prey.expand(adversaries, -1), F.pad(others, (0, 1), value=adversaries + good)])
    return rows.flatten().to(device)
