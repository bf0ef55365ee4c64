"""Optimal averaging weights, by semidefinite programs: the fastest linear iteration, the fastest Markov chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from coordination.topology.base import Topology

OPTIMAL = ("fdla", "fmmc")
MAX_AGENTS = 200  # a dense semidefinite program; above, best_constant or Chebyshev come closer for less


def optimal_weights(topology: Topology, kind: str) -> sp.csr_array:
    """The symmetric W on a graph's links that contracts fastest: the least ``|W - 11'/N|_2`` with ``W 1 = 1``.

    ``fdla``: fastest distributed linear averaging, weights of any sign (Xiao and Boyd 2004, eq. 18); ``fmmc``:
    fastest mixing Markov chain, no entry negative (Boyd, Diaconis and Xiao 2004, eq. 6). Solved once per topology, by
    Clarabel.

    Args:
        topology: Connected, undirected, at most 200 agents.
        kind: ``fdla`` or ``fmmc``.

    Returns:
        ``[N, N]``; rows and columns sum to one.

    Raises:
        ImportError: If cvxpy is not installed (the extra ``optimal``).
        ValueError: If the graph is too large, directed or not connected.
        RuntimeError: If the solver gives up.
    """
    n = topology.num_agents
    if n > MAX_AGENTS:
        raise ValueError(
            f"mixing {kind!r}: solved for up to {MAX_AGENTS} agents, got {n}; use 'best_constant' or Chebyshev"
        )
    if not (topology.is_undirected and topology.is_connected):
        raise ValueError(f"mixing {kind!r}: needs a connected undirected graph, {topology.name!r} is not")
    if n == 1:
        return sp.csr_array(np.ones((1, 1)))
    source, receiver = topology.edges.numpy()
    ends = np.stack([source, receiver])[:, source < receiver]
    weight = _solve(ends, n, kind)
    off = sp.csr_array((np.tile(weight, 2), np.concatenate([ends, ends[::-1]], 1)), shape=(n, n))
    return sp.csr_array(off + sp.diags_array(1 - off.sum(axis=1)))


def _solve(ends: np.ndarray, n: int, kind: str) -> np.ndarray:
    """One weight a link ``[M]``."""
    try:
        import cvxpy  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(f"mixing {kind!r} needs cvxpy: pip install 'concert-marl[optimal]'") from error
    cp: Any = cvxpy
    links = np.arange(ends.shape[1])
    incidence = np.zeros((n, ends.shape[1]))
    incidence[ends[0], links], incidence[ends[1], links] = 1, -1
    weight, factor = cp.Variable(ends.shape[1]), cp.Variable()
    deviation = np.eye(n) - 1 / n - incidence @ cp.diag(weight) @ incidence.T
    limits = [deviation << factor * np.eye(n), deviation >> -factor * np.eye(n)]
    if kind == "fmmc":
        limits += [weight >= 0, np.abs(incidence) @ weight <= 1]
    problem = cp.Problem(cp.Minimize(factor), limits)
    problem.solve(solver=cp.CLARABEL)
    if problem.status not in ("optimal", "optimal_inaccurate"):
        raise RuntimeError(f"mixing {kind!r}: the solver stopped with status {problem.status!r}")
    found = np.asarray(weight.value)
    return np.clip(found, 0, None) if kind == "fmmc" else found
