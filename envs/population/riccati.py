"""The optimum of linear-quadratic consensus on a topology: one scalar Riccati equation for each Laplacian eigenvalue.

``x <- x + u`` with cost ``x^T L x + r u^T u`` keeps the eigenvectors of L apart. In the mode of eigenvalue lambda
the cost to go is ``p x^2`` with ``p = lambda + r p / (r + p)``, so ``p = (lambda + sqrt(lambda^2 + 4 lambda r)) / 2``;
the best push is ``-p / (r + p) x``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from coordination.topology import Topology
from envs.base import View
from envs.spec import AgentSpec

MAX_DENSE = 4_000  # modules up to which a dense spectrum is computed: some ten seconds


def cost_to_go(eigenvalue: np.ndarray, control_cost: float = 1.0, steps: int | None = None) -> np.ndarray:
    """``[...]`` least cost of a unit value in the mode of each Laplacian eigenvalue.

    Args:
        eigenvalue: ``[...]`` of the Laplacian, not negative.
        control_cost: r, above 0.
        steps: Length of the episode; None for one without end.

    >>> cost_to_go(np.array([0.0, 0.5, 4.0])).round(4).tolist()
    [0.0, 1.0, 4.8284]
    """
    if steps is None:
        return (eigenvalue + np.sqrt(eigenvalue**2 + 4 * control_cost * eigenvalue)) / 2
    p = np.zeros_like(eigenvalue)
    for _ in range(steps):
        p = eigenvalue + control_cost * p / (control_cost + p)
    return p


def optimal_cost(topology: Topology, control_cost: float = 1.0, steps: int | None = None) -> float:
    """Least expected cost per module when values start standard normal: the mean of ``cost_to_go`` over the spectrum.

    Args:
        topology: Undirected; any up to 4,000 modules, of any size if all places are alike (rings).
        control_cost, steps: As in :func:`cost_to_go`.

    Raises:
        ValueError: If the spectrum is out of reach, or the topology is directed.
    """
    return float(cost_to_go(spectrum(topology), control_cost, steps).mean())


def optimal_gain(topology: Topology, control_cost: float = 1.0, hops: int | None = None) -> np.ndarray:
    """``[N, N]`` matrix K of the best stationary push ``u = -K x``, or what is left of it within so many hops.

    Entries of modules farther apart than ``hops`` are dropped and the diagonal is changed so that rows sum to zero as
    they did: a feasible policy for modules that know their neighbourhood only, which one learned for it should reach.

    Args:
        topology: Undirected, at most 4,000 modules.
        control_cost: r, above 0.
        hops: Radius, from 1 up; None for everyone.

    Raises:
        ValueError: As in :func:`optimal_cost`.
    """
    value, vector = np.linalg.eigh(_laplacian(topology))
    p = cost_to_go(value.clip(min=0), control_cost)
    gain = (vector * (p / (control_cost + p))) @ vector.T
    if hops is not None:
        gain = gain * (topology.hops(hops).matrix.toarray() > 0)
        gain -= np.diag(gain.sum(1))
    return gain


def cost_of_gain(gain: np.ndarray, topology: Topology, control_cost: float = 1.0, steps: int = 10_000) -> float:
    """Expected cost per module of ``u = -K x`` when values start standard normal.

    ``sum_t tr(M_t^T (L + r K^T K) M_t) / N`` with ``M_t = (I - K)^t``, by doubling: j rounds sum 2^j steps.

    Args:
        gain: ``[N, N]`` K.
        topology: Undirected, at most 4,000 modules.
        control_cost: r, above 0.
        steps: At least so many are summed, up to the next power of two.
    """
    total = _laplacian(topology) + control_cost * gain.T @ gain
    step = np.eye(topology.num_agents) - gain
    for _ in range(int(np.ceil(np.log2(steps)))):
        total, step = total + step.T @ total @ step, step @ step
    return float(np.trace(total)) / topology.num_agents


def spectrum(topology: Topology) -> np.ndarray:
    """``[N]`` eigenvalues of the Laplacian: by the Fourier transform where all places are alike, else dense.

    Raises:
        ValueError: If the topology is directed, or is neither circulant nor of at most 4,000 modules.
    """
    n = topology.num_agents
    offsets = _offsets(topology)
    if offsets is None:
        return np.linalg.eigvalsh(_laplacian(topology)).clip(min=0)
    row = np.zeros(n)
    row[0], row[offsets] = offsets.size, -1.0
    return np.fft.fft(row).real.clip(min=0)


def riccati(view: View, agents: AgentSpec, control_cost: float = 1.0) -> Tensor:
    """The best stationary pushes, for a long horizon and a topology on which nothing happens; a scripted policy.

    Args:
        view: Of :class:`~envs.population.lq_consensus.LQConsensus`, with the environment's own graph.
        agents: Who they are.
        control_cost: That of the environment.

    Returns:
        ``[*, N, 1]``.

    Raises:
        ValueError: If the graph of the view is not one topology for all, or its spectrum is out of reach.
    """
    topology = view.graph.topology
    if topology is None:
        raise ValueError("riccati: needs one topology for all copies; this graph has edges of each sample's own")
    value = torch.where(view.alive, view.obs[..., 0], 0.0)
    gain = _gain(topology, control_cost).to(value)
    if gain.ndim == 2:
        return -(value @ gain).unsqueeze(-1)
    return -torch.fft.irfft(torch.fft.rfft(value) * gain, n=topology.num_agents).unsqueeze(-1)


@lru_cache(maxsize=16)
def _gain(topology: Topology, control_cost: float) -> Tensor:
    """The best gain: of each Fourier mode, ``[N // 2 + 1]``, where all places are alike, else ``[N, N]``."""
    if _offsets(topology) is None:
        return torch.from_numpy(optimal_gain(topology, control_cost))
    p = cost_to_go(spectrum(topology)[: topology.num_agents // 2 + 1], control_cost)
    return torch.from_numpy(p / (control_cost + p))


@lru_cache(maxsize=16)
def _offsets(topology: Topology) -> np.ndarray | None:
    """``[D]`` whom everybody hears, as ``(sender - receiver) mod N``; None where places differ."""
    n = topology.num_agents
    sender, receiver = topology.edges.numpy()
    first = (sender[receiver == 0] - receiver[receiver == 0]) % n
    if first.size * n != topology.num_edges or not topology.is_undirected:
        return None
    found, counts = np.unique((sender - receiver) % n, return_counts=True)
    return first if found.size == first.size and (counts == n).all() else None


def _laplacian(topology: Topology) -> np.ndarray:
    if not topology.is_undirected:
        raise ValueError(f"spectrum: needs an undirected topology, {topology.name!r} has one-way edges")
    if topology.num_agents > MAX_DENSE:
        raise ValueError(
            f"spectrum: {topology.num_agents} modules are too many unless all places are alike; "
            f"choose a ring, or at most {MAX_DENSE} modules"
        )
    return topology.laplacian().matrix.toarray()
