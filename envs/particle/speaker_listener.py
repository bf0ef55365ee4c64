"""Speaker and listener: one knows the goal and cannot move, the other moves and is told; equal to its mpe2 form."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.particle.physics import integrate, lengths, offsets, push
from envs.particle.world import at_least, chosen, draw, moves, one_hot, scatter, words
from envs.render.scene import Scene
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group

LANDMARKS = 3  # as many words and colours
SPEAKER_DRAWN = -1.2  # where on both axes pictures show the speaker, who has no place


@tree.struct
class SpeakerListenerState:
    """Where the listener is, and what it was told.

    Attributes:
        position: ``[B, 1, 2]`` of the listener; episodes begin in [-1, 1].
        velocity: ``[B, 1, 2]`` of the listener, per unit of time.
        landmark: ``[B, 3, 2]`` positions of the landmarks, which never move.
        goal: ``[B]`` int64 landmark to go to.
        word: ``[B, 3]`` last said by the speaker; zeros before the first step.
    """

    position: Tensor = tree.axes("1 2")
    velocity: Tensor = tree.axes("1 2")
    landmark: Tensor = tree.axes("3 2")
    goal: Tensor = tree.axes("")
    word: Tensor = tree.axes("3")

    @cached_property
    def offset(self) -> Tensor:
        """``[B, 3, 2]`` from the listener to each landmark."""
        return offsets(self.position, self.landmark).squeeze(1)

    @cached_property
    def distance(self) -> Tensor:
        """``[B, 3]`` lengths of the offsets."""
        return lengths(self.offset)

    @cached_property
    def error(self) -> Tensor:
        """``[B]`` how far the listener is from the goal."""
        return self.distance.gather(1, self.goal.unsqueeze(1)).squeeze(1)


class SpeakerListener(Task[SpeakerListenerState]):
    """``simple_speaker_listener_v4`` of mpe2 1.1 (Lowe et al. 2017, arXiv:1706.02275): cooperation through words.

    The speaker sees the colour of the goal alone and says one of three words, the listener sees everything but the
    goal and hears a word one step after it was said. Both are paid minus the squared distance from the listener to
    the goal. The speaker is agent 0; with continuous actions its words are the first three components.

    Over 25 steps no policy has a higher expected team sum than about -14.6 discrete and -11.43 continuous: what a
    listener attains that knows the goal from the start (by beam search, and by bounded least squares, which is exact).

    Deviation from mpe2: the place of the speaker, which nothing depends on, is not drawn.

    Args:
        max_cycles: Steps after which an episode is truncated.
        continuous_actions: Three words and five pushes (none, left, right, down, up) in [0, 1] instead of a choice.

    Raises:
        ValueError: If there is no step.
    """

    ends_early = False

    def __init__(self, *, max_cycles: int = 25, continuous_actions: bool = False) -> None:
        at_least(1, max_cycles=max_cycles)
        self.horizon = max_cycles
        speech = ActionSpec.box(0, 1, LANDMARKS) if continuous_actions else ActionSpec.discrete(LANDMARKS)
        heard = ObservationSpec.named(velocity=2, landmarks=2 * LANDMARKS, word=LANDMARKS)
        self.agents = AgentSpec(
            (
                Group("speaker", 0, 1, ObservationSpec.named(goal=LANDMARKS), speech),
                Group("listener", 1, 1, heard, moves(continuous_actions)),
            ),
            ("speaker_0", "listener_0"),
            info={"success": "last", "distance": "last"},
        )
        self._graph = default_graph(2)

    def initial(self, generator: torch.Generator, n: int) -> SpeakerListenerState:
        """Listener and landmarks uniform in the square, at rest; any goal; nothing was said."""
        position, landmark = scatter(generator, n, 1), scatter(generator, n, LANDMARKS)
        silence = torch.zeros(n, LANDMARKS, device=generator.device)
        goal = draw(generator, LANDMARKS, n)
        return SpeakerListenerState(position, torch.zeros_like(position), landmark, goal, silence)

    def advance(
        self, state: SpeakerListenerState, action: Tensor, generator: torch.Generator
    ) -> tuple[SpeakerListenerState, Tensor, Tensor]:
        """The listener moves, the speaker is heard; nothing terminates."""
        place = integrate(state.position, state.velocity, push(action[:, 1:]))
        word = words(action[:, :1, :LANDMARKS], LANDMARKS).squeeze(1)
        after = SpeakerListenerState(*place, state.landmark, state.goal, word)
        reward = after.error.square().neg().unsqueeze(1).repeat(1, 2)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: SpeakerListenerState) -> View:
        """The speaker sees the colour of the goal, the listener velocity, offsets to landmarks, and the last word."""
        colour = one_hot(state.goal, LANDMARKS) * 0.5 + 0.15
        heard = torch.cat([state.velocity.squeeze(1), state.offset.flatten(1), state.word], 1)
        obs = torch.stack([F.pad(colour, (0, heard.shape[1] - LANDMARKS)), heard], 1)
        return View(obs, torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device), self._graph)

    def scene(self, state: SpeakerListenerState) -> Scene:
        """The listener, landmarks and the goal; the speaker has no place and is drawn in a corner."""
        places = torch.cat([torch.full_like(state.position, SPEAKER_DRAWN), state.position], 1)
        return Scene(places, {"landmark": state.landmark, "goal": chosen(state.landmark, state.goal)})

    def info(self, state: SpeakerListenerState) -> dict[str, Tensor]:
        """Whether the goal is the landmark nearest to the listener, and how far it is."""
        return {"success": (state.error <= state.distance.amin(1)).float(), "distance": state.error}
