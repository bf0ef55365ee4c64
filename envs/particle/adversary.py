"""Adversary: a team guards its goal by deception; equal to ``mpe2.simple_adversary_v3`` step for step."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.particle.physics import closest, integrate, lengths, offsets, push
from envs.particle.world import at_least, chosen, draw, moves, scatter
from envs.render.scene import Scene
from envs.spaces import ObservationSpec
from envs.spec import AgentSpec, Group


@tree.struct
class AdversaryState:
    """Where everything is; the adversary comes first, and there are M = N - 1 landmarks.

    Attributes:
        position: ``[B, N, 2]`` of the agents; episodes begin in [-1, 1].
        velocity: ``[B, N, 2]`` of the agents, per unit of time.
        landmark: ``[B, M, 2]`` positions of the landmarks, which never move.
        goal: ``[B]`` int64 landmark that counts.
    """

    position: Tensor = tree.axes("N 2")
    velocity: Tensor = tree.axes("N 2")
    landmark: Tensor = tree.axes("M 2")
    goal: Tensor = tree.axes("")

    @cached_property
    def offset(self) -> Tensor:
        """``[B, N, M+N-1, 2]`` from each agent to every landmark, then to every other agent in order."""
        return offsets(self.position, self.landmark)

    @cached_property
    def to_goal(self) -> Tensor:
        """``[B, N, 2]`` from each agent to the goal."""
        chosen = self.goal.view(-1, 1, 1, 1).expand(-1, self.position.shape[1], 1, 2)
        return self.offset.gather(2, chosen).squeeze(2)

    @cached_property
    def goal_distance(self) -> Tensor:
        """``[B, 2]`` to the goal: of the adversary, and of the nearest good agent."""
        distance = lengths(self.to_goal)
        return torch.stack([distance[:, 0], distance[:, 1:].amin(1)], 1)


class Adversary(Task[AdversaryState]):
    """``simple_adversary_v3`` of mpe2 1.1 (Lowe et al. 2017, arXiv:1706.02275): physical deception.

    Good agents know which landmark is the goal, the adversary has to guess it from what they do. The adversary is
    paid minus its distance to the goal, every good agent that distance minus the distance of the nearest good agent.
    Bodies pass through each other. The adversary is agent 0 and a team of its own.

    Args:
        num_good: Good agents, and landmarks (``N`` in mpe2).
        max_cycles: Steps after which an episode is truncated.
        continuous_actions: Five pushes in [0, 1] (none, left, right, down, up) instead of a choice among them.
        num_agent_neighbors: How many of the nearest other agents are seen, nearest first, padded with zeros;
            None for all, in order.
        num_landmark_neighbors: The same for landmarks; the goal is always seen by those who know it.

    Raises:
        ValueError: If an argument is below 1.
    """

    ends_early = False

    def __init__(
        self,
        *,
        num_good: int = 2,
        max_cycles: int = 25,
        continuous_actions: bool = False,
        num_agent_neighbors: int | None = None,
        num_landmark_neighbors: int | None = None,
    ) -> None:
        at_least(1, num_good=num_good, max_cycles=max_cycles)
        at_least(1, num_agent_neighbors=num_agent_neighbors, num_landmark_neighbors=num_landmark_neighbors)
        self.num_good, self.horizon = num_good, max_cycles
        self.num_agent_neighbors, self.num_landmark_neighbors = num_agent_neighbors, num_landmark_neighbors
        seen = {"landmarks": 2 * (num_landmark_neighbors or num_good), "others": 2 * (num_agent_neighbors or num_good)}
        action = moves(continuous_actions)
        self.agents = AgentSpec(
            (
                Group("adversary", 0, 1, ObservationSpec.named(**seen), action),
                Group("agent", 1, num_good, ObservationSpec.named(goal=2, **seen), action),
            ),
            ("adversary_0", *(f"agent_{i}" for i in range(num_good))),
            team=(0,) + (1,) * num_good,
            info={"adversary_distance": "mean", "good_distance": "mean"},
        )
        self._graph = default_graph(num_good + 1)

    def initial(self, generator: torch.Generator, n: int) -> AdversaryState:
        """Agents and landmarks uniform in the square, at rest; any goal."""
        position, landmark = scatter(generator, n, self.num_good + 1), scatter(generator, n, self.num_good)
        return AdversaryState(position, torch.zeros_like(position), landmark, draw(generator, self.num_good, n))

    def advance(
        self, state: AdversaryState, action: Tensor, generator: torch.Generator
    ) -> tuple[AdversaryState, Tensor, Tensor]:
        """Everyone moves freely; nothing terminates."""
        place = integrate(state.position, state.velocity, push(action))
        after = AdversaryState(*place, state.landmark, state.goal)
        adversary, good = after.goal_distance.unbind(1)
        reward = torch.cat([-adversary.unsqueeze(1), (adversary - good).unsqueeze(1).expand(-1, self.num_good)], 1)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: AdversaryState) -> View:
        """Offsets to landmarks and others; good agents see the offset to the goal before them."""
        m, offset = self.num_good, state.offset
        if self.num_agent_neighbors is None and self.num_landmark_neighbors is None:
            seen = offset.flatten(2)
        else:
            distance = lengths(offset)
            landmarks = closest(offset[:, :, :m], distance[..., :m], self.num_landmark_neighbors)
            seen = torch.cat([landmarks, closest(offset[:, :, m:], distance[..., m:], self.num_agent_neighbors)], -1)
        knowing = torch.cat([state.to_goal[:, 1:], seen[:, 1:]], -1)
        obs = torch.cat([F.pad(seen[:, :1], (0, 2)), knowing], 1)
        return View(obs, torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device), self._graph)

    def scene(self, state: AdversaryState) -> Scene:
        """Agents and landmarks, of which one is the goal."""
        return Scene(state.position, {"landmark": state.landmark, "goal": chosen(state.landmark, state.goal)})

    def info(self, state: AdversaryState) -> dict[str, Tensor]:
        """Distances to the goal, of the adversary and of the nearest good agent."""
        adversary, good = state.goal_distance.unbind(1)
        return {"adversary_distance": adversary, "good_distance": good}
