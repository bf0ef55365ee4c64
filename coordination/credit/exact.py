"""Exact values: by enumeration of all coalitions, or factor by factor where the worth is a sum of small games."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import torch
from torch import Tensor

from coordination.arrays import Array, as_float
from coordination.games import FactorGame, PairwiseGame


def shapley_weights(num_agents: int) -> Tensor:
    """``s! (n - s - 1)! / n!`` for s = 0..n-1: the weight of one coalition of s others. ``[N]`` float64."""
    n = num_agents
    return torch.tensor([1 / (n * comb(n - 1, s)) for s in range(n)], dtype=torch.float64)


def banzhaf_weights(num_agents: int) -> Tensor:
    """``2^-(n - 1)`` for every size of coalition. ``[N]`` float64."""
    return torch.full((num_agents,), 0.5 ** (num_agents - 1), dtype=torch.float64)


def semivalue(table: Tensor, weight: Tensor) -> Tensor:
    """``phi_i = sum over S without i of weight[|S|] (v(S with i) - v(S))`` (Dubey, Neyman and Weber 1981).

    O(N 2^N) time, O(2^N) memory beyond the table; summed in float64.

    Args:
        table: ``[*, 2^N]`` worths indexed by bits.
        weight: ``[N]`` by size of S; :func:`shapley_weights` or :func:`banzhaf_weights`.

    Returns:
        ``[*, N]`` of the table's dtype.

    >>> semivalue(torch.tensor([0.0, 1.0, 2.0, 5.0]), shapley_weights(2)).tolist()
    [2.0, 3.0]
    """
    n = weight.numel()
    others = torch.arange(1 << (n - 1))
    size = sum((others >> i & 1 for i in range(n - 1)), torch.zeros_like(others))
    by_set = weight[size].to(table.device)
    worth = table.double()
    values = []
    for i in range(n):
        split = worth.reshape(*worth.shape[:-1], 1 << (n - 1 - i), 2, 1 << i)
        marginal = split[..., 1, :] - split[..., 0, :]
        values.append((marginal * by_set.reshape(1 << (n - 1 - i), 1 << i)).sum((-1, -2)))
    return torch.stack(values, -1).to(table.dtype)


def dividends(table: Array) -> Tensor:
    """Harsanyi dividends ``d(S) = v(S) - sum of d(T) over T inside S``: what only all of S together create.

    Harsanyi 1959. The Moebius transform, O(N 2^N). The Shapley value shares each dividend equally among its members.

    Args:
        table: ``[*, 2^N]`` worths.

    Returns:
        ``[*, 2^N]``.

    >>> dividends(torch.tensor([0.0, 1.0, 2.0, 5.0])).tolist()
    [0.0, 1.0, 2.0, 2.0]
    """
    table = as_float(table)
    n = table.shape[-1].bit_length() - 1
    for i in range(n):
        split = table.reshape(*table.shape[:-1], 1 << (n - 1 - i), 2, 1 << i)
        without = split[..., 0, :]
        table = torch.stack([without, split[..., 1, :] - without], -2).reshape(table.shape)
    return table


def local_semivalue(game: FactorGame | PairwiseGame, weights: Callable[[int], Tensor]) -> Tensor:
    """Shapley or Banzhaf value of a sum of small games: ``phi_i = sum over factors f that contain i of phi_i(v_f)``.

    Additivity makes it exact; agents outside a factor are null players of it, which neither value sees. O(F K 2^K),
    never 2^N; on a pairwise game ``phi_i = unary_i + sum of pair_ij / 2`` for both values, O(N + E).

    Args:
        game: The sum.
        weights: :func:`shapley_weights` or :func:`banzhaf_weights`.

    Returns:
        ``[*, N]``.

    >>> path = PairwiseGame(torch.zeros(3), [[0, 1], [1, 2]], torch.tensor([2.0, 4.0]))
    >>> local_semivalue(path, shapley_weights).tolist()
    [1.0, 3.0, 2.0]
    """
    if isinstance(game, PairwiseGame):
        half = game.pair / 2
        return game.unary.index_add(-1, game.edges[0], half).index_add(-1, game.edges[1], half)
    scopes, width = game.scopes, game.scopes.shape[1]
    if game.scopes.numel() == 0:
        return game.tables.new_zeros(*game.tables.shape[:-2], game.num_agents)
    real = ((scopes >= 0).long() << torch.arange(width, device=scopes.device)).sum(-1, keepdim=True)
    index = torch.arange(1 << width, device=scopes.device) & real  # a padded agent is a null player
    tables = game.tables.gather(-1, index.expand(game.tables.shape))
    share = semivalue(tables, weights(width))  # [*, F, K]
    owner = torch.where(scopes >= 0, scopes, game.num_agents).flatten()
    total = share.new_zeros(*share.shape[:-2], game.num_agents + 1)
    return total.index_add(-1, owner, share.flatten(-2))[..., :-1]
