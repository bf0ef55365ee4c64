"""Games written down: a table of all coalitions, a sum of small factors, a weighted graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import as_float
from coordination.games.base import CHUNK_CELLS, Game, as_mask, evaluate, pack_bits, unpack_bits

MAX_TABLE_AGENTS = 26  # a table of doubles for one more would take a gigabyte


@dataclass(frozen=True, eq=False)
class TabularGame:
    """A game by its table: ``v(S) = values[sum of 2^i over i in S]``.

    Args:
        values: ``[*, 2^N]`` worths, indexed by bits.

    Raises:
        ValueError: If the last axis is no power of two.

    >>> TabularGame([0.0, 1.0, 2.0, 4.0]).value(torch.tensor([[True, True]])).tolist()
    [4.0]
    """

    values: Tensor

    def __post_init__(self) -> None:
        values = as_float(self.values)
        if values.ndim == 0 or values.shape[-1] < 2 or values.shape[-1].bit_count() != 1:
            raise ValueError(f"values: expected 2^N worths on the last axis, got {tuple(values.shape)}")
        object.__setattr__(self, "values", values)

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.values.shape[-1].bit_length() - 1

    def value(self, mask: Tensor | np.ndarray) -> Tensor:
        """``[M, N] -> [*, M]``, O(M N)."""
        index = pack_bits(as_mask(mask, self.num_agents))
        return self.values[..., index.to(self.values.device)]


@dataclass(frozen=True, eq=False)
class FactorGame:
    """A sum of small games: ``v(S) = sum over factors f of table_f[S intersected with scope_f]``.

    Args:
        scopes: ``[F, K]`` int64: the agents of each factor; -1 pads factors of fewer than K agents, at the end.
        tables: ``[*, F, 2^K]`` worths indexed by bits over positions in the scope; entries with a padded bit are
            unused.
        num_agents: Number of agents N.

    Raises:
        ValueError: If shapes disagree, an agent is out of range, stands twice in a scope, or follows padding.

    >>> game = FactorGame([[0, 1], [1, 2]], [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 4.0]], 3)
    >>> game.value(torch.tensor([[True, True, False], [True, True, True]])).tolist()
    [1.0, 5.0]
    """

    scopes: Tensor
    tables: Tensor
    num_agents: int

    def __post_init__(self) -> None:
        scopes, tables = torch.as_tensor(self.scopes).long(), as_float(self.tables)
        if scopes.ndim != 2 or tables.ndim < 2 or tables.shape[-2:] != (scopes.shape[0], 1 << scopes.shape[1]):
            raise ValueError(
                f"FactorGame: expected scopes [F, K] and tables [*, F, 2^K], got {tuple(scopes.shape)} and "
                f"{tuple(tables.shape)}"
            )
        if scopes.numel() and (scopes.min() < -1 or scopes.max() >= self.num_agents):
            raise ValueError(
                f"scopes: agents are 0..{self.num_agents - 1} (-1 pads), got {scopes.min()}..{scopes.max()}"
            )
        if ((scopes[:, :-1] < 0) & (scopes[:, 1:] >= 0)).any():
            raise ValueError("scopes: padding (-1) must stand at the end of a scope")
        ordered = scopes.sort(1).values
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            raise ValueError("scopes: an agent stands twice in one scope")
        object.__setattr__(self, "scopes", scopes)
        object.__setattr__(self, "tables", tables)

    @classmethod
    def from_factors(cls, factors: Sequence[tuple[Sequence[int], Sequence[float]]], num_agents: int) -> FactorGame:
        """A game from ``(scope, table of 2^len(scope) worths)`` pairs of any widths.

        Raises:
            ValueError: If a table does not fit its scope.
        """
        width = max((len(scope) for scope, _ in factors), default=0)
        scopes = torch.full((len(factors), width), -1)
        tables = torch.zeros(len(factors), 1 << width, dtype=torch.float64)
        for f, (scope, table) in enumerate(factors):
            if len(table) != 1 << len(scope):
                raise ValueError(f"factor {f}: {len(scope)} agents need {1 << len(scope)} worths, got {len(table)}")
            scopes[f, : len(scope)] = torch.as_tensor(scope)
            tables[f, : len(table)] = torch.as_tensor(table, dtype=torch.float64)
        return cls(scopes, tables, num_agents)

    def value(self, mask: Tensor | np.ndarray) -> Tensor:
        """``[M, N] -> [*, M]``, O(M F K)."""
        mask = as_mask(mask, self.num_agents).to(self.scopes.device)
        member = mask[:, self.scopes.clamp(min=0)] & (self.scopes >= 0)  # [M, F, K]
        index = pack_bits(member)
        factors = torch.arange(self.scopes.shape[0], device=index.device)
        return self.tables[..., factors, index].sum(-1)

    def structure_value(self, label: Tensor) -> Tensor:
        """Total worth of the coalitions that ``label [N]`` names, ``[*]``; O(F K^2), no mask is built."""
        label = torch.as_tensor(label).to(self.scopes.device)
        at = label[self.scopes.clamp(min=0)]  # [F, K]
        present = (self.scopes >= 0) & (at >= 0)
        same = (at.unsqueeze(-1) == at.unsqueeze(-2)) & present.unsqueeze(-1) & present.unsqueeze(-2)  # [F, K, K]
        index = pack_bits(same)  # [F, K]: bits of the part of the scope that shares position k's coalition
        earlier = torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril(-1)
        leads = present & ~(same & earlier).any(-1)  # one position speaks for each part
        factors = torch.arange(index.shape[0], device=index.device).unsqueeze(-1)
        empty = self.tables[..., :1]
        gain = torch.where(leads, self.tables[..., factors, index] - empty, 0.0).sum((-1, -2))
        count = label[label >= 0].unique().numel()
        return gain + count * empty.sum((-1, -2))


@dataclass(frozen=True, eq=False)
class PairwiseGame:
    """A weighted graph game: ``v(S) = sum of unary_i over S + sum of pair_ij over the pairs inside S``.

    Deng and Papadimitriou 1994 (induced subgraph games), with weights on agents added.

    Args:
        unary: ``[*, N]`` worth of each agent alone.
        edges: ``[2, E]`` int64 pairs, every unordered pair once.
        pair: ``[*, E]`` worth of each pair being together; may be negative.

    Raises:
        ValueError: If shapes disagree, a pair joins an agent to itself, or stands twice (in either direction).

    >>> PairwiseGame([1.0, 1.0, 1.0], [[0, 1], [1, 2]], [2.0, -5.0]).value(torch.tensor([[True, True, False]])).tolist()
    [4.0]
    """

    unary: Tensor
    edges: Tensor
    pair: Tensor

    def __post_init__(self) -> None:
        unary, pair = as_float(self.unary), as_float(self.pair)
        edges = torch.as_tensor(self.edges).long().reshape(2, -1)
        if unary.ndim == 0 or pair.ndim == 0 or pair.shape[-1] != edges.shape[1] or pair.shape[:-1] != unary.shape[:-1]:
            raise ValueError(
                f"PairwiseGame: expected unary [*, N], edges [2, E], pair [*, E], got {tuple(unary.shape)}, "
                f"{tuple(edges.shape)}, {tuple(pair.shape)}"
            )
        n = unary.shape[-1]
        if edges.numel() and (edges.min() < 0 or edges.max() >= n):
            raise ValueError(f"edges: agents are 0..{n - 1}, got {edges.min()}..{edges.max()}")
        low, high = edges.min(0).values, edges.max(0).values
        if (low == high).any():
            raise ValueError("edges: a pair joins an agent to itself; that worth belongs into unary")
        if (low * n + high).unique().numel() != edges.shape[1]:
            raise ValueError("edges: a pair stands twice; list every unordered pair once, not in both directions")
        object.__setattr__(self, "unary", unary)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "pair", pair)

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.unary.shape[-1]

    def value(self, mask: Tensor | np.ndarray) -> Tensor:
        """``[M, N] -> [*, M]``, O(M (N + E))."""
        member = as_mask(mask, self.num_agents).to(self.unary.device)
        both = member[:, self.edges[0]] & member[:, self.edges[1]]
        return self.unary @ member.to(self.unary.dtype).T + self.pair @ both.to(self.pair.dtype).T

    def structure_value(self, label: Tensor) -> Tensor:
        """Total worth of the coalitions that ``label [N]`` names, ``[*]``; O(N + E)."""
        label = torch.as_tensor(label).to(self.unary.device)
        together = (label[self.edges[0]] == label[self.edges[1]]) & (label[self.edges[0]] >= 0)
        return torch.where(label >= 0, self.unary, 0.0).sum(-1) + torch.where(together, self.pair, 0.0).sum(-1)


def tabulate(game: Game, max_agents: int = MAX_TABLE_AGENTS) -> Tensor:
    """The worth of every coalition, ``[*, 2^N]``. O(2^N) evaluations.

    Args:
        game: The game.
        max_agents: Refuse more agents than this; raising it doubles time and memory per agent.

    Raises:
        ValueError: If there are too many agents.

    >>> tabulate(PairwiseGame([1.0, 2.0], [[0], [1]], [5.0])).tolist()
    [0.0, 1.0, 2.0, 8.0]
    """
    n = game.num_agents
    if n > max_agents:
        raise ValueError(f"game: {n} agents have 2^{n} coalitions, at most {max_agents} agents can be enumerated here")
    if isinstance(game, TabularGame):
        if not torch.isfinite(game.values).all():
            raise ValueError("game: every worth must be finite, got NaN or infinity; refuse coalitions by a low worth")
        return game.values
    step = max(CHUNK_CELLS // n, 1)
    parts = [
        evaluate(game, unpack_bits(torch.arange(low, min(low + step, 1 << n)), n)) for low in range(0, 1 << n, step)
    ]
    return torch.cat(parts, -1)
