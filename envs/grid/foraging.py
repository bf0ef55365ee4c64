"""Level-based foraging: players gather food that only enough of them together can load; equal to lbforaging 2.0.0."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.render.scene import Scene, cells
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))  # rows and columns: none, north, south, west, east, load
LOAD = 5
WEAKEST = 3  # food is at most as strong as the three weakest players together
SETTING = re.compile(r"(?:(\d+)s-)?(\d+)x(\d+)-(\d+)p-(\d+)f(-coop)?")


@tree.struct
class ForagingState:
    """Where players and food are; rows, columns and levels are whole numbers held as float32.

    Attributes:
        position: ``[B, N, 2]`` row and column of the players.
        level: ``[B, N]`` of the players.
        food: ``[B, F, 2]`` row and column, in reading order of the field.
        food_level: ``[B, F]``; 0 where the food is gone.
        spawned: ``[B]`` sum of the food levels at the start.
    """

    position: Tensor = tree.axes("N 2")
    level: Tensor = tree.axes("N")
    food: Tensor = tree.axes("F 2")
    food_level: Tensor = tree.axes("F")
    spawned: Tensor = tree.axes("")

    @cached_property
    def copies_last(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Position ``[2, N, B]``, food ``[2, F, B]``, level ``[N, B]`` and food_level ``[F, B]``.

        Operations run along the axis that is contiguous: of copies there are thousands, of players two.
        """
        tensors = (self.position, self.food, self.level, self.food_level)
        position, food, level, food_level = (x.movedim(0, -1).movedim(-2, 0).contiguous() for x in tensors)
        return position, food, level, food_level

    @cached_property
    def blocked(self) -> Tensor:
        """``[4, N, F, B]`` bool: food there is one step to the north, south, west, east of a player."""
        position, food, _, level = self.copies_last
        down, across = food.unsqueeze(1) - position.unsqueeze(2)
        return torch.stack([(down == r) & (across == c) for r, c in MOVES[1:LOAD]]) & (level > 0)


