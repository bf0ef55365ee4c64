"""Credit on a graph: every agent is given the rewards of those its actions reach."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from coordination.arrays import Array, as_float
from coordination.topology import Topology

Normalisation = Literal["unbiased", "conserve"]


def hop_credit(
    reward: Array,
    topology: Topology,
    k: int,
    *,
    normalisation: Normalisation,
    decay: float = 1.0,
    alive: Array | None = None,
) -> Tensor:
    """Rewards of the agents at most k hops downstream.

    ``r'_i = sum over j of M_ij r_j`` with ``M_ij = decay^distance(i -> j)``. Where transitions are local, the rewards
    of agents further away hardly depend on i's action (:func:`truncation_bound`), and leaving them out takes their
    noise from i's gradient (Qu, Wierman and Li 2020, arXiv:1912.02906). ``decay`` < 1 is the spatial discount of Chu,
    Chinchali and Katti 2020 (arXiv:2004.01339). Distances are those of the whole graph, whoever is alive.

    Args:
        reward: ``[*, N]``.
        topology: Edges point from who influences to who is influenced.
        k: Hops; raising it lowers bias and raises variance.
        normalisation: ``unbiased`` weights as they are: the gradient of the team's return up to the truncation; the
            sum over agents is not kept · ``conserve`` each reward is split among those who get a part of it, in
            proportion to their weights: the sum over agents is kept on every graph, rewards of agents with many
            neighbours count less. For doubly stochastic averaging see :func:`smooth`.
        decay: Weight per hop in (0, 1].
        alive: ``[*, N]`` bool; the dead give and get nothing.

    Returns:
        ``[*, N]``. One sparse product of O(entries of M); M is built once a topology.

    >>> line = Topology([[0, 1], [1, 2]], 3)
    >>> hop_credit(torch.tensor([1.0, 2.0, 4.0]), line, 1, normalisation="unbiased").tolist()
    [3.0, 6.0, 4.0]
    """
    if normalisation not in ("unbiased", "conserve"):
        raise ValueError(f"normalisation: unbiased or conserve, got {normalisation!r}")
    reward = as_float(reward)
    gather = topology.reverse.hops(k, decay=decay)
    if alive is not None:
        alive = torch.as_tensor(alive, device=reward.device)
        reward = torch.where(alive, reward, 0.0)
    if normalisation == "conserve":
        ones = reward.new_ones(reward.shape[-1]) if alive is None else alive.to(reward.dtype)
        receivers = topology.hops(k, decay=decay)(ones)
        reward = reward / receivers.clamp(min=torch.finfo(reward.dtype).tiny)
    credit = gather(reward)
    return credit if alive is None else torch.where(alive, credit, 0.0)


def smooth(reward: Array, topology: Topology, rounds: int) -> Tensor:
    """``r' = W^rounds r`` with Metropolis weights: doubly stochastic, so sums and constant rewards both stay.

    Reaches ``rounds`` hops. Rewards are averaged, not added: against the sum over k hops the scale is smaller, the
    direction of the gradient nearly the same. O(rounds E), W is never multiplied out. Needs an undirected graph.

    Averaging as in Xiao and Boyd (2004).

    Args:
        reward: ``[*, N]``.
        topology: Undirected graph.
        rounds: Averaging rounds, at least 0.

    >>> smooth(torch.tensor([3.0, 0.0]), Topology([[0, 1], [1, 0]], 2), 1).tolist()
    [1.5, 1.5]
    """
    if rounds < 0:
        raise ValueError(f"rounds: must not be negative, got {rounds}")
    reward = as_float(reward)
    mixing = topology.mixing("metropolis")
    for _ in range(rounds):
        reward = mixing(reward)
    return reward


def truncation_bound(reward_max: float, gamma: float, k: int, rho: float | None = None) -> float:
    """How much ``Q_i`` can depend on agents further than k hops: ``c rho^(k + 1)``, ``c = reward_max / (1 - gamma)``.

    Exponential decay property of Qu, Wierman and Li 2020 (arXiv:1912.02906, definition 1); with ``rho = gamma`` it
    holds whenever agents react to direct neighbours only.

    O(1).

    Args:
        reward_max: Largest absolute reward of one agent, or its range for differences.
        gamma: Discount in [0, 1).
        k: Hops kept.
        rho: Decay per hop, at most gamma; None for gamma.

    >>> round(truncation_bound(1.0, 0.9, 1), 4)
    8.1
    """
    if not 0 <= gamma < 1 or k < 0:
        raise ValueError(f"truncation_bound: needs gamma in [0, 1) and k >= 0, got {gamma}, {k}")
    return reward_max / (1 - gamma) * (gamma if rho is None else rho) ** (k + 1)
