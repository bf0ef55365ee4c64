"""Small native tasks for tests of learning: unequal agents that die under masks, and a reward made of factors."""

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
class Lives:
    """How long each agent has to live, and what it sees."""

    left: Tensor = tree.axes("N")
    mood: Tensor = tree.axes("N")


class Mortals(Task[Lives]):
    """Walkers (3 choices, one of them forbidden by mood) and flyers (2 reals) that die after 1 to 6 steps.

    The observations of the dead are NaN, and nothing is allowed to them.

    Args:
        walkers: How many.
        flyers: How many.
    """

    horizon = 5

    def __init__(self, walkers: int = 2, flyers: int = 1) -> None:
        kinds = {"walker": (walkers, ActionSpec.discrete(3)), "flyer": (flyers, ActionSpec.box(-1, 1, 2))}
        groups, start = [], 0
        for name, (size, action) in kinds.items():
            if size:
                groups.append(Group(name, start, size, ObservationSpec.flat(2), action))
                start += size
        self.agents = AgentSpec(tuple(groups), tuple(f"agent_{i}" for i in range(start)))
        pairs = [(a, b) for a in range(start) for b in range(start) if a != b]
        self.links = Graph(topology=Topology(torch.tensor(pairs).T, start))

    def initial(self, generator: torch.Generator, n: int) -> Lives:
        shape = (n, self.agents.num_agents)
        return Lives(torch.randint(1, 7, shape, generator=generator), torch.randn(shape, generator=generator))

    def advance(self, state: Lives, action: Tensor, generator: torch.Generator) -> tuple[Lives, Tensor, Tensor]:
        alive = state.left > 0
        mood = 0.5 * state.mood + torch.randn(state.mood.shape, generator=generator)
        after = Lives((state.left - 1).clamp(min=0), mood)
        return after, torch.where(alive, action[..., 0].float() - state.mood, 0.0), alive & (after.left == 0)

    def view(self, state: Lives) -> View:
        alive = state.left > 0
        obs = torch.stack([state.mood, state.left.float()], -1)
        mask = torch.ones(*alive.shape, self.agents.logits_dim, dtype=torch.bool)
        mask[..., 1] = state.mood > 0
        obs = torch.where(alive.unsqueeze(-1), obs, torch.nan)
        return View(obs, alive, self.links, action_mask=mask & alive.unsqueeze(-1))


@tree.struct
class Marks:
    """What every agent chose last."""

    chosen: Tensor = tree.axes("N")


class Factory(Task[Marks]):
    """Three agents choose 0 or 1; the team is paid 4 (a0 + a1) by the first two and a2 by the last, 2 steps long.

    Every agent's raw reward is a third of the team's, so only the factors say whose work it was.
    """

    horizon = 2
    ends_early = False

    def __init__(self) -> None:
        spaces = ObservationSpec.flat(1), ActionSpec.discrete(2)
        self.agents = AgentSpec.single(3, *spaces, factor_scopes=((0, 1), (2,)))
        self.links = Graph(topology=Topology(torch.zeros(2, 0), 3))

    def initial(self, generator: torch.Generator, n: int) -> Marks:
        return Marks(torch.zeros(n, 3, dtype=torch.int64))

    def advance(self, state: Marks, action: Tensor, generator: torch.Generator) -> tuple[Marks, Tensor, Tensor]:
        after = Marks(action.squeeze(-1))
        team = self.factors(after).sum(-1, keepdim=True)
        return after, (team / 3).expand(-1, 3), torch.zeros(action.shape[:2], dtype=torch.bool)

    def view(self, state: Marks) -> View:
        alive = torch.ones_like(state.chosen, dtype=torch.bool)
        return View(torch.ones(*alive.shape, 1), alive, self.links)

    def factors(self, state: Marks) -> Tensor:
        return torch.stack([4.0 * state.chosen[:, :2].sum(-1), state.chosen[:, 2].float()], -1)
