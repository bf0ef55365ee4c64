"""Changes of the objective, declared as such: the price of communication, and weighted objectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from coordination.channel.ledger import sum_by
from coordination.links import at_ends, endpoints
from coordination.signals.base import Trajectory


class CommCost:
    """What agents send costs them: ``r'_i = r_i - price * count_i``.

    Args:
        price: Reward per unit counted, at least 0.
        count: Name of a tensor ``[*, N]`` in ``context.info`` that says how much each agent sent, such as the bits of a
            channel's ledger per step; None counts, for every acting agent, its links that are up to living agents.

    A real change of the objective: with a price, silence can be optimal. O(E) per step without ``count``, else O(N).

    Raises:
        ValueError: If ``price`` is negative; when called, if ``count`` is not there.

    >>> context = Trajectory.of([1.0, 1.0], info={"bits_sent": [8, 0]})
    >>> CommCost(0.125, "bits_sent")(context.reward, context).tolist()
    [0.0, 1.0]
    """

    name = "comm_cost"
    needs: Literal["transition"] = "transition"
    conserves_sum = False
    policy_invariant = False

    def __init__(self, price: float, count: str | None = None) -> None:
        if not price >= 0:
            raise ValueError(f"price: must not be negative, got {price}")
        self.price, self.count = price, count

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        sent = _links_up(context) if self.count is None else _from_info(self.count, context)
        return reward - self.price * sent.to(reward.dtype)


class Objectives:
    """Several objectives in one: ``r' = weights["reward"] r + sum over names of weights[name] info[name]``.

    Linear scalarisation: its optima are Pareto-optimal for positive weights, and reach the convex hull of the Pareto
    front only (Roijers et al. 2013). ``weights["reward"]`` is 1 if not given; everything else is taken from
    ``context.info``, ``[*]`` values counting for every living agent.

    Args:
        weights: Weight of each objective; negative for costs.

    Raises:
        ValueError: If no weight is given; when called, if an objective is not there.

    >>> context = Trajectory.of([1.0, 2.0], info={"collisions": [1.0, 0.0]})
    >>> Objectives({"reward": 2.0, "collisions": -1.0})(context.reward, context).tolist()
    [1.0, 4.0]
    """

    name = "objectives"
    needs: Literal["transition"] = "transition"
    conserves_sum = False
    policy_invariant = False

    def __init__(self, weights: Mapping[str, float]) -> None:
        if not weights:
            raise ValueError("weights: expected at least one objective, got none")
        self.weights = dict(weights)

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        total = self.weights.get("reward", 1.0) * reward
        for name, weight in self.weights.items():
            if name != "reward":
                total = total + weight * torch.where(context.alive, _from_info(name, context).to(reward.dtype), 0.0)
        return total


def _from_info(name: str, context: Trajectory) -> Tensor:
    """A tensor of the context's info as ``[*, N]``."""
    if name not in context.info:
        known = ", ".join(context.info) or "nothing"
        raise ValueError(f"signals: the context's info has no {name!r}; it holds {known}")
    value = context.info[name]
    shape = context.reward.shape
    if value.shape == shape:
        return value
    if value.shape == shape[:-1]:
        return value.unsqueeze(-1).expand(shape)
    raise ValueError(f"info {name!r}: expected {tuple(shape)} or {tuple(shape[:-1])}, got {tuple(value.shape)}")


def _links_up(context: Trajectory) -> Tensor:
    """``[*, N]`` int64: links of every acting agent that are up and lead to living agents."""
    graph, alive = context.graph, context.alive
    chose = context.acting & alive
    carries = at_ends(chose, graph, "sender") & at_ends(alive, graph, "receiver")
    up = graph.up()
    carries = carries if up is None else carries & up
    return sum_by(carries.long(), endpoints(graph, alive.device)[0], graph.num_agents)
