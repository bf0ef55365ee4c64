"""Predator-prey with miscapture punishment: it takes two to catch a prey, and trying alone costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.names import unknown
from coordination.proximity import within
from envs.base import View
from envs.grid.moves import take_turns
from envs.links import default_graph
from envs.native import Task
from envs.render.scene import Scene, cells
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

SIGHT = 2  # predators see five by five cells; also the width of the border around the field
WINDOW = (2 * SIGHT + 1) ** 2
REWARD = 10.0  # for each prey caught
NEEDED = 2  # predators to catch a prey
TRIES = 5  # a fleeing prey thinks of this many random steps before it stays
EMPTY, PREDATOR, PREY, WALL = range(4)  # what a cell of the board holds
AROUND = ((1, 0), (0, -1), (-1, 0), (0, 1))
STAY, CATCH = 4, 5  # choices in either setting


@dataclass(frozen=True)
class Rules:
    """What the two published settings do not share.

    Attributes:
        moves: Rows and columns that each choice moves.
        catches: Whether prey is caught by an action of its own, which takes those who caught it out of the game, and
            who moves first is random; else by standing beside it.
        time_cost: Reward of every step.
        punishment: For each prey that a single predator tried to catch.
    """

    moves: tuple[tuple[int, int], ...]
    catches: bool
    time_cost: float
    punishment: float


RULES = {
    "dicg": Rules((*AROUND, (0, 0)), catches=False, time_cost=-0.1, punishment=-1.0),
    "wqmix": Rules(((0, 1), (1, 0), (0, -1), (-1, 0), (0, 0), (0, 0)), catches=True, time_cost=0.0, punishment=-2.0),
}


@tree.struct
class PredatorPreyState:
    """Where everyone is, as a cell of the board with its border; 0, a corner of the border, for who is out of the game.

    Attributes:
        predator: ``[B, N]`` int64.
        prey: ``[B, P]`` int64.
        clock: ``[B]`` int64 steps so far.
        captured: ``[B]`` prey caught in the last step.
        missed: ``[B]`` prey that a single predator tried to catch in the last step.
    """

    predator: Tensor = tree.axes("N")
    prey: Tensor = tree.axes("P")
    clock: Tensor = tree.axes("")
    captured: Tensor = tree.axes("")
    missed: Tensor = tree.axes("")


class PredatorPrey(Task[PredatorPreyState]):
    """Predators hunt prey on a square field; a prey is caught by two of them at once, and alone they are punished.

    Every predator is paid ``10 captured + punishment missed + time cost``, the team's reward; an episode ends when
    all prey is caught. Nobody shares a cell, and all move one after another, first predators, then prey.

    ======================  ===========================================  ==========================================
    setting                 ``dicg``                                     ``wqmix``
    ======================  ===========================================  ==========================================
    source                  Li et al. 2021, arXiv:2006.11438             Rashid et al. 2020, arXiv:2006.10800
    choices                 down, left, up, right, stay                  right, down, left, up, stay, catch
    order of moves          by number                                    random
    caught by               two or more predators next to it             two or more next to it that chose catch
    missed, if              one predator is next to it                   one next to it chose catch
    who caught it           goes on                                      is taken off the board, and stays in the team
    prey                    steps where no predator is next to it        steps to any free cell next to it
    punishment              0, -1 (here), -1.25, -1.5                    -2
    time cost               -0.1 a step                                  none
    observation             own place, prey and predators in sight,      prey and predators in sight; nothing once
                            time                                         off the board
    choices barred          none                                         walls; catch without prey beside
    start                   no prey next to a predator                   anywhere
    episode ends early      all prey caught                              also when no predator is left
    return at most          10 P - 0.1                                   10 min(P, N / 2)
    ======================  ===========================================  ==========================================

    A fleeing prey of ``dicg`` tries five random steps (probability 0.175 each, 0.3 to stay) and takes the first that
    brings it next to no predator, if that cell is free. In ``wqmix`` a prey whose turn comes later is out of reach of
    predators who caught another before. A predator off the board no longer acts and has no links, but is paid to the
    end like everyone else: catching early must not cost it what the team earns later.

    Sources: the programs published with the papers (predator-prey of ma-gym as used in DICG; ``stag_hunt`` of WQMIX
    with ``pred_prey_punish``). Deviations: own coordinates are divided by the size less one both ways; observations
    are windows one after the other, without the hares that WQMIX does not use; the time limit truncates.

    Args:
        setting: ``dicg`` or ``wqmix``.
        num_agents: Predators N, at least 2.
        num_prey: Prey P, at least 1.
        size: Rows and columns of the field.
        punishment: For each miss, at most 0; None for that of the setting. Lowering it makes hunting alone dearer.
        max_steps: Where an episode is truncated.
        links: ``complete``, or ``window``: those who see each other hear each other.

    Raises:
        ValueError: If there is no such setting or the numbers do not fit each other.
    """

    def __init__(
        self,
        *,
        setting: str = "dicg",
        num_agents: int = 8,
        num_prey: int = 8,
        size: int = 10,
        punishment: float | None = None,
        max_steps: int = 200,
        links: Literal["complete", "window"] = "complete",
    ) -> None:
        if setting not in RULES:
            raise ValueError(unknown("setting", setting, RULES))
        if links not in ("complete", "window"):
            raise ValueError(unknown("links", links, ("complete", "window")))
        for name, value, least in (("num_agents", num_agents, NEEDED), ("num_prey", num_prey, 1), ("size", size, 2)):
            if value < least:
                raise ValueError(f"{name}: must be at least {least}, got {value}")
        self.rules = RULES[setting]
        taken = num_agents if self.rules.catches else num_agents * (1 + len(AROUND))
        if size * size < taken + num_prey:
            raise ValueError(f"size: too small for {num_agents} predators and {num_prey} prey apart, got {size}")
        self.punishment = self.rules.punishment if punishment is None else punishment
        if self.punishment > 0:
            raise ValueError(f"punishment: must not be positive, got {punishment}")
        self.num_agents, self.num_prey, self.size, self.links = num_agents, num_prey, size, links
        self.horizon = self.max_steps = max_steps
        self.stride = size + 2 * SIGHT
        parts = {"prey": WINDOW, "predators": WINDOW}
        seen = ObservationSpec.named(**(parts if self.rules.catches else {"position": 2, "time": 1} | parts))
        self.agents = AgentSpec.single(
            num_agents,
            seen,
            ActionSpec.discrete(len(self.rules.moves)),
            "predator",
            state_dim=2 * size * size,
            info={"captured": "sum", "missed": "sum"},
        )
        self._graph = default_graph(num_agents)

    def initial(self, generator: torch.Generator, n: int) -> PredatorPreyState:
        """Everyone in a cell of its own, all equally likely; in ``dicg`` no prey starts next to a predator."""
        device = generator.device
        board = _bare(self.size, device).repeat(n, 1)
        priority = torch.rand(board.shape, generator=generator, device=device).masked_fill_(board == WALL, -1.0)
        predator = priority.topk(self.num_agents, dim=1).indices
        priority.scatter_(1, predator, -1.0)
        if not self.rules.catches:
            near = predator.unsqueeze(-1) + _steps(AROUND, self.stride, device)
            priority.scatter_(1, near.flatten(1), -1.0)
        nothing = torch.zeros(n, device=device)
        prey = priority.topk(self.num_prey, dim=1).indices
        return PredatorPreyState(predator, prey, torch.zeros(n, dtype=torch.int64, device=device), nothing, nothing)

    def advance(
        self, state: PredatorPreyState, action: Tensor, generator: torch.Generator
    ) -> tuple[PredatorPreyState, Tensor, Tensor]:
        """Predators move, prey is caught or moves; all terminate when the hunt is over."""
        choice, hunting = action.squeeze(-1), state.predator > 0
        step = _steps(self.rules.moves, self.stride, action.device).index_select(0, choice.reshape(-1))
        target = torch.where(hunting, state.predator + step.view_as(choice), 0)
        there = self._board(state).gather(1, target)
        tries = (target != state.predator) & (there <= PREDATOR)
        rank = _shuffled(choice.shape, generator) if self.rules.catches else None
        predator = torch.where(take_turns(state.predator, target, tries, rank), target, state.predator)
        caught = self._caught_by_action if self.rules.catches else self._caught_by_presence
        predator, prey, captured, missed = caught(predator, state.prey, choice, generator)
        after = PredatorPreyState(predator, prey, state.clock + 1, captured, missed)
        reward = REWARD * captured + self.punishment * missed + self.rules.time_cost
        over = (prey == 0).all(1) | (predator == 0).all(1)
        return after, reward.unsqueeze(-1).repeat(1, self.num_agents), over.unsqueeze(-1).repeat(1, self.num_agents)

    def _caught_by_presence(
        self, predator: Tensor, prey: Tensor, choice: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The prey of ``dicg``: who is next to it does not depend on its turn, only whether its way is free."""
        device = prey.device
        near = (predator.unsqueeze(-1) + _steps(AROUND, self.stride, device)).flatten(1)
        ones = torch.ones((), device=device).expand_as(near)
        beside = torch.zeros(len(prey), self.stride**2, device=device).scatter_add_(1, near, ones)
        ahead = (prey.unsqueeze(-1) + _steps((*AROUND, (0, 0)), self.stride, device)).clamp_(min=0)
        hunters = beside.gather(1, ahead.flatten(1)).view(ahead.shape)
        free = prey > 0
        captured = free & (hunters[..., STAY] >= NEEDED)
        missed = free & (hunters[..., STAY] == 1)
        wanted = ahead.gather(-1, _fleeing(hunters == 0, generator).unsqueeze(-1)).squeeze(-1)
        board = self._board_of(predator, torch.zeros_like(prey))
        tries = free & (wanted != prey) & (board.gather(1, wanted) == EMPTY)
        nowhere = torch.arange(-1, -1 - self.num_prey, -1, device=device)  # captured prey leaves the field in its turn
        target = torch.where(captured, nowhere, wanted)
        moved = torch.where(take_turns(prey, target, tries | captured), target, prey)
        return predator, moved.clamp(min=0), captured.sum(1).float(), missed.sum(1).float()

    def _caught_by_action(
        self, predator: Tensor, prey: Tensor, choice: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The prey of ``wqmix``: a turn of one prey decides who is left and where is room for the next.

        The loop runs over turns, in each of which one prey of every copy moves.
        """
        around = _steps(AROUND, self.stride, prey.device)
        taken = self._board_of(predator, prey) != EMPTY
        catches = (choice == CATCH) & (predator > 0)
        catching = torch.zeros_like(taken).scatter_(1, torch.where(catches, predator, 0), True)
        turns = _shuffled(prey.shape, generator)
        wish = torch.rand(*prey.shape, len(AROUND), generator=generator, device=prey.device)
        captured = missed = torch.zeros(len(prey), device=prey.device)
        for turn in range(self.num_prey):
            mine = turns[:, turn : turn + 1]
            cell = prey.gather(1, mine)
            ahead = torch.where(cell > 0, cell + around, 0)
            hunters = catching.gather(1, ahead) & (cell > 0)
            count = hunters.sum(1, keepdim=True)
            caught = count >= NEEDED
            room = ~taken.gather(1, ahead) & ~caught
            best, way = torch.where(room, wish[:, turn], -1.0).max(1, keepdim=True)
            goal = torch.where(caught, 0, torch.where(best >= 0, ahead.gather(1, way), cell))
            gone = torch.where(hunters & caught, ahead, 0)
            catching.scatter_(1, gone, False)
            taken.scatter_(1, torch.cat([gone, cell], 1), False).scatter_(1, goal, True)
            prey = prey.scatter(1, mine, goal)
            captured, missed = captured + caught.squeeze(1), missed + (count == 1).squeeze(1)
        spent = catches & ~catching.gather(1, predator)
        return predator.masked_fill(spent, 0), prey, captured, missed

    def view(self, state: PredatorPreyState) -> View:
        """What is in sight of each predator; the state is the whole field, prey first."""
        board, hunting = self._board(state), state.predator > 0
        window = state.predator.unsqueeze(-1) + _steps(_square(), self.stride, board.device)
        window = board.gather(1, window.clamp_(min=0).flatten(1)).view(*window.shape)
        if self.rules.catches:
            window = window.masked_fill_(~hunting.unsqueeze(-1), EMPTY)
        place = torch.stack([state.predator // self.stride, state.predator % self.stride], -1).float() - SIGHT
        seen = [(window == PREY).float(), (window == PREDATOR).float()]
        if not self.rules.catches:
            time = (state.clock / self.max_steps).view(-1, 1, 1).expand(-1, self.num_agents, 1)
            seen = [place / (self.size - 1), time, *seen]
        obs = torch.cat(seen, -1)
        field = board.view(-1, self.stride, self.stride)[:, SIGHT:-SIGHT, SIGHT:-SIGHT].flatten(1)
        everything = torch.cat([field == PREY, field == PREDATOR], 1).float()
        mask = self._mask(state, board) if self.rules.catches else None
        acts = hunting if self.rules.catches else None
        return View(obs, torch.ones_like(hunting), self._links(place, hunting), everything, mask, acts)

    def _mask(self, state: PredatorPreyState, board: Tensor) -> Tensor:
        """``[B, N, 6]`` bool: moves that stay on the field, catch beside prey; off the board nothing but stay."""
        hunting = (state.predator > 0).unsqueeze(-1)
        ahead = torch.where(
            hunting, state.predator.unsqueeze(-1) + _steps(self.rules.moves, self.stride, board.device), 0
        )
        there = board.gather(1, ahead.flatten(1)).view(ahead.shape)
        mask = (there != WALL) & hunting
        mask[..., STAY] = True
        mask[..., CATCH] = (there[..., :STAY] == PREY).any(-1)
        return mask

    def _links(self, place: Tensor, hunting: Tensor) -> Graph:
        if self.links == "window":  # of two cells less than three apart both ways, none is farther than this
            reach, capacity = SIGHT * sqrt(2), min(self.num_agents, WINDOW) - 1
            return within(place, reach, capacity, hunting)[0]
        topology = self._graph.topology
        if not self.rules.catches or topology is None:
            return self._graph
        sender, receiver = topology.edges_on(hunting.device)
        return Graph(topology=topology, live=hunting[:, sender] & hunting[:, receiver])

    def scene(self, state: PredatorPreyState) -> Scene:
        """Predators and prey on the board."""
        places = (
            cells(x // self.stride - SIGHT, x % self.stride - SIGHT, self.size, x > 0)
            for x in (state.predator, state.prey)
        )
        predators, prey = places
        return Scene(predators, {"prey": prey}, (self.size, self.size))

    def info(self, state: PredatorPreyState) -> dict[str, Tensor]:
        """Prey caught, and prey that a single predator tried to catch."""
        return {"captured": state.captured, "missed": state.missed}

    def _board(self, state: PredatorPreyState) -> Tensor:
        return self._board_of(state.predator, state.prey)

    def _board_of(self, predator: Tensor, prey: Tensor) -> Tensor:
        """``[B, cells]`` uint8: what each cell holds, border included."""
        board = _bare(self.size, prey.device).repeat(len(prey), 1)
        board.scatter_(1, predator, PREDATOR).scatter_(1, prey, PREY)
        board[:, 0] = WALL
        return board


def _fleeing(safe: Tensor, generator: torch.Generator) -> Tensor:
    """``[B, P]`` steps of prey: the first safe one of five random tries, else stay, from ``safe [B, P, 5]`` bool.

    A try is safe with probability s, the sum over safe steps; one in five is with ``1 - (1 - s)^5``, and it is step u
    in proportion to the probability of u.
    """
    chance = torch.where(safe, _chances(safe.device), 0.0)
    total = chance.sum(-1, keepdim=True)
    found = (1 - (1 - total) ** TRIES) / total.clamp(min=1e-6)
    drawn = torch.rand(*safe.shape[:2], 1, generator=generator, device=safe.device)
    return (drawn >= chance.cumsum(-1) * found).sum(-1).clamp_(max=STAY)


def _shuffled(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """``[B, M]`` random orders of 0 to M - 1."""
    return torch.rand(shape, generator=generator, device=generator.device).argsort(1)


def _square() -> tuple[tuple[int, int], ...]:
    """Rows and columns of the cells in sight, in reading order."""
    reach = range(-SIGHT, SIGHT + 1)
    return tuple((row, column) for row in reach for column in reach)


@lru_cache(maxsize=64)
def _steps(moves: tuple[tuple[int, int], ...], stride: int, device: torch.device) -> Tensor:
    """``[K]`` changes of cell by rows and columns."""
    return torch.tensor([row * stride + column for row, column in moves], device=device)


@lru_cache(maxsize=8)
def _chances(device: torch.device) -> Tensor:
    """``[5]`` probabilities that a prey thinks of each step, staying last."""
    return torch.tensor([0.175, 0.175, 0.175, 0.175, 0.3], device=device)


@lru_cache(maxsize=64)
def _bare(size: int, device: torch.device) -> Tensor:
    """``[cells]`` uint8: an empty field within its border of walls."""
    return (
        torch.nn.functional.pad(torch.zeros(size, size, dtype=torch.uint8), (SIGHT,) * 4, value=WALL)
        .flatten()
        .to(device)
    )
