"""Best response of one agent at a time: join the neighbouring coalition that gains most, until nobody wants to move.

One loop serves hedonic games and community detection: the gain of agent i in coalition C is ``sum of w_ij over j in C
- resolution * m_i * (mass of C without i)``. With masses 0 this is an additively separable hedonic game; with masses
``k_i / sqrt(2 m)`` it is modularity. The potential ``sum over pairs inside coalitions of (w_ij - resolution m_i m_j)``
rises with every move by the mover's gain, so the loop ends (Bogomolnaia and Jackson 2002).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from coordination.arrays import as_numpy
from coordination.coalition.compiled import compiled

COMPILE_FROM = 50_000  # edges: below, compiling takes longer than the plain loop


def symmetric_links(edges: torch.Tensor, weight: torch.Tensor, num_agents: int) -> sp.csr_array:
    """Pairs ``[2, E]`` with weights ``[E]`` as a symmetric matrix ``[N, N]``; a pair given twice adds up."""
    a, b = edges.cpu().numpy()
    w = as_numpy(weight)
    links = sp.coo_array((np.r_[w, w], (np.r_[a, b], np.r_[b, a])), shape=(num_agents, num_agents)).tocsr()
    links.sum_duplicates()
    return links


def random_order(n: int, generator: torch.Generator) -> np.ndarray:
    """``[n]`` a permutation, drawn on the generator's device."""
    return torch.randperm(n, generator=generator, device=generator.device).cpu().numpy()


def move_to_rest(
    links: sp.csr_array,
    label: np.ndarray,
    order: np.ndarray,
    mass: np.ndarray | None = None,
    resolution: float = 0.0,
    max_passes: int = 1_000,
) -> np.ndarray:
    """Let agents move in ``order`` until a whole pass moves nobody. O(E) a pass.

    Args:
        links: ``[N, N]`` symmetric weights.
        label: ``[N]`` start, in 0..N-1.
        order: ``[N]`` who moves when, the same in every pass.
        mass: ``[N]`` masses m_i; None for zeros.
        resolution: What a unit of mass next to a unit of mass costs; raising it makes coalitions smaller.
        max_passes: A safeguard; the loop ends by itself.

    Returns:
        Labels ``[N]``.

    Raises:
        RuntimeError: If ``max_passes`` were not enough.
    """
    n = label.size
    mass = np.zeros(n) if mass is None else mass.astype(np.float64)
    tolerance = 1e-12 * max(float(np.abs(links.data).max(initial=0.0)), 1e-300)
    total, count = np.bincount(label, mass, minlength=n), np.bincount(label, minlength=n)
    fixed = [links.indptr.astype(np.int64), links.indices.astype(np.int64), links.data, mass, order]
    state = [label.astype(np.int64), total, count, np.zeros(n), np.ones(n, dtype=np.bool_)]
    loop: Callable | None = compiled(_pass) if links.nnz > COMPILE_FROM else None
    if loop is None:  # plain loops are faster over lists than over arrays
        loop, fixed, state = _pass, [x.tolist() for x in fixed], [x.tolist() for x in state]
    everybody, everybody_awake = True, state[-1].copy()
    for _ in range(max_passes):
        empty = np.flatnonzero(np.asarray(state[2]) == 0)[::-1].copy()
        moved = loop(*fixed, *state, empty, resolution, tolerance)
        if not moved and everybody:
            return np.asarray(state[0])
        everybody = not moved  # agents whose neighbours rest are looked at again only when nobody else moves
        if everybody:
            state[-1] = everybody_awake.copy()
    raise RuntimeError(f"move_to_rest: still moving after {max_passes} passes; raise max_passes")


def _pass(indptr, indices, weight, mass, order, label, total, count, toward, awake, empty, resolution, tolerance):
    """One pass over the agents awake, changing label, total, count and awake in place; returns how many moved.

    A plain loop that numba can compile. ``toward`` is N zeros to work with; ``empty`` lists unused labels. Agents fall
    asleep when looked at, and wake when a neighbour moves.
    """
    moved = 0
    spare = len(empty)
    for i in order:
        if not awake[i]:
            continue
        awake[i] = False
        own = label[i]
        for e in range(indptr[i], indptr[i + 1]):
            if indices[e] != i:
                toward[label[indices[e]]] += weight[e]
        stay = toward[own] - resolution * mass[i] * (total[own] - mass[i])
        best, gain = own, stay + tolerance
        for e in range(indptr[i], indptr[i + 1]):
            c = label[indices[e]]
            if c != own:
                here = toward[c] - resolution * mass[i] * total[c]
                if here > gain or (here == gain and best != own and c < best):
                    best, gain = c, here
        if gain < 0.0 and count[own] > 1 and spare > 0:  # alone is worth 0
            spare -= 1
            best = empty[spare]
        for e in range(indptr[i], indptr[i + 1]):
            toward[label[indices[e]]] = 0.0
        if best != own:
            total[own] -= mass[i]
            count[own] -= 1
            total[best] += mass[i]
            count[best] += 1
            label[i] = best
            moved += 1
            for e in range(indptr[i], indptr[i + 1]):
                awake[indices[e]] = True
    return moved
