"""Formation by merging: greedy C-Link, and merge-and-split until neither helps."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import as_numpy
from coordination.coalition.base import Coalitions, finish, single
from coordination.coalition.hedonic import starting_label
from coordination.coalition.optimal.bounds import upper_bound
from coordination.games import Game, PairwiseGame, evaluate, unpack_bits
from coordination.topology import Topology

DENSE_LIMIT = 2_000  # agents: above, all pairs of a general game are too many


@dataclass(frozen=True)
class CLink:
    """Greedy merging: again and again the two coalitions that gain most by merging, while any gain.

    The coalition linkage of Farinelli et al. 2013 (C-Link) with gain ``v(A and B) - v(A) - v(B)``. On a
    :class:`PairwiseGame` without ``topology`` only linked coalitions can gain: a heap of links, O(E log E) and 100,000
    agents; otherwise O(N^2) worths at the start and O(N) after each merge.

    >>> game = PairwiseGame(torch.zeros(3), [[0, 1, 0], [1, 2, 2]], torch.tensor([2.0, 3.0, -4.0]))
    >>> CLink().form(game).label.tolist()
    [0, 1, 1]
    """

    def form(
        self,
        game: Game | None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """See :class:`Former`; with ``topology`` only coalitions joined by an edge merge. Starts from ``previous``."""
        game = single(game, "CLink")
        label = starting_label(previous, game.num_agents)
        if isinstance(game, PairwiseGame) and topology is None:
            label = _merge_linked(game, label)
        else:
            label = merge_greedily(game, label, topology)
        return finish(game, label, upper_bound(game))


@dataclass(frozen=True)
class MergeSplit:
    """Merge-and-split: merge pairs and split coalitions in two while the total worth rises (Apt and Witzel 2009).

    Every step raises the total, so the steps end. At the end no two coalitions gain by merging and no coalition of up
    to ``split_limit`` agents gains by splitting in two; from larger ones no single agent gains by leaving.

    Args:
        split_limit: Largest coalition whose 2^(size - 1) splits are all tried; raising it finds more and costs double
            per agent.

    >>> game = PairwiseGame(torch.zeros(3), [[0, 1, 0], [1, 2, 2]], torch.tensor([2.0, 3.0, -4.0]))
    >>> MergeSplit().form(game, previous=Coalitions(torch.zeros(3, dtype=torch.long))).label.tolist()
    [0, 1, 1]
    """

    split_limit: int = 12

    def form(
        self,
        game: Game | None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """See :class:`Former`; with ``topology`` only coalitions joined by an edge merge. Starts from ``previous``."""
        game = single(game, "MergeSplit")
        if not 1 <= self.split_limit <= 20:
            raise ValueError(f"split_limit: must be in 1..20, got {self.split_limit}")
        label = starting_label(previous, game.num_agents)
        while True:
            merged = merge_greedily(game, label, topology)
            split = self._split(game, merged)
            if np.array_equal(split, merged):
                return finish(game, merged, upper_bound(game))
            label = split

    def _split(self, game: Game, label: np.ndarray) -> np.ndarray:
        label = label.copy()
        waiting = list(np.unique(label))
        while waiting:
            c = waiting.pop()
            agents = np.flatnonzero(label == c)
            part = _best_split(game, agents, self.split_limit)
            if part is not None:
                fresh = np.setdiff1d(np.arange(label.size), label)[0]
                label[part] = fresh
                waiting += [c, fresh]
        return label


def merge_greedily(game: Game, label: np.ndarray, topology: Topology | None = None) -> np.ndarray:
    """Merge the best pair of coalitions until no merge gains: ``[N]`` labels in, labels out.

    Raises:
        ValueError: For more than 2,000 coalitions.
    """
    numbers, label = np.unique(label, return_inverse=True)
    count = len(numbers)
    if count > DENSE_LIMIT:
        raise ValueError(
            f"merging: {count} coalitions have too many pairs, at most {DENSE_LIMIT}; CLink and BestResponse take a "
            f"PairwiseGame of any size"
        )
    masks = torch.from_numpy(label == np.arange(count)[:, None])
    worth = as_numpy(evaluate(game, masks)).copy()
    allowed = _linked(label, topology, count)
    gain = np.full((count, count), -np.inf)
    first, second = np.nonzero(np.triu(allowed, 1))
    gain[first, second] = _merged(game, masks, first, second) - worth[first] - worth[second]
    tolerance = 1e-9 * max(float(np.abs(worth).max()), 1e-300)
    while count > 1:
        a, b = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[a, b] > tolerance:
            break
        worth[a] += worth[b] + gain[a, b]
        masks[a] |= masks[b]
        label[label == b] = a
        allowed[a] |= allowed[b]
        allowed[:, a] |= allowed[:, b]
        allowed[b] = allowed[:, b] = False
        allowed[a, a] = False
        gain[[a, b]] = gain[:, [a, b]] = -np.inf
        others = np.flatnonzero(allowed[a])
        gain[np.minimum(a, others), np.maximum(a, others)] = (
            _merged(game, masks, np.full(len(others), a), others) - worth[a] - worth[others]
        )
    return label


def _merged(game: Game, masks: Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Worth of ``masks[first] | masks[second]``, pair by pair."""
    step = max((1 << 24) // masks.shape[1], 1)
    parts = [
        as_numpy(evaluate(game, masks[first[low : low + step]] | masks[second[low : low + step]]))
        for low in range(0, len(first), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _linked(label: np.ndarray, topology: Topology | None, count: int) -> np.ndarray:
    """``[C, C]`` bool: which coalitions may merge."""
    if topology is None:
        return ~np.eye(count, dtype=bool)
    linked = np.zeros((count, count), dtype=bool)
    src, dst = label[topology.edges.numpy()]
    linked[src, dst] = linked[dst, src] = True
    np.fill_diagonal(linked, False)
    return linked


def _merge_linked(game: PairwiseGame, label: np.ndarray) -> np.ndarray:
    """C-Link on a weighted graph: contract the heaviest link, adding up parallel ones, while it is positive."""
    n = game.num_agents
    weight: list[dict[int, float]] = [{} for _ in range(n)]
    for a, b, w in zip(*label[game.edges.cpu().numpy()].tolist(), game.pair.detach().double().tolist(), strict=True):
        if a != b:
            weight[a][b] = weight[b][a] = weight[a].get(b, 0.0) + w
    heap = [(-w, a, b) for a in range(n) for b, w in weight[a].items() if a < b and w > 0]
    heapq.heapify(heap)
    parent = np.arange(n)
    while heap:
        w, a, b = heapq.heappop(heap)
        if weight[a].get(b) != -w:
            continue  # an entry from before a merge
        if len(weight[a]) < len(weight[b]):
            a, b = b, a
        parent[b] = a
        del weight[a][b], weight[b][a]
        for c, extra in weight[b].items():
            del weight[c][b]
            together = weight[a].get(c, 0.0) + extra
            weight[a][c] = weight[c][a] = together
            if together > 0:
                heapq.heappush(heap, (-together, min(a, c), max(a, c)))
        weight[b] = {}
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent[label]


def _best_split(game: Game, agents: np.ndarray, limit: int) -> np.ndarray | None:
    """The part to split off from a coalition for the largest gain, or None where no split gains."""
    k = len(agents)
    if k < 2:
        return None
    local = unpack_bits(torch.arange(1, 1 << (k - 1)), k) if k <= limit else torch.eye(k, dtype=torch.bool)
    part = torch.zeros(len(local), game.num_agents, dtype=torch.bool)
    part[:, agents] = local
    rest = torch.zeros_like(part)
    rest[:, agents] = ~local
    whole = part[:1] | rest[:1]
    worth = evaluate(game, torch.cat([whole, part, rest])).detach().double().cpu()
    gain = worth[1 : 1 + len(part)] + worth[1 + len(part) :] - worth[0]
    best = int(gain.argmax())
    if gain[best] <= 1e-9 * float(worth.abs().max()):
        return None
    return part[best].numpy().nonzero()[0]
