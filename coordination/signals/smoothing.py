"""Spreading rewards without changing their sum: averaging over the graph, and sharing inside coalitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from coordination.coalition import Coalitions
from coordination.consensus.links import mix
from coordination.links import at_ends
from coordination.signals.base import Trajectory
from coordination.topology import MIXING


class ConsensusSmooth:
    """A few rounds of averaging over the graph: ``r' = W^rounds r`` with doubly stochastic ``W``.

    The sum over living agents stays, because rows and columns of ``W`` sum to one (Xiao and Boyd 2004); what a dead
    neighbour would have contributed, an agent keeps for itself. Rewards come nearer to the mean by the factor
    ``topology.slem(weights)`` a round, so one to five rounds spread credit over a neighbourhood without drowning it in
    the noise of the whole team. It changes what a selfish agent wants, not the sum that a centralised learner
    maximises.

    Args:
        rounds: Rounds of averaging, at least 0; raising it spreads further.
        weights: A kind of ``Topology.mixing``; ``mean`` does not keep the sum on irregular graphs and declares so.

    On a shared topology one round is two CSR products of E + N entries per step (one for the rewards, one for who is
    alive); on graphs with links of their own O(E) gathers.

    Raises:
        ValueError: If an argument is out of range; when called, if the graph is directed (except for ``mean``).

    >>> from coordination.topology import Topology
    >>> context = Trajectory.of([3.0, 0.0, 0.0], Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3))
    >>> ConsensusSmooth(1)(context.reward, context).tolist()
    [2.0, 1.0, 0.0]
    """

    name = "consensus_smooth"
    needs: Literal["transition"] = "transition"
    policy_invariant = False

    def __init__(self, rounds: int = 3, weights: str = "metropolis") -> None:
        if not isinstance(rounds, int) or rounds < 0:
            raise ValueError(f"rounds: expected an integer of at least 0, got {rounds!r}")
        if weights not in MIXING:
            raise ValueError(f"weights: one of {', '.join(MIXING)}; got {weights!r}")
        self.rounds, self.weights = rounds, weights
        self.conserves_sum = weights != "mean"

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        graph, alive = context.graph, context.alive
        reward = torch.where(alive, reward, 0.0)
        if graph.topology is not None and graph.live is None:
            operator, living = graph.topology.mixing(self.weights), alive.to(reward.dtype)
            kept = 1 - operator(living)  # weight of dead neighbours, which stays with oneself
            for _ in range(self.rounds):
                reward = living * (operator(reward) + kept * reward)
            return reward
        both = at_ends(alive, graph, "sender") & at_ends(alive, graph, "receiver")
        for _ in range(self.rounds):
            reward = mix(reward.unsqueeze(-1), graph, self.weights, both).squeeze(-1)
        return reward


class CoalitionShare:
    """Coalitions share part of what they earn: ``r'_i = (1 - share) r_i + share * mean of r over i's coalition``.

    The sum over living agents stays. With ``share = 1`` all members of a coalition earn the same, with 0 nothing
    changes. Agents in no coalition keep their reward; dead ones count for nothing.

    Args:
        label: Where the coalitions are: the name of a tensor ``[*, N]`` or of integers in ``context.info``; a function
            of the context that returns one; or labels ``[N]`` that never change. Negative means in no coalition.
        share: Part that is shared, in [0, 1].

    O(N) per step.

    Raises:
        ValueError: If ``share`` is out of range; when called, if the labels are missing or have another shape.

    >>> context = Trajectory.of([1.0, 3.0, 5.0])
    >>> CoalitionShare([0, 0, 1], share=1.0)(context.reward, context).tolist()
    [2.0, 2.0, 5.0]
    """

    name = "coalition_share"
    needs: Literal["transition"] = "transition"
    conserves_sum = True
    policy_invariant = False

    def __init__(
        self,
        label: str | Sequence[int] | Tensor | Callable[[Trajectory], Tensor] = "coalition",
        share: float = 0.5,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share: must be in [0, 1], got {share}")
        self.label, self.share = label, share

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        label = torch.where(context.alive, self._labels(context), -1)
        pooled = Coalitions(label).pool(torch.where(context.alive, reward, 0.0))
        return torch.where(label >= 0, torch.lerp(reward, pooled, self.share), reward)

    def _labels(self, context: Trajectory) -> Tensor:
        if isinstance(self.label, str):
            if self.label not in context.info:
                known = ", ".join(context.info) or "nothing"
                raise ValueError(f"label: the context's info has no {self.label!r}; it holds {known}")
            label = context.info[self.label]
        elif callable(self.label):
            label = self.label(context)
        else:
            label = torch.as_tensor(self.label).to(context.reward.device, non_blocking=True)
        if label.shape not in (context.reward.shape, context.reward.shape[-1:]):
            raise ValueError(f"label: expected {tuple(context.reward.shape)} or [N], got {tuple(label.shape)}")
        return label.long()
