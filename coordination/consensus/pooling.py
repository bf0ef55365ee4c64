"""Log-linear pooling: one distribution out of many, at once or by consensus on natural parameters.

``q(x) ~ prod_i p_i(x)^{w_i}`` with weights that sum to one minimises ``sum_i w_i KL(q | p_i)`` (Abbas 2009), and
pooling commutes with Bayes updates on shared evidence (externally Bayesian, Genest 1984). In an exponential family
natural parameters are averaged, so agents pool by averaging them over a graph.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from coordination.arrays import Array, as_float
from coordination.consensus.averaging import Averages, Averaging
from coordination.graph import Graph
from coordination.topology.base import Topology


def _shares(weights: Array | None, like: Tensor) -> Tensor:
    """Weights ``[*, N]`` that sum to one."""
    if weights is None:
        return like.new_full(like.shape, 1 / like.shape[-1])
    weights = torch.as_tensor(weights).to(like)
    if bool((weights < 0).any()) or bool((weights.sum(-1) <= 0).any()):
        raise ValueError("weights: must not be negative, and some must be positive")
    return (weights / weights.sum(-1, keepdim=True)).expand(like.shape)


def log_linear_pool(log_prob: Array, weights: Array | None = None) -> tuple[Tensor, Tensor]:
    """Pool categorical distributions: ``log q = sum_i w_i log p_i - log Z``.

    An outcome that one agent with positive weight rules out is ruled out. O(N K).

    The logarithmic opinion pool (Genest and Zidek 1986).

    Args:
        log_prob: ``[*, N, K]`` normalised log-probabilities; -inf rules an outcome out.
        weights: ``[*, N]`` trust in each agent, scaled to sum to one; equal if None. A dead agent has weight zero.

    Returns:
        ``log q [*, K]`` and ``log Z [*]``, which is 0 if all agree and falls with disagreement.

    Raises:
        ValueError: If a weight is negative or together they rule everything out.

    >>> q, log_z = log_linear_pool(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]).log())
    >>> q.exp(), log_z.exp()
    (tensor([0.3374, 0.4417, 0.2209]), tensor(0.7842))
    """
    log_prob = as_float(log_prob)
    share = _shares(weights, log_prob[..., 0]).unsqueeze(-1)
    pooled = torch.where(share > 0, share * torch.where(share > 0, log_prob, 0.0), 0.0).sum(-2)
    log_z = pooled.logsumexp(-1)
    if bool((log_z == -torch.inf).any()):
        raise ValueError("log_prob: together the agents rule out every outcome")
    return pooled - log_z.unsqueeze(-1), log_z


def gaussian_pool(mean: Array, variance: Array, weights: Array | None = None) -> tuple[Tensor, Tensor]:
    """Pool Gaussians: precisions ``1/v_i`` and ``m_i / v_i``, the natural parameters, are averaged.

    ``1/v = sum_i w_i / v_i`` and ``m = v sum_i w_i m_i / v_i``, the log-linear pool of normal densities (Genest and
    Zidek 1986). O(N D).

    Args:
        mean: ``[*, N, D]``.
        variance: ``[*, N, D]`` of independent coordinates, positive.
        weights: ``[*, N]`` trust in each agent, scaled to sum to one; equal if None.

    Returns:
        Mean and variance of the pool, each ``[*, D]``.

    >>> gaussian_pool(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [4.0]]))
    (tensor([0.8000]), tensor([1.6000]))
    """
    mean, variance = as_float(mean), as_float(variance)
    if bool((variance <= 0).any()):
        raise ValueError("variance: must be positive")
    share = _shares(weights, mean[..., 0]).unsqueeze(-1)
    precision = (share / variance).sum(-2)
    return (share * mean / variance).sum(-2) / precision, 1 / precision


@dataclasses.dataclass(frozen=True, eq=False)
class LogLinearPool(Averaging):
    """Log-linear pooling over a graph: averaging of log-probabilities ``[*, N, K]``, normalised where they are read.

    Every agent's distribution tends to the equally weighted pool of all, as fast as plain averaging. Weights and
    losses as in :class:`Averaging`. O(E K) a round. For trust w_i, start from ``N w_i log p_i``.

    >>> pair = Topology([[0, 1], [1, 0]], 2)
    >>> protocol = LogLinearPool()
    >>> state = protocol.init(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]).log(), pair)
    >>> protocol.value(protocol.step(state, pair))[0].exp()
    tensor([0.3374, 0.4417, 0.2209])
    """

    def init(self, x: Tensor, graph: Topology | Graph) -> Averages:
        """See :meth:`Consensus.init`.

        Raises:
            ValueError: If a log-probability is infinite: mix in a little of the uniform distribution first.
        """
        if not bool(x.isfinite().all()):
            raise ValueError("x: log-probabilities must be finite; mix in a little of the uniform distribution first")
        return super().init(x, graph)

    def value(self, state: Averages) -> Tensor:
        """``[*, N, K]`` normalised log-probabilities."""
        return state.value.log_softmax(-1)

    def message(self, state: Averages) -> Tensor:
        """``[*, N, K]`` log-probabilities as they are averaged, not normalised."""
        return state.value
