"""Topology: a fixed communication graph over N agents, with its sparse operators cached.

Edges point from sender to receiver (``src -> dst``, the PyG direction). They are kept sorted by
receiver, then sender, so that the in-neighbours of an agent are one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property

import networkx as nx
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from scipy.sparse import csgraph
from torch import Tensor

from coordination.names import unknown
from coordination.topology.sparse import SparseOperator
from coordination.topology.spectra import DENSE_SPECTRUM, laplacian_extremes
from coordination.topology.weights import OPTIMAL, optimal_weights

MIXING = ("metropolis", "mh", "max_degree", "best_constant", "mean", *OPTIMAL)


class Topology:
    """A fixed directed graph over agents, shared by all samples and held by reference.

    Args:
        edges: ``[2, E]`` integer pairs src -> dst. An undirected link is two edges.
        num_agents: Number of agents N.
        name: What to call it in reports.
        node_order: ``[N]`` what agents 0..N-1 are called where the graph came from; None where they have no names.

    Raises:
        ValueError: If an edge is out of range, a self-loop, or listed twice, or the edges are not ``[2, E]`` integers.
    """

    def __init__(
        self,
        edges: Tensor | np.ndarray | Sequence[Sequence[int]],
        num_agents: int,
        name: str = "custom",
        node_order: Sequence[Hashable] | None = None,
    ) -> None:
        if num_agents < 1:
            raise ValueError(f"num_agents: must be at least 1, got {num_agents}")
        if node_order is not None and len(node_order) != num_agents:
            raise ValueError(f"node_order: expected {num_agents} names, got {len(node_order)}")
        pairs = _pairs(edges)
        if pairs.size and (pairs.min() < 0 or pairs.max() >= num_agents):
            raise ValueError(f"edges: agents are 0..{num_agents - 1}, got {pairs.min()}..{pairs.max()}")
        if (loops := int((pairs[0] == pairs[1]).sum())) > 0:
            raise ValueError(f"edges: {loops} self-loops; an agent always hears itself, leave them out")
        order = np.lexsort((pairs[0], pairs[1]))
        pairs = pairs[:, order]
        if pairs.shape[1] > 1 and (np.diff(pairs) == 0).all(axis=0).any():
            raise ValueError("edges: the same edge is listed twice")
        self.num_agents = num_agents
        self.name = name
        self.node_order = None if node_order is None else tuple(node_order)
        self.order = torch.from_numpy(order)  # position in the input of each stored edge
        self._edges = torch.from_numpy(pairs)
        self._moved: dict[tuple[str, torch.device], Tensor] = {}
        self._cache: dict[tuple, SparseOperator] = {}

    @classmethod
    def from_links(cls, a: np.ndarray, b: np.ndarray, num_agents: int, name: str = "custom") -> Topology:
        """Links ``a - b`` that go both ways; one found twice counts once, one from an agent to itself not at all.

        Args:
            a, b: ``[M]`` the two ends of each link.
            num_agents: Number of agents N.
            name: What to call it in reports.
        """
        low, high = np.minimum(a, b), np.maximum(a, b)
        base = max(num_agents, int(np.max(high, initial=0)) + 1)
        low, high = np.divmod(np.unique((low * base + high)[low != high]), base)
        return cls(np.stack([np.append(low, high), np.append(high, low)]), num_agents, name)

    def __repr__(self) -> str:
        return f"Topology({self.name!r}, num_agents={self.num_agents}, num_edges={self.num_edges})"

    # -- edges -----------------------------------------------------------------------------------

    @property
    def num_edges(self) -> int:
        """Number of directed edges E."""
        return self.edges.shape[1]

    @property
    def edges(self) -> Tensor:
        """``[2, E]`` int64 on the CPU, sorted by receiver, then sender."""
        return self._edges

    def edges_on(self, device: torch.device | str) -> Tensor:
        """The edges on ``device``, cached."""
        return self._on("edges", device)

    def row_start_on(self, device: torch.device | str) -> Tensor:
        """:attr:`row_start` on ``device``, cached."""
        return self._on("row_start", device)

    def order_on(self, device: torch.device | str) -> Tensor:
        """``[E]`` int64 on ``device``, cached: the position in the input of each stored edge."""
        return self._on("order", device)

    def _on(self, name: str, device: torch.device | str) -> Tensor:
        key = name, torch.device(device)
        if key not in self._moved:
            self._moved[key] = getattr(self, name).to(device)
        return self._moved[key]

    @cached_property
    def row_start(self) -> Tensor:
        """``[N+1]`` int64: the edges into agent i are ``row_start[i]:row_start[i+1]``."""
        counts = torch.bincount(self.edges[1], minlength=self.num_agents)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @property
    def in_degree(self) -> Tensor:
        """``[N]`` int64: how many agents each agent hears."""
        return self.row_start.diff()

    @cached_property
    def reverse(self) -> Topology:
        """The same links with every direction turned round."""
        return Topology(self.edges.flip(0), self.num_agents, f"{self.name}-reversed")

    @cached_property
    def is_undirected(self) -> bool:
        """Whether every edge has its opposite."""
        a = self._adjacency()
        return (a != a.T).nnz == 0

    @cached_property
    def is_connected(self) -> bool:
        """Whether every agent can reach every other along directed edges (strong connectivity)."""
        count, _ = csgraph.connected_components(self._adjacency(), directed=True, connection="strong")
        return count == 1

    def to_networkx(self) -> nx.Graph | nx.DiGraph:
        """A networkx graph over nodes 0..N-1: undirected where every edge has its opposite."""
        graph = nx.Graph() if self.is_undirected else nx.DiGraph()
        graph.add_nodes_from(range(self.num_agents))
        graph.add_edges_from(self.edges.T.tolist())
        return graph

    # -- operators -------------------------------------------------------------------------------

    def _adjacency(self) -> sp.csr_array:
        """``A[dst, src] = 1``: row i holds the agents that i hears."""
        src, dst = self.edges.numpy()
        return sp.csr_array((np.ones(src.size), (dst, src)), shape=(self.num_agents, self.num_agents))

    def adjacency(self) -> SparseOperator:
        """``y_i = sum of x_j over the agents j that i hears``."""
        return self._cached(("adjacency",), self._adjacency)

    def laplacian(self) -> SparseOperator:
        """``L = D - A`` with in-degrees D; positive semi-definite on undirected graphs."""
        return self._cached(("laplacian",), self._laplacian)

    def _laplacian(self) -> sp.csr_array:
        a = self._adjacency()
        return sp.csr_array(sp.diags_array(a.sum(axis=1)) - a)

    def mixing(self, kind: str = "metropolis") -> SparseOperator:
        """Averaging weights ``x <- W x`` with rows that sum to one.

        Args:
            kind: ``metropolis`` 1 / (1 + max(d_i, d_j)), always aperiodic · ``mh`` 1 / max(d_i, d_j)
                (Metropolis-Hastings, the convention of CVX) · ``max_degree`` 1 / max d · ``best_constant``
                2 / (lambda_2 + lambda_n) (Xiao and Boyd 2004) · ``mean`` the plain mean of oneself and one's
                in-neighbours (row-stochastic only) · ``fdla``, ``fmmc`` the fastest weights there are, of any sign or
                none negative (:func:`coordination.topology.weights.optimal_weights`; the extra ``optimal``).

        Returns:
            The operator W; doubly stochastic except for ``mean``.

        Raises:
            ValueError: If the kind is unknown, or the graph is directed and the kind is not ``mean``.
        """
        if kind not in MIXING:
            raise ValueError(unknown("mixing", kind, MIXING))
        if kind != "mean" and not self.is_undirected:
            raise ValueError(f"mixing {kind!r} needs an undirected graph, {self.name!r} has one-way edges; use 'mean'")
        return self._cached(("mixing", kind), lambda: self._mixing(kind))

    def _mixing(self, kind: str) -> sp.csr_array:
        if kind in OPTIMAL:
            return optimal_weights(self, kind)
        a = self._adjacency()
        degree = a.sum(axis=1)
        src, dst = self.edges.numpy()
        if kind == "mean":
            weight = 1 / (1 + degree[dst])
        elif kind == "metropolis":
            weight = 1 / (1 + np.maximum(degree[src], degree[dst]))
        elif kind == "mh":
            weight = 1 / np.maximum(degree[src], degree[dst])
        elif kind == "max_degree":
            weight = np.full(src.size, 1 / max(float(np.max(degree)), 1.0))
        else:
            weight = np.full(src.size, 2 / max(sum(self._laplacian_extremes()), 1.0))  # 0 only without edges
        off = sp.csr_array((weight, (dst, src)), shape=a.shape)
        return sp.csr_array(off + sp.diags_array(1 - off.sum(axis=1)))

    def hops(self, k: int, mode: str = "sum", decay: float = 1.0) -> SparseOperator:
        """Gather over everyone within k hops upstream, oneself included.

        Args:
            k: Hop radius, at least 0.
            mode: ``sum`` weights ``decay ** distance`` · ``mean`` the same divided by its row sum.
            decay: Spatial discount per hop, in (0, 1]; 1 weighs all hops alike.
        """
        if k < 0 or mode not in ("sum", "mean") or not 0 < decay <= 1:
            raise ValueError(f"hops: need k >= 0, mode sum or mean, decay in (0, 1]; got {k}, {mode!r}, {decay}")
        return self._cached(("hops", k, mode, decay), lambda: self._hops(k, mode, decay))

    def _hops(self, k: int, mode: str, decay: float) -> sp.csr_array:
        step = (self._adjacency() + sp.eye_array(self.num_agents)).astype(bool).astype(np.float64)
        reached = sp.eye_array(self.num_agents, format="csr")
        total = reached.copy()
        for distance in range(1, k + 1):
            wider = (step @ reached).astype(bool).astype(np.float64)
            if not (wider != reached).sum():  # nobody is farther away
                break
            total = total + decay**distance * (wider - reached)
            reached = wider
        return total if mode == "sum" else sp.csr_array(sp.diags_array(1 / total.sum(axis=1)) @ total)

    def _cached(self, key: tuple, build: Callable[[], sp.csr_array]) -> SparseOperator:
        if key not in self._cache:
            self._cache[key] = SparseOperator(build())
        return self._cache[key]

    # -- spectra ---------------------------------------------------------------------------------

    def lambda2(self) -> float:
        """Algebraic connectivity: the second smallest Laplacian eigenvalue (Fiedler 1973); 0 iff disconnected."""
        return self._laplacian_extremes()[0]

    def _laplacian_extremes(self) -> tuple[float, float]:
        if not self.is_undirected:
            raise ValueError(f"the Laplacian spectrum needs an undirected graph, {self.name!r} has one-way edges")
        return laplacian_extremes(self._laplacian())

    def slem(self, kind: str = "metropolis") -> float:
        """Second largest eigenvalue modulus of the mixing matrix: the asymptotic contraction per averaging round.

        For the symmetric kinds (all but ``mean``) it is also the worst case of every single round (Xiao and Boyd 2004).
        """
        mixing, n = self.mixing(kind).matrix, self.num_agents
        if n == 1:
            return 0.0
        if kind != "mean":
            low, high = laplacian_extremes(sp.csr_array(sp.eye_array(n) - mixing))
            return max(abs(1 - low), abs(1 - high))
        if n <= DENSE_SPECTRUM:
            return float(np.abs(np.linalg.eigvals(mixing.toarray() - 1 / n)).max())
        centred = sla.LinearOperator((n, n), matvec=lambda x: mixing @ x - x.mean(), dtype=np.float64)  # type: ignore[call-arg]
        start = np.random.default_rng(0).standard_normal(n)  # fixed, so that two calls agree
        return float(np.abs(sla.eigs(centred, k=1, which="LM", v0=start, return_eigenvectors=False)).max())


def _pairs(edges: Tensor | np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Edges as an int64 array ``[2, E]``."""
    pairs = edges.cpu().numpy() if isinstance(edges, Tensor) else np.asarray(edges)
    if pairs.size == 0:
        return np.zeros((2, 0), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise ValueError(f"edges: expected [2, E], senders over receivers, got shape {pairs.shape}")
    if not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"edges: expected integers, got {pairs.dtype}")
    return pairs.astype(np.int64, copy=False)
