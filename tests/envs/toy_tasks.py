"""A task with everything the contract allows: groups of different spaces, masks, deaths, a passive group, dead NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.native import Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group


@tree.struct
class FadingState:
    left: Tensor = tree.axes("N")  # steps each agent has to live
    place: Tensor = tree.axes("N")


class Fading(Task[FadingState]):
    """Two walkers, a flyer and a passive rock; the first three die after 1 to 5 steps, paid their place until then."""

    def __init__(self, horizon: int | None = None) -> None:
        self.horizon = horizon
        self.agents = AgentSpec(
            (
                Group("walker", 0, 2, ObservationSpec.flat(3), ActionSpec.discrete(3)),
                Group("flyer", 2, 1, ObservationSpec.flat(2), ActionSpec.box(-1, 1, 2)),
                Group("rock", 3, 1, ObservationSpec.flat(1), None),
            ),
            ("walker_0", "walker_1", "flyer_0", "rock_0"),
            state_dim=1,
            info={"left": "last"},
        )
        self._graph = Graph(topology=Topology([[0, 1], [1, 0]], 4))

    def initial(self, generator: torch.Generator, n: int) -> FadingState:
        left = torch.randint(1, 6, (n, 4), generator=generator)
        left[:, 3] = 1_000
        return FadingState(left, torch.rand(n, 4, generator=generator) - 0.5)

    def advance(self, state: FadingState, action: Tensor, generator: torch.Generator):
        alive = state.left > 0
        noise = torch.rand(state.place.shape, generator=generator)
        place = state.place + 0.1 * noise * action[..., 0]
        after = FadingState((state.left - 1).clamp(min=0), place)
        return after, torch.where(alive, place, 0.0), alive & (after.left == 0)

    def view(self, state: FadingState) -> View:
        alive = state.left > 0
        obs = state.place.unsqueeze(-1) * torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 2, 0], [1, 0, 0]])
        mask = torch.ones(*alive.shape, 4, dtype=torch.bool)
        mask[..., 2] = state.place > 0
        obs = torch.where(alive.unsqueeze(-1), obs, torch.nan)
        return View(obs, alive, self._graph, state.place.sum(-1, keepdim=True), mask & alive.unsqueeze(-1))

    def info(self, state: FadingState) -> dict[str, Tensor]:
        return {"left": state.left}
