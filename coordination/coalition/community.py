"""Coalitions from links alone: modularity, and Louvain's method to find partitions where it is high."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.coalition.base import Coalitions, canonical, finish, single
from coordination.coalition.hedonic import starting_label
from coordination.coalition.moving import move_to_rest, random_order
from coordination.coalition.optimal.bounds import upper_bound
from coordination.games import Game
from coordination.topology import Topology


@dataclass(frozen=True)
class Community:
    """Communities of a graph by Louvain's method (Blondel et al. 2008, arXiv:0803.0476), the best of several restarts.

    Agents move one by one to the neighbouring community that raises modularity most; then communities become the nodes
    of a smaller graph and the same is done again, until nothing moves. O(E) a pass. Modularity cannot see
    communities much smaller than ``sqrt(2 m)`` links (Fortunato and Barthelemy 2007: in a ring of 30 five-cliques pairs
    of cliques score .88788, the cliques .87576): raise the resolution there.

    Args:
        resolution: Weight of the expected links; raising it makes communities smaller.
        restarts: Random orders tried.

    Without a game ``value`` is the modularity and ``upper_bound`` a bound on modularity; with one, they are worths.
    """

    resolution: float = 1.0
    restarts: int = 10

    def form(
        self,
        game: Game | None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """See :class:`Former`; needs an undirected ``topology`` and a ``generator``. The first start is ``previous``.

        Raises:
            ValueError: If topology or generator is missing, the topology is directed, or a setting is out of range.
        """
        if topology is None or generator is None:
            raise ValueError("Community: needs a topology and a generator (it draws the order in which agents move)")
        if not topology.is_undirected:
            raise ValueError(f"Community: needs an undirected graph, {topology.name!r} has one-way edges")
        if self.restarts < 1 or self.resolution < 0:
            raise ValueError(
                f"Community: needs restarts >= 1 and resolution >= 0, got {self.restarts}, {self.resolution}"
            )
        links = _links(topology)
        best, score = np.arange(topology.num_agents), -np.inf
        for attempt in range(self.restarts):
            start = starting_label(previous if attempt == 0 else None, topology.num_agents)
            label = _louvain(links, start, self.resolution, generator)
            found = np.nan_to_num(float(modularity(label, topology, self.resolution)))  # 0 where there are no links
            if found > score:
                best, score = label, found
        if game is not None:
            game = single(game, "Community")
            return finish(game, best, upper_bound(game))
        value = torch.tensor(score, dtype=torch.float64)
        bound = torch.tensor(_modularity_bound(links, self.resolution), dtype=torch.float64)
        return Coalitions(canonical(best), value, bound.maximum(value))


def modularity(
    label: Array,
    topology: Topology,
    resolution: float = 1.0,
    alive: Array | None = None,
) -> Tensor:
    """Modularity, how much denser links are inside communities than expected.

    ``Q = (1 / 2m) sum over i, j of (A_ij - resolution k_i k_j / 2m) [same community]`` (Newman and Girvan 2004); O(N +
    E).

    Args:
        label: ``[*, N]`` integers; an agent with a negative one is alone in its community.
        topology: Undirected graph.
        resolution: Weight of the expected links, 1 in the classical definition; raising it favours smaller communities.
        alive: ``[*, N]`` bool; links at a dead agent do not count. None if all live.

    Returns:
        ``[*]`` float64 in [-1/2, 1) at resolution 1; NaN where there are no links.

    Raises:
        ValueError: If the topology has one-way edges, or the mask is not bool of the shape of ``label``.

    >>> two_pairs = Topology([[0, 1, 2, 3], [1, 0, 3, 2]], 4)
    >>> modularity(torch.tensor([0, 0, 1, 1]), two_pairs).item()
    0.5
    """
    if not topology.is_undirected:
        raise ValueError(f"modularity: needs an undirected graph, {topology.name!r} has one-way edges")
    label = torch.as_tensor(label)
    if label.is_floating_point() or label.ndim < 1 or label.shape[-1] != topology.num_agents:
        raise ValueError(
            f"label: expected integers [*, N] with N = {topology.num_agents}, got {label.dtype} {tuple(label.shape)}"
        )
    alive = torch.ones_like(label, dtype=torch.bool) if alive is None else torch.as_tensor(alive)
    if alive.dtype != torch.bool or alive.shape != label.shape:
        raise ValueError(f"alive: expected bool {tuple(label.shape)}, got {alive.dtype} {tuple(alive.shape)}")
    group = canonical(torch.where(alive, label, -1))
    n = topology.num_agents
    group = torch.where(group < 0, n + torch.arange(n, device=label.device), group)  # alone
    sender, receiver = topology.edges_on(label.device)
    up = (alive[..., sender] & alive[..., receiver]).double()
    ends = up.sum(-1)
    inside = (up * (group[..., sender] == group[..., receiver])).sum(-1)
    degree = up.new_zeros(*label.shape[:-1], 2 * n).scatter_add(-1, group[..., receiver], up)
    return inside / ends - resolution * (degree.square().sum(-1) / ends.square())


def _links(topology: Topology) -> sp.csr_array:
    return topology.adjacency().matrix


def _entries(links: sp.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row = np.repeat(np.arange(links.indptr.size - 1), np.diff(links.indptr))
    return row, links.indices, links.data


def _louvain(links: sp.csr_array, label: np.ndarray, resolution: float, generator: torch.Generator) -> np.ndarray:
    """One run: move, contract communities to nodes (inner links become loops), repeat until no two nodes join."""
    total = float(links.sum())
    if total == 0:
        return label
    node = np.arange(label.size)  # of each agent, in the contracted graph
    while True:
        n = links.indptr.size - 1
        mass = np.asarray(links.sum(axis=1)).ravel() / np.sqrt(total)
        order = random_order(n, generator)
        moved = move_to_rest(links, label, order, mass, resolution)
        _, group = np.unique(moved, return_inverse=True)
        node = group[node]
        count = int(group.max()) + 1
        if count == n:
            return node
        belongs = sp.csr_array((np.ones(n), (np.arange(n), group)), shape=(n, count))
        links, label = sp.csr_array(belongs.T @ links @ belongs), np.arange(count)


def _modularity_bound(links: sp.csr_array, resolution: float) -> float:
    """Every linked pair that raises modularity together, less what each agent costs on its own."""
    total = float(links.sum())
    if total == 0:
        return 0.0
    row, column, weight = _entries(links)
    degree = np.asarray(links.sum(axis=1)).ravel()
    pairs = np.maximum(weight - resolution * degree[row] * degree[column] / total, 0.0).sum()
    return float(pairs / total - resolution * (degree**2).sum() / total**2)
