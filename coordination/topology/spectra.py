"""Extreme eigenvalues of weighted Laplacians: how fast a network can agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.sparse import csgraph

DENSE_SPECTRUM = 1000  # up to here eigenvalues come from a dense solver, exact to rounding
RESTARTS = 40  # of Lanczos with 40 vectors: enough for expanders, while lattices would need thousands
FACTOR_ENTRIES = 10**8  # N times bandwidth up to which a factorisation is cheap (a torus of 100,000: 6e7)
CLUSTER_TOL = 1e-4  # relative residual of a largest eigenvalue in a cluster; its own error is about 1e-5


def laplacian_extremes(laplacian: sp.csr_array) -> tuple[float, float]:
    """Second smallest and largest eigenvalue of a symmetric weighted Laplacian (zero row sums).

    Dense up to 1,000 agents. Above, Lanczos iterations; where they converge slowly because eigenvalues cluster (rings,
    grids, trees), lambda_2 comes from a sparse factorisation and lambda_n is accurate to about 1e-5.

    Args:
        laplacian: ``[N, N]`` ``D - A``, positive semi-definite.

    Returns:
        ``(lambda_2, lambda_n)``; both 0 for one agent, lambda_2 exactly 0 where the graph is disconnected.
    """
    n = laplacian.shape[0]  # type: ignore[index]
    if n == 1 or laplacian.nnz == 0:
        return 0.0, 0.0
    connected = csgraph.connected_components(laplacian, directed=False, return_labels=False) == 1
    if n <= DENSE_SPECTRUM:
        values = np.linalg.eigvalsh(laplacian.toarray())
        return float(values[1]) if connected else 0.0, float(values[-1])
    high = _largest(laplacian)
    return _fiedler_value(laplacian, high) if connected else 0.0, high


def _largest(laplacian: sp.csr_array) -> float:
    try:
        return _top(laplacian, restarts=RESTARTS)
    except sla.ArpackNoConvergence:
        return _top(laplacian, tol=CLUSTER_TOL)


def _fiedler_value(laplacian: sp.csr_array, high: float) -> float:
    """lambda_2 of a connected graph whose largest eigenvalue is ``high``."""

    def flipped(x: np.ndarray) -> np.ndarray:
        return high * (x - x.mean()) - laplacian @ x  # eigenvalues high - lambda, and 0 for the constant vector

    operator = _operator(flipped, laplacian)
    try:
        return high - _top(operator, restarts=RESTARTS)
    except sla.ArpackNoConvergence:
        return 1 / _top(_inverse(laplacian)) if _factorises(laplacian) else high - _top(operator, tol=1e-9)


def _factorises(laplacian: sp.csr_array) -> bool:
    """Whether elimination stays sparse: trees, and graphs of small bandwidth such as rings and grids."""
    n = laplacian.shape[0]  # type: ignore[index]
    if laplacian.nnz - n == 2 * (n - 1):
        return True
    place = np.argsort(csgraph.reverse_cuthill_mckee(laplacian, symmetric_mode=True))
    row, column = laplacian.nonzero()
    return bool(np.abs(place[row] - place[column]).max() * n <= FACTOR_ENTRIES)


def _inverse(laplacian: sp.csr_array) -> sla.LinearOperator:
    """The pseudo-inverse: solve with one agent held at zero, then take the mean out."""
    grounded = sla.splu(laplacian[1:, 1:].tocsc())

    def solve(b: np.ndarray) -> np.ndarray:
        x = np.append(0.0, grounded.solve((b - b.mean())[1:]))
        return x - x.mean()

    return _operator(solve, laplacian)


def _operator(product: Callable[[np.ndarray], np.ndarray], like: sp.csr_array) -> sla.LinearOperator:
    return sla.LinearOperator(like.shape, matvec=product, dtype=np.float64)  # type: ignore[call-arg]


def _top(matrix: sp.csr_array | sla.LinearOperator, tol: float = 0.0, restarts: int | None = None) -> float:
    """The largest eigenvalue, from a fixed start, so that two calls agree."""
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])  # type: ignore[index]
    found = sla.eigsh(matrix, 1, which="LA", v0=start, ncv=40, maxiter=restarts, tol=tol, return_eigenvectors=False)  # type: ignore[arg-type]
    return float(np.max(found))
