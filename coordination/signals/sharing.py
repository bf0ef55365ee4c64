"""Who gets whose reward: one's own, the team's, or that of the agents within reach on the graph."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from coordination.credit import hop_credit, truncation_bound
from coordination.graph import Graph
from coordination.signals.base import Trajectory, team_sum
from coordination.topology import Topology


class Local:
    """Every agent keeps its own reward: ``r'_i = r_i``.

    >>> Local()(torch.tensor([1.0, 2.0]), Trajectory.of([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    name = "local"
    needs: Literal["transition"] = "transition"
    conserves_sum = True
    policy_invariant = True

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """The same ``[*, N]``."""
        return reward


class Team:
    """Every agent gets the sum of its team: ``r'_i = sum of r_j over the living agents j of i's team``.

    The team objective itself, unbiased and noisy: the standard deviation of an agent's gradient grows with N.
    The sum over agents is multiplied by the team's size, so it is not conserved. O(N).

    >>> Team()(torch.tensor([1.0, 2.0, 4.0]), Trajectory.of([1.0, 2.0, 4.0], team=[0, 1, 0])).tolist()
    [5.0, 2.0, 5.0]
    """

    name = "team"
    needs: Literal["transition"] = "transition"
    conserves_sum = False
    policy_invariant = False

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        return team_sum(reward, context)[..., context.team.to(reward.device, non_blocking=True)]


class KHop:
    """Every agent gets the rewards of the agents it can reach in k hops: ``r'_i = sum_j M_ij r_j``.

    ``M_ij = decay ** d(i, j)`` for the agents j at most k hops downstream of i (messages and influence go from sender
    to receiver), i itself included. With local transitions the reward of an agent further away depends on i's present
    action by at most ``c rho ** (k + 1)`` (Qu, Wierman and Li 2020, arXiv:1912.02906; see :meth:`bias_bound`), so the
    sum is a nearly unbiased and far less noisy stand-in for the team reward; ``decay`` < 1 is the spatial discount of
    Chu et al. 2020 (arXiv:2004.01339). Distances are those of the graph, whoever is alive; the rewards of dead agents
    count for nothing. Link weights are not used.

    Args:
        k: Hops; raising it lowers the bias and raises the variance.
        mode: ``sum`` unbiased up to the bound · ``mean`` divided by the weight of the living agents within reach, for a
            scale that does not depend on degree · ``conserve`` every reward is split among those that get it, so the
            sum over agents stays. Only ``conserve`` declares ``conserves_sum``.
        decay: Weight per hop in (0, 1].

    Cost: one sparse product of ``nnz(M)`` per step on a shared topology, whose operator is built once. A graph with
    links of its own per sample pays for building the operator at each call.

    >>> context = Trajectory.of([1.0, 10.0, 100.0], Topology([[0, 1], [1, 2]], 3))
    >>> KHop(1)(context.reward, context).tolist()
    [11.0, 110.0, 100.0]
    """

    name = "khop"
    needs: Literal["transition"] = "transition"
    policy_invariant = False

    def __init__(self, k: int = 1, mode: Literal["sum", "mean", "conserve"] = "sum", decay: float = 1.0) -> None:
        if not isinstance(k, int) or k < 0:
            raise ValueError(f"k: expected an integer of at least 0, got {k!r}")
        if mode not in ("sum", "mean", "conserve"):
            raise ValueError(f"mode: expected sum, mean or conserve, got {mode!r}")
        if not 0 < decay <= 1:
            raise ValueError(f"decay: must be in (0, 1], got {decay}")
        self.k, self.mode, self.decay = k, mode, decay
        self.conserves_sum = mode == "conserve"

    def bias_bound(self, reward_max: float, gamma: float, rho: float | None = None) -> float:
        """``c rho ** (k + 1)`` with ``c = reward_max / (1 - gamma)``: how far a truncated value can be off.

        Qu, Wierman and Li 2020, arXiv:1912.02906; holds for transitions that depend on direct
        neighbours only.

        Args:
            reward_max: Largest absolute reward of one agent.
            gamma: Discount in [0, 1).
            rho: Decay of influence per hop, at most gamma; None takes gamma, which always holds.

        >>> round(KHop(2).bias_bound(1.0, 0.9), 4)
        7.29
        """
        return truncation_bound(reward_max, gamma, self.k, rho)

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        topology, flat = _static(context.graph, reward)
        alive, rows = (x.reshape(-1) if flat else x for x in (context.alive, reward))
        normalisation = "conserve" if self.mode == "conserve" else "unbiased"
        gather = partial(
            hop_credit, topology=topology, k=self.k, normalisation=normalisation, decay=self.decay, alive=alive
        )
        result = gather(rows)
        if self.mode == "mean":
            result = result / torch.where(alive, gather(torch.ones_like(rows)), 1.0)
        return result.reshape(reward.shape)


def _static(graph: Graph, like: Tensor) -> tuple[Topology, bool]:
    """A topology to gather over, and whether it is the disjoint union over all samples."""
    if graph.topology is not None and graph.live is None:
        return graph.topology, False
    batch = like.numel() // graph.num_agents
    nodes = batch * graph.num_agents
    edges = graph.flat(batch)[0].cpu().unique(dim=1) if batch else torch.zeros(2, 0)
    inside = (edges < nodes).all(0)
    return Topology(edges[:, inside], nodes, "union"), True
