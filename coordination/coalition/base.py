"""Coalitions: who works with whom, what that is worth, and how far from the best it can be at most."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from coordination import tree
from coordination.games import FactorGame, Game, PairwiseGame, TabularGame, evaluate
from coordination.topology import Topology

Reduce = Literal["mean", "sum", "max", "min"]
REDUCE: dict[str, str] = {"mean": "mean", "sum": "sum", "max": "amax", "min": "amin"}


@tree.struct
class Coalitions:
    """A partition of the agents into coalitions.

    Attributes:
        label: ``[*, N]`` int64 coalition of each agent, in 0..N-1; -1 for agents in no coalition (dead, idle).
        value: ``[*]`` float64 total worth of the coalitions; None where no game was given.
        upper_bound: ``[*]`` float64: no partition is worth more; infinite where nothing is known. Where it equals
            ``value`` the partition is optimal.

    >>> Coalitions(torch.tensor([0, 0, 1])).pool(torch.tensor([1.0, 3.0, 5.0])).tolist()
    [2.0, 2.0, 5.0]
    """

    label: Tensor = tree.axes("N")
    value: Tensor | None = tree.axes("", default=None)
    upper_bound: Tensor | None = tree.axes("", default=None)

    @property
    def gap(self) -> Tensor | None:
        """``[*]``: at most this much worth is missing; 0 means optimal. None without a game."""
        return None if self.value is None or self.upper_bound is None else self.upper_bound - self.value

    @property
    def num_coalitions(self) -> Tensor:
        """``[*]`` int64: how many coalitions there are. O(N log N)."""
        return canonical(self.label).amax(-1) + 1

    def same(self, edges: Tensor) -> Tensor:
        """Which edges stay inside a coalition: ``edges [2, E]`` -> ``[*, E]`` bool. O(E).

        >>> Coalitions(torch.tensor([0, 0, 1])).same(torch.tensor([[0, 1], [1, 2]])).tolist()
        [True, False]
        """
        src, dst = self.label[..., edges[0]], self.label[..., edges[1]]
        return (src == dst) & (src >= 0)

    def pool(self, x: Tensor, reduce: Reduce = "mean", feature_dims: int = 0) -> Tensor:
        """Give every agent its coalition's mean (sum, max, min) of ``x``; differentiable in ``x``. O(N D).

        Args:
            x: ``[*, N]`` with ``feature_dims = 0``, ``[*, N, D]`` with 1, and so on; it may have more leading axes than
                the labels. Whatever stands in agents of no coalition (NaN included) reaches nobody.
            reduce: ``mean`` | ``sum`` | ``max`` | ``min``. The mean keeps the sum over all agents in coalitions.
            feature_dims: How many axes stand behind the agent axis.

        Returns:
            A tensor of the shape of ``x``; zero for agents of no coalition.

        Raises:
            ValueError: If the shapes do not fit, ``reduce`` is unknown, or a label is outside -1..N-1.
        """
        if reduce not in REDUCE:
            raise ValueError(f"reduce: one of {', '.join(REDUCE)}; got {reduce!r}")
        x = torch.as_tensor(x)
        n = self.label.shape[-1]
        axis = x.ndim - 1 - feature_dims
        if axis < 0 or x.shape[axis] != n:
            raise ValueError(f"x: expected {n} agents on axis {-1 - feature_dims}, got {tuple(x.shape)}")
        if self.label.device.type == "cpu":  # elsewhere the check would wait for the device
            _check_label(self.label)
        label = self.label.expand(*x.shape[:axis], n).reshape(-1, n)
        rows = x.reshape(label.shape[0] * n, -1)
        inside = (label >= 0).reshape(-1, 1)
        offset = torch.arange(label.shape[0], device=label.device).unsqueeze(1) * n
        sink = label.shape[0] * n
        index = torch.where(label >= 0, label + offset, sink).reshape(-1, 1)
        rows = torch.where(inside, rows, 0.0)
        pooled = rows.new_zeros(sink + 1, rows.shape[1]).scatter_reduce(
            0, index.expand_as(rows), rows, REDUCE[reduce], include_self=False
        )
        return torch.where(inside, pooled[index.squeeze(1)], 0.0).reshape(x.shape)


class Former(Protocol):
    """How coalitions come about: every former of this package has this one method."""

    def form(
        self,
        game: Game | None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """Coalitions for one game.

        Args:
            game: What coalitions are worth; None for formers that look at links or features only.
            topology: Who may be joined directly, for formers that respect a graph.
            features: ``[N, D]`` what is known of each agent.
            previous: Where to start from.
            generator: For formers that draw; they refuse to run without one.
        """
        ...


def canonical(label: Tensor | np.ndarray) -> Tensor:
    """Labels renumbered 0, 1, 2 ... in order of first appearance: equal partitions get equal labels.

    Restricted growth strings (Hutchinson 1963).

    Args:
        label: ``[*, N]`` integers; negative means in no coalition and becomes -1.

    Returns:
        ``[*, N]`` int64. O(N log N).

    >>> canonical(torch.tensor([7, 3, 7, -1])).tolist()
    [0, 1, 0, -1]
    """
    label = torch.as_tensor(label).long()
    small = torch.searchsorted(label.sort(-1).values.contiguous(), label.contiguous())  # 0..N-1, same where equal
    position = torch.arange(label.shape[-1], device=label.device).expand_as(small)
    position = torch.where(label >= 0, position, label.shape[-1])
    first = torch.full_like(small, label.shape[-1]).scatter_reduce(-1, small, position, "amin").gather(-1, small)
    leads = (first == position) & (label >= 0)
    rank = leads.long().cumsum(-1) - 1
    return torch.where(label >= 0, rank.gather(-1, first.clamp(max=label.shape[-1] - 1)), -1)


def members(label: Tensor) -> Tensor:
    """The coalitions of one partition as masks: ``[N]`` -> ``[C, N]`` bool, in order of first appearance.

    O(C N).

    >>> members(torch.tensor([4, -1, 4, 2])).tolist()
    [[True, False, True, False], [False, False, False, True]]
    """
    label = canonical(label)
    count = int(label.max()) + 1 if label.numel() else 0
    masks = torch.zeros(count, label.numel(), dtype=torch.bool, device=label.device)
    agent = (label >= 0).nonzero().flatten()
    masks[label[agent], agent] = True
    return masks


def structure_value(game: Game, label: Tensor | np.ndarray) -> Tensor:
    """Total worth of a partition, the sum of ``v(C)`` over its coalitions: ``label [N]`` -> float64 scalar.

    O(E) for a :class:`PairwiseGame`, O(F K^2) for a :class:`FactorGame`; else one worth for every coalition, whose
    masks take O(C N) memory.

    >>> structure_value(TabularGame(torch.tensor([0.0, 1.0, 2.0, 9.0])), torch.tensor([0, 1])).item()
    3.0
    """
    label = canonical(torch.as_tensor(label))
    if label.shape != (game.num_agents,):
        raise ValueError(f"label: expected [N] = ({game.num_agents},), got {tuple(label.shape)}")
    if isinstance(game, PairwiseGame | FactorGame):
        return game.structure_value(label).double()
    return evaluate(game, members(label)).double().sum(-1)


def finish(game: Game | None, label: Tensor | np.ndarray, upper_bound: float | None = None) -> Coalitions:
    """Coalitions with canonical labels, their worth computed anew, and a bound that is at least that worth.

    All of it on the device of the game's worths.
    """
    label = canonical(torch.as_tensor(label))
    if game is None:
        return Coalitions(label)
    value = structure_value(game, label).detach()
    bound = value if upper_bound is None else value.clamp(min=upper_bound)
    return Coalitions(label.to(value.device), value, bound)


def single(game: Game | None, name: str) -> Game:
    """The game, checked to be one game (no batch) in which nobody is worth nothing.

    Raises:
        ValueError: If there is no game, it is a batch, or its empty coalition is worth something.
    """
    if game is None:
        raise ValueError(f"{name}: needs a game, got None")
    empty = evaluate(game, torch.zeros(1, game.num_agents, dtype=torch.bool))
    if empty.ndim != 1:
        raise ValueError(f"{name}: expected one game, got a batch {tuple(empty.shape[:-1])}; use form_batch")
    if abs(float(empty)) > 1e-6:
        raise ValueError(
            f"{name}: the empty coalition must be worth 0, got {float(empty)}; subtract it from every worth"
        )
    return game


def form_batch(
    former: Former,
    game: TabularGame | FactorGame | PairwiseGame,
    topology: Topology | None = None,
    *,
    features: Tensor | None = None,
    previous: Coalitions | None = None,
    generator: torch.Generator | None = None,
) -> Coalitions:
    """Coalitions for every game of a batch, one after another.

    O(number of games) times what the former costs.

    Args:
        former: How coalitions come about.
        game: Worths with leading axes ``[*]``.
        topology: Shared by all games.
        features: ``[*, N, D]`` or None.
        previous: Coalitions with labels ``[*, N]``, or None.
        generator: For formers that draw.

    Returns:
        Coalitions with labels ``[*, N]``, worths and bounds ``[*]``.

    >>> from coordination.coalition import Exact
    >>> form_batch(Exact(), TabularGame(torch.tensor([[0.0, 1, 1, 3], [0, 2, 2, 3]]))).label.tolist()
    [[0, 0], [0, 1]]
    """
    games, lead = _each(game)
    n = game.num_agents
    rows = None if features is None else features.reshape(len(games), n, -1)
    before = None if previous is None else previous.label.reshape(len(games), n)
    formed = [
        former.form(
            one,
            topology,
            features=None if rows is None else rows[b],
            previous=None if before is None else Coalitions(before[b]),
            generator=generator,
        )
        for b, one in enumerate(games)
    ]
    stacked = tree.stack(formed)
    return tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), stacked)


def _each(game: TabularGame | FactorGame | PairwiseGame) -> tuple[list[Game], tuple[int, ...]]:
    if isinstance(game, TabularGame):
        return [TabularGame(v) for v in game.values.reshape(-1, game.values.shape[-1])], game.values.shape[:-1]
    if isinstance(game, FactorGame):
        tables = game.tables.reshape(-1, *game.tables.shape[-2:])
        return [FactorGame(game.scopes, t, game.num_agents) for t in tables], game.tables.shape[:-2]
    if isinstance(game, PairwiseGame):
        unary, pair = game.unary.reshape(-1, game.num_agents), game.pair.reshape(-1, game.pair.shape[-1])
        return [PairwiseGame(u, game.edges, p) for u, p in zip(unary, pair, strict=True)], game.unary.shape[:-1]
    raise TypeError(f"form_batch: expected a TabularGame, FactorGame or PairwiseGame, got {type(game).__name__}")


def _check_label(label: Tensor) -> None:
    n = label.shape[-1]
    if label.numel() and (label.min() < -1 or label.max() >= n):
        raise ValueError(
            f"label: expected -1..{n - 1}, got {int(label.min())}..{int(label.max())}; renumber with canonical(label)"
        )
