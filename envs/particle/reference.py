"""Reference: two agents tell each other where to go; equal to ``mpe2.simple_reference_v3`` step for step."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.particle.physics import integrate, lengths, offsets, push
from envs.particle.world import at_least, chosen, draw, moves, one_hot, scatter, words
from envs.render.scene import Scene
from envs.spaces import ObservationSpec
from envs.spec import AgentSpec

LANDMARKS = 3
VOCABULARY = 10


@tree.struct
class ReferenceState:
    """Where both are, what each knows and last said.

    Attributes:
        position: ``[B, 2, 2]`` of the agents; episodes begin in [-1, 1].
        velocity: ``[B, 2, 2]`` of the agents, per unit of time.
        landmark: ``[B, 3, 2]`` positions of the landmarks, which never move.
        goal: ``[B, 2]`` int64 landmark that each agent knows, and the *other* has to go to.
        word: ``[B, 2, 10]`` last said by each agent; zeros before the first step.
    """

    position: Tensor = tree.axes("2 2")
    velocity: Tensor = tree.axes("2 2")
    landmark: Tensor = tree.axes("3 2")
    goal: Tensor = tree.axes("2")
    word: Tensor = tree.axes("2 10")

    @cached_property
    def offset(self) -> Tensor:
        """``[B, 2, 3, 2]`` from each agent to every landmark."""
        return offsets(self.position, self.landmark)[:, :, :LANDMARKS]

    @cached_property
    def distance(self) -> Tensor:
        """``[B, 2, 3]`` lengths of the offsets."""
        return lengths(self.offset)

    @cached_property
    def error(self) -> Tensor:
        """``[B, 2]`` how far each agent is from the landmark that the other knows."""
        return self.distance.gather(2, self.goal.flip(1).unsqueeze(2)).squeeze(2)


class Reference(Task[ReferenceState]):
    """``simple_reference_v3`` of mpe2 1.1 (Lowe et al. 2017, arXiv:1706.02275): two speaking listeners at once.

    Each agent sees the colour of the landmark the other has to reach, moves and says one of ten words, which is heard
    one step later. Agent i errs by the distance e_i of the other to that landmark, and is paid
    ``-local_ratio e_i - (1 - local_ratio) (e_0 + e_1) / 2``.

    A choice c means move ``c % 5`` (none, left, right, down, up) and word ``c // 5``, as in mpe2.

    Args:
        local_ratio: Weight of the own error, in [0, 1]; raising it shares less of the reward.
        max_cycles: Steps after which an episode is truncated.
        continuous_actions: Five pushes and ten words in [0, 1] instead of one of 50 choices.

    Raises:
        ValueError: If an argument is out of range.
    """

    ends_early = False

    def __init__(self, *, local_ratio: float = 0.5, max_cycles: int = 25, continuous_actions: bool = False) -> None:
        at_least(1, max_cycles=max_cycles)
        if not 0 <= local_ratio <= 1:
            raise ValueError(f"local_ratio: must be in [0, 1], got {local_ratio}")
        self.local_ratio, self.horizon = local_ratio, max_cycles
        self.agents = AgentSpec.single(
            2,
            ObservationSpec.named(velocity=2, landmarks=2 * LANDMARKS, goal=LANDMARKS, word=VOCABULARY),
            moves(continuous_actions, VOCABULARY),
            info={"success": "last", "distance": "last"},
        )
        self._graph = default_graph(2)

    def initial(self, generator: torch.Generator, n: int) -> ReferenceState:
        """Agents and landmarks uniform in the square, at rest; any two goals; nothing was said."""
        position, landmark = scatter(generator, n, 2), scatter(generator, n, LANDMARKS)
        silence = torch.zeros(n, 2, VOCABULARY, device=generator.device)
        goal = draw(generator, LANDMARKS, n, 2)
        return ReferenceState(position, torch.zeros_like(position), landmark, goal, silence)

    def advance(
        self, state: ReferenceState, action: Tensor, generator: torch.Generator
    ) -> tuple[ReferenceState, Tensor, Tensor]:
        """Both move, both are heard; nothing terminates."""
        if self.agents.discrete:
            move, word = action % 5, torch.div(action, 5, rounding_mode="floor")
        else:
            move, word = action[..., :5], action[..., 5:]
        place = integrate(state.position, state.velocity, push(move))
        after = ReferenceState(*place, state.landmark, state.goal, words(word, VOCABULARY))
        own = after.error.flip(1).neg()
        reward = torch.lerp(own.mean(1, keepdim=True), own, self.local_ratio)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: ReferenceState) -> View:
        """Own velocity, offsets to landmarks, the colour of the other's goal, and the last word of the other."""
        colour = one_hot(state.goal, LANDMARKS) * 0.5 + 0.25
        obs = torch.cat([state.velocity, state.offset.flatten(2), colour, state.word.flip(1)], -1)
        return View(obs, torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device), self._graph)

    def scene(self, state: ReferenceState) -> Scene:
        """Agents and landmarks, of which one or two are goals."""
        return Scene(state.position, {"landmark": state.landmark, "goal": chosen(state.landmark, state.goal)})

    def info(self, state: ReferenceState) -> dict[str, Tensor]:
        """Whether for both agents the goal is the nearest landmark, and the mean distance to the goals."""
        nearest = state.error <= state.distance.amin(2)
        return {"success": nearest.all(1).float(), "distance": state.error.mean(1)}
