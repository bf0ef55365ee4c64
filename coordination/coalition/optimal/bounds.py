"""Upper bounds on what any partition can be worth: how far from the best a heuristic can be at most."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from coordination.arrays import as_numpy
from coordination.games import FactorGame, Game, PairwiseGame, tabulate

TABLE_LIMIT = 16  # agents: up to here the bound of a general game comes from its table
TRIANGLE_LIMIT = 200_000  # pairs: up to here conflicting triangles tighten the pairwise bound
TOLERANCE = 1e-7  # relative; HiGHS keeps constraints to 1e-7


def upper_bound(game: Game) -> float:
    """A worth that no partition exceeds; the tightest of the bounds known for this kind of game.

    :class:`PairwiseGame`: every positive pair together, less conflicting triangles (:func:`pairwise_bound`), O(E^1.5).
    :class:`FactorGame`: the best partition of every factor's scope on its own, O(F Bell(K)). Any game of up to 16
    agents: prices (:func:`supporting_prices`), O(2^N) a round. Anything else: infinity.

    ``bound >= sum of v(C) over the coalitions of any partition``; Bansal, Blum and Chawla 2004 for pairs, Bondareva
    1963 and Shapley 1967 for prices.

    >>> upper_bound(PairwiseGame(torch.zeros(3), [[0, 1], [1, 2]], torch.tensor([2.0, -1.0])))
    2.0
    """
    bound = float("inf")
    if isinstance(game, PairwiseGame):
        bound = pairwise_bound(game)
    elif isinstance(game, FactorGame):
        bound = factor_bound(game)
    if game.num_agents <= TABLE_LIMIT:
        table = as_numpy(tabulate(game))
        bound = min(bound, float(supporting_prices(table).sum()))
    return bound


def supporting_prices(table: np.ndarray, rounds: int = 200) -> np.ndarray:
    """Lowest prices that no coalition can beat: ``min y(N)`` subject to ``y(S) >= v(S)`` for every S.

    Every structure is worth at most ``sum of y(C) = y(N)``; the lowest such sum is the fractional structure optimum,
    equal to v(N) iff the core is not empty (Bondareva 1963; Shapley 1967). By constraint generation: solve with few
    coalitions, add the most violated ones, repeat; a round is one small linear program and O(2^N) work. At the end
    the prices are lifted until they hold for every coalition, so ``sum(y)`` is an upper bound whenever the loop stops.

    Args:
        table: ``[2^N]`` worths.
        rounds: Most rounds; fewer give a bound that is true and looser.

    Returns:
        ``[N]`` prices.

    >>> supporting_prices(np.array([0.0, 0, 0, 1, 0, 1, 1, 1])).round(6).tolist()
    [0.5, 0.5, 0.5]
    """
    n = len(table).bit_length() - 1
    size = subset_sums(np.ones(n))
    scale = float(np.abs(table).max()) or 1.0
    active = np.unique(np.concatenate([1 << np.arange(n), _best_by_size(table, size)]))
    prices, lift = table[1 << np.arange(n)].astype(np.float64), 0.0
    for _ in range(rounds):
        result = linprog(np.ones(n), -incidence(active, n).T, -table[active] / scale, bounds=(None, None))
        prices = result.x * scale
        excess = table - subset_sums(prices)
        excess[0] = -np.inf
        lift = max(float((excess[1:] / size[1:]).max()), 0.0)
        worst = np.argpartition(-excess, min(4 * n, len(excess) - 1))[: 4 * n]
        wider = np.union1d(active, worst[excess[worst] > 0])
        if lift * n <= TOLERANCE * scale or len(wider) == len(active):
            break
        active = wider
    return prices + lift


def pairwise_bound(game: PairwiseGame) -> float:
    """All unary worths and positive pairs, less the packing of conflicting triangles.

    In a triangle of two positive pairs and a negative one every partition cuts a positive pair or keeps the negative
    one, and loses the least of the three weights at least. Triangles that share no weight lose independently (the
    linear relaxation of correlation clustering: Bansal, Blum and Chawla 2004). Packed greedily up to 200,000 pairs.

    >>> pairwise_bound(PairwiseGame(torch.zeros(3), [[0, 1, 0], [1, 2, 2]], torch.tensor([2.0, 3.0, -1.0])))
    4.0
    """
    pair = game.pair.detach().double().cpu()
    bound = float(game.unary.detach().double().sum() + pair.clamp(min=0).sum())
    if pair.numel() > TRIANGLE_LIMIT:
        return bound
    positive: dict[int, dict[int, float]] = {}
    negative = []
    for a, b, w in zip(*game.edges.tolist(), pair.tolist(), strict=True):
        if w > 0:
            positive.setdefault(a, {})[b] = w
            positive.setdefault(b, {})[a] = w
        elif w < 0:
            negative.append((w, a, b))
    for w, a, b in sorted(negative):
        left, first, second = -w, positive.get(a, {}), positive.get(b, {})
        for c in first.keys() & second.keys():
            loss = min(left, first[c], second[c])
            if loss > 0:
                bound -= loss
                left -= loss
                for x in (a, b):
                    positive[x][c] = positive[c][x] = positive[x][c] - loss
    return bound


def factor_bound(game: FactorGame) -> float:
    """Every factor as if its scope could be partitioned for it alone: ``sum over f of max over partitions of scope_f``.

    >>> factor_bound(FactorGame([[0, 1], [0, 1]], [[0.0, 1.0, 1.0, 5.0], [0.0, 1.0, 1.0, 0.0]], 2))
    7.0
    """
    tables = game.tables.detach().double().cpu()
    tables = tables - tables[:, :1]  # an empty game worth 0 has the same worths without these constants
    width = game.scopes.shape[1]
    best = tables.clone()
    used = (game.scopes.cpu() >= 0).long()
    full = (used << torch.arange(width)).sum(1)
    for s in range(1, 1 << width):
        part = (s - 1) & s
        while part > s >> 1:  # the part that holds the highest member; the other way round is the same split
            best[:, s] = torch.maximum(best[:, s], best[:, part] + best[:, s ^ part])
            part = (part - 1) & s
    return float(best.gather(1, full.unsqueeze(1)).sum())


def subset_sums(weight: np.ndarray) -> np.ndarray:
    """``sum of weight_i over i in S`` for every S: ``[N]`` -> ``[2^N]``, O(2^N)."""
    sums = np.zeros(1)
    for w in weight:
        sums = np.concatenate([sums, sums + w])
    return sums


def incidence(coalitions: np.ndarray | Tensor, n: int) -> np.ndarray:
    """Coalition numbers ``[M]`` as columns of a 0/1 matrix ``[N, M]``."""
    return (np.asarray(coalitions) >> np.arange(n)[:, None] & 1).astype(np.float64)


def _best_by_size(table: np.ndarray, size: np.ndarray) -> np.ndarray:
    """For every size above 0 the coalition worth most."""
    order = np.lexsort((table, size))
    return order[np.flatnonzero(np.diff(size[order], append=np.inf))][1:]
