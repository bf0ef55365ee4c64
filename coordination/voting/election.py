"""Leader election by flooding: every agent learns who has the highest priority."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.channel import Channel, Stage
from coordination.consensus import Extremum, run
from coordination.graph import Graph
from coordination.topology.base import Topology


@dataclasses.dataclass(frozen=True, eq=False)
class Election:
    """Outcome of :func:`elect_leader`.

    Attributes:
        leader: ``[*, N]`` int64 whom each agent believes to lead; -1 for dead agents.
        agreed: ``[*]`` bool: all living agents believe in the same.
        rounds: Rounds of messages.
    """

    leader: Tensor
    agreed: Tensor
    rounds: int


def elect_leader(
    priority: Array,
    graph: Topology | Graph,
    *,
    rounds: int | None = None,
    alive: Array | None = None,
    ids: Array | None = None,
    channel: Channel | Stage | None = None,
    generator: torch.Generator | None = None,
) -> Election:
    """Max consensus on (priority, smallest id): after diameter rounds everyone knows the same leader.

    The FloodMax algorithm (Lynch 1996, section 4.1). Lost messages delay it. It trusts what agents say: one that lies
    about its priority is elected.

    Args:
        priority: ``[*, N]`` who should lead; no NaN among the living.
        graph: Who hears whom.
        rounds: How many rounds, the diameter or a bound on it; None: until all agree and one more, which shows it.
        alive: ``[*, N]`` bool; dead agents neither vote nor lead.
        ids: ``[N]`` or ``[*, N]`` distinct numbers that break ties; the agents' places if None.
        channel: Loses messages, as in :func:`coordination.consensus.run`.
        generator: For the channel.

    Returns:
        Beliefs, and whether they agree. O(N log N) once and O(E) a round.

    Raises:
        ValueError: If a priority is NaN, or without ``rounds`` the living are not connected.

    >>> line = Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3)
    >>> elect_leader(torch.tensor([1.0, 5.0, 5.0]), line).leader
    tensor([1, 1, 1])
    """
    priority = torch.as_tensor(priority)
    number = torch.arange(priority.shape[-1], device=priority.device) if ids is None else torch.as_tensor(ids)
    if alive is not None:
        alive = torch.as_tensor(alive, device=priority.device)
        priority = torch.where(alive, priority, torch.zeros_like(priority))
    if priority.is_floating_point() and bool(priority.isnan().any()):
        raise ValueError("priority: is NaN for a living agent")
    by_id = number.expand(priority.shape).argsort(dim=-1, descending=True, stable=True)
    order = by_id.gather(-1, priority.gather(-1, by_id).argsort(dim=-1, stable=True))  # weakest first
    place = torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )
    tol = 0.0 if rounds is None else None
    result = run(Extremum(), place, graph, rounds=rounds, tol=tol, alive=alive, channel=channel, generator=generator)
    leader = order.gather(-1, result.value)
    if alive is not None:
        leader = torch.where(alive, leader, -1)
    return Election(leader, result.residual == 0, result.rounds)