class Foraging(Task[ForagingState]):
    """``Foraging-...-v3`` of lbforaging 2.0.0 (Papoudakis et al. 2021, arXiv:2006.07869).

    All players move at once; those who would share a cell stay. Then those who chose to load act on the food beside
    them: where their levels together reach that of the food it is gone, and player i is paid
    ``level_i * food / (their levels together * all food at the start)``, so that a team that gathers all of it earns
    1; without normalisation ``level_i * food``. A choice that is not possible does nothing.

    Players see, in rows and columns counted from the upper left corner of what is in sight, first the food in sight
    in reading order, then themselves, then the others in sight; ``(-1, -1, 0)`` fills what is missing. As in the
    source others are seen up to twice the sight from that corner, so beyond it near the upper and left border, and
    two players can meet in a cell that one of them failed to leave.

    lbforaging handles loads in no particular order (a set of objects). No cell touches two foods, since no two spawn
    within two steps of each other, so the order never matters. Deviations: the time limit truncates, where lbforaging
    says terminated; observations as grids, levels per player or food, and hiding levels are left out.

    Args:
        setting: Field, players, food, ``Ks-`` before them for a sight of K cells, ``-coop`` after them where all food
            is of the highest level: ``2s-8x8-2p-2f-coop``, ``15x15-4p-5f``, any numbers.
        num_agents: Players, where other than in the setting.
        player_levels: Least and highest, drawn uniformly.
        food_levels: Least and highest, drawn uniformly; a highest of None is the sum of the three lowest player levels.
        max_episode_steps: Where an episode is truncated.
        penalty: What each player of a failed load pays, at least 0.
        normalize_reward: Whether rewards are shares of 1.
        action_mask: Whether views say which choices are possible; in published results they do not.

    Raises:
        ValueError: If the setting cannot be read, or the numbers do not fit each other.
    """

    def __init__(
        self,
        *,
        setting: str = "8x8-2p-3f",
        num_agents: int | None = None,
        player_levels: Sequence[int] = (1, 2),
        food_levels: Sequence[int | None] = (1, None),
        max_episode_steps: int = 50,
        penalty: float = 0.0,
        normalize_reward: bool = True,
        action_mask: bool = False,
    ) -> None:
        read = SETTING.fullmatch(setting)
        if read is None:
            raise ValueError(f"setting: expected a form such as 8x8-2p-3f or 2s-10x10-3p-3f-coop, got {setting!r}")
        sight, *numbers = read.groups()[:5]
        self.rows, self.columns, players, self.num_food = map(int, numbers)
        self.num_agents = players if num_agents is None else num_agents
        self.sight = max(self.rows, self.columns) if sight is None else int(sight)
        self.force_coop = read[6] is not None
        self.player_levels, self.food_levels = _range("player_levels", player_levels), tuple(food_levels)
        self.horizon, self.penalty, self.normalize_reward = max_episode_steps, penalty, normalize_reward
        self.action_mask = action_mask
        self._check()
        seen = ObservationSpec.named(food=3 * self.num_food, own=3, others=3 * (self.num_agents - 1))
        self.agents = AgentSpec.single(
            self.num_agents, seen, ActionSpec.discrete(len(MOVES)), "player", info={"success": "last"}
        )
        self._graph = default_graph(self.num_agents)

    def _check(self) -> None:
        counts = {"num_agents": self.num_agents, "food": self.num_food, "sight": self.sight}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name}: must be at least 1, got {value}")
        if min(self.rows, self.columns) < 3 or self.num_agents > self.rows * self.columns:
            raise ValueError(
                f"setting: expected at least 3 rows and columns and a cell for each of {self.num_agents} players, "
                f"got {self.rows}x{self.columns}"
            )
        if self.penalty < 0:
            raise ValueError(f"penalty: must not be negative, got {self.penalty}")
        weakest = min(self.num_agents, WEAKEST) * self.player_levels[0]
        if len(self.food_levels) != 2 or self.food_levels[0] is None:
            raise ValueError(f"food_levels: expected a least and a highest (or None), got {self.food_levels}")
        low, high = self.food_levels[0], weakest if self.food_levels[1] is None else self.food_levels[1]
        if not 1 <= low <= high:
            raise ValueError(f"food_levels: expected 1 <= least <= highest, got {low} and {high}")

    def initial(self, generator: torch.Generator, n: int) -> ForagingState:
        """Players anywhere, then food off the border and never within two straight or one diagonal step of other food.

        One random priority for each cell stands for the tries of the source: what is placed next takes the first cell
        by priority of those that will do. Food that finds none is left out, as in the source.
        """
        device, columns = generator.device, self.columns
        inner, conflict = _food_cells(self.rows, columns, device)
        priority = torch.rand(n, self.rows * columns, generator=generator, device=device)
        players = priority.topk(self.num_agents, dim=1).indices
        priority = priority.scatter_(1, players, -1.0).index_select(1, inner)
        chosen, there = [], []
        for _ in range(self.num_food):
            first, cell = priority.max(1)
            priority = priority.masked_fill_(conflict.index_select(0, cell), -1.0)
            chosen.append(inner.index_select(0, cell))
            there.append(first >= 0)
        food = torch.stack(chosen, 1).masked_fill_(~torch.stack(there, 1), self.rows * columns).sort(1).values
        level, food_level = self._levels(generator, n)
        food_level = torch.where(food < self.rows * columns, food_level, 0.0)
        return ForagingState(_places(players, columns), level, _places(food, columns), food_level, food_level.sum(1))

    def _levels(self, generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Random levels of players ``[n, N]`` and food ``[n, F]``, whatever becomes of it."""
        drawn = torch.rand(n, self.num_agents + self.num_food, generator=generator, device=generator.device)
        low, high = self.player_levels
        level = low + (drawn[:, : self.num_agents] * (high - low + 1)).floor_()
        least, most = self.food_levels
        weakest = level.sort(1).values[:, :WEAKEST].sum(1, keepdim=True)
        highest = weakest if most is None else torch.full_like(weakest, most)
        lowest = highest if self.force_coop else torch.full_like(weakest, least or 1)
        return level, lowest + (drawn[:, self.num_agents :] * (highest - lowest + 1)).floor_()

    def advance(
        self, state: ForagingState, action: Tensor, generator: torch.Generator
    ) -> tuple[ForagingState, Tensor, Tensor]:
        """Move, then load; all terminate when no food is left."""
        position, _, level, food_level = state.copies_last
        choice = action.squeeze(-1).T.contiguous()
        moved = _moves(action.device).index_select(1, choice.view(-1)).view_as(position)
        possible = self._possible(state).gather(0, choice.unsqueeze(0)).squeeze(0)
        target = torch.where(possible, position + moved, position)
        meeting = (target.unsqueeze(1) == target.unsqueeze(2)).all(0).sum(0) > 1
        position = torch.where(meeting, position, target)
        loading = state.blocked.any(0) & (choice == LOAD).unsqueeze(1)  # [N, F, B]: who loads has not moved
        strength = (loading * level.unsqueeze(1)).sum(0)
        loaded = (strength >= food_level) & (strength > 0)
        share = strength * state.spawned if self.normalize_reward else torch.ones_like(strength)
        worth = torch.where(loaded, food_level / share, 0.0)
        reward = (loading * worth).sum(1) * level - self.penalty * (loading & ~loaded).any(1)
        left = torch.where(loaded, 0.0, food_level)
        after = ForagingState(position.permute(2, 1, 0), state.level, state.food, left.T, state.spawned)
        return after, reward.T.contiguous(), (left == 0).all(0).unsqueeze(-1).repeat(1, self.num_agents)

    def _possible(self, state: ForagingState) -> Tensor:
        """``[6, N, B]`` bool: moves that stay on the field and off food, and loads with food beside."""
        row, column = state.copies_last[0]
        inside = torch.stack([row > 0, row < self.rows - 1, column > 0, column < self.columns - 1])
        food = state.blocked.any(2)
        return torch.cat([torch.ones_like(food[:1]), inside & ~food, food.any(0, keepdim=True)])

    def view(self, state: ForagingState) -> View:
        """Food and players in sight, as lists of row, column and level."""
        position, food, level, food_level = state.copies_last
        order = _self_first(self.num_agents, position.device)
        corner = (position - self.sight).clamp_(min=0).unsqueeze(2)
        near = (food.unsqueeze(1) - position.unsqueeze(2)).abs_() <= self.sight
        others = position[:, order] - corner
        seen = (others >= 0) & (others <= 2 * self.sight)
        strength = food_level.expand(self.num_agents, -1, -1)
        lists = [
            _listed(food.unsqueeze(1) - corner, strength, near.all(0) & (strength > 0)),
            _listed(others, level[order], seen.all(0)),
        ]
        alive = torch.ones(state.level.shape, dtype=torch.bool, device=level.device)
        mask = self._possible(state).permute(2, 1, 0) if self.action_mask else None
        return View(torch.cat(lists, 1).permute(2, 0, 1).contiguous(), alive, self._graph, action_mask=mask)

    def scene(self, state: ForagingState) -> Scene:
        """Players, and the food that is left."""
        food = cells(state.food[..., 0], state.food[..., 1], self.rows, state.food_level > 0)
        players = cells(state.position[..., 0], state.position[..., 1], self.rows)
        return Scene(players, {"food": food}, (self.rows, self.columns))

    def info(self, state: ForagingState) -> dict[str, Tensor]:
        """Whether all food has been gathered."""
        return {"success": (state.food_level == 0).all(1).float()}


def _range(name: str, levels: Sequence[int]) -> tuple[int, int]:
    if len(levels) != 2 or not 1 <= levels[0] <= levels[1]:
        raise ValueError(f"{name}: expected 1 <= least <= highest, got {tuple(levels)}")
    return levels[0], levels[1]


def _places(cell: Tensor, columns: int) -> Tensor:
    """``[*, 2]`` row and column of cells counted in reading order, as float32."""
    return torch.stack([cell // columns, cell % columns], -1).float()


def _listed(place: Tensor, level: Tensor, seen: Tensor) -> Tensor:
    """What is seen moves up, in order: ``place [2, N, M, B]`` and ``level [N, M, B]`` become ``[N, 3M, B]``, padded."""
    n, m, batch = seen.shape
    slot = torch.where(seen, seen.cumsum(1) - 1, m)  # what is not seen goes to one slot more, left out below
    entries = torch.cat([place, level.unsqueeze(0)])
    blank = _nothing(place.device).expand(3, n, m + 1, batch)
    return blank.scatter(2, slot.expand(3, -1, -1, -1), entries)[:, :, :m].permute(1, 2, 0, 3).reshape(n, 3 * m, batch)


@lru_cache(maxsize=64)
def _food_cells(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """``[I]`` cells where food can spawn, and ``[I, I]`` bool: which of them are too close to each other."""
    row, column = torch.meshgrid(torch.arange(1, rows - 1), torch.arange(1, columns - 1), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down, across = (row - row.unsqueeze(1)).abs(), (column - column.unsqueeze(1)).abs()
    return (row * columns + column).to(device), (down + across <= 2).to(device)


@lru_cache(maxsize=64)
def _self_first(n: int, device: torch.device) -> Tensor:
    """``[N, N]`` everyone's list of players: oneself, then the others in order."""
    rows = [[i, *(j for j in range(n) if j != i)] for i in range(n)]
    return torch.tensor(rows, device=device)


@lru_cache(maxsize=8)
def _nothing(device: torch.device) -> Tensor:
    """``[3, 1, 1, 1]`` row, column and level of what is not there."""
    return torch.tensor([-1.0, -1.0, 0.0], device=device).view(3, 1, 1, 1)


@lru_cache(maxsize=8)
def _moves(device: torch.device) -> Tensor:
    """``[2, 6]`` rows and columns of the choices."""
    return torch.tensor(MOVES, dtype=torch.float32, device=device).T.contiguous()
