"""How a team stands the loss of members: connectivity under attack, and what each agent's absence costs."""

from __future__ import annotations

import heapq
from typing import Literal

import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.topology import Topology


def percolation_robustness(topology: Topology, order: Array | Literal["degree"] = "degree") -> float:
    """Robustness of connectivity: ``R = (1 / N) sum over q of S(q)``, S the largest component after q removals.

    Schneider et al. 2011 (PNAS 108:3838, equation 1): ``S(q)`` as a share of all N agents, for q = 1 ... N. The attack
    takes the agent with most remaining links first, the lowest number among equals. Links count in both directions.

    Args:
        topology: Who is linked with whom.
        order: ``degree`` for that attack, or ``[N]`` agents in order of removal (for random failures: a permutation).

    Returns:
        A number in [0, 1/2]: near 1/2 for complete graphs, near 0 for stars. O((N + E) log N).

    Raises:
        ValueError: If ``order`` is not a permutation of the agents.

    >>> percolation_robustness(Topology([[0, 0, 0], [1, 2, 3]], 4))
    0.1875
    """
    n = topology.num_agents
    source, receiver = topology.edges.tolist()
    links: list[set[int]] = [set() for _ in range(n)]
    for i, j in zip(source, receiver, strict=True):
        links[i].add(j)
        links[j].add(i)
    if isinstance(order, str):
        if order != "degree":
            raise ValueError(f"order: expected 'degree' or the agents in order of removal, got {order!r}")
        removal = _by_degree(links)
    else:
        removal = torch.as_tensor(order).tolist()
        if sorted(removal) != list(range(n)):
            raise ValueError(f"order: expected a permutation of 0..{n - 1}")
    return sum(_largest_components(links, removal)) / n**2


def _by_degree(links: list[set[int]]) -> list[int]:
    """Agents by links to those still there, most first; degrees are kept up to date in a heap of stale entries."""
    degree = [len(near) for near in links]
    heap = [(-d, i) for i, d in enumerate(degree)]
    heapq.heapify(heap)
    removal, gone = [], [False] * len(links)
    while heap:
        d, i = heapq.heappop(heap)
        if gone[i] or -d != degree[i]:
            continue
        gone[i] = True
        removal.append(i)
        for j in links[i]:
            if not gone[j]:
                degree[j] -= 1
                heapq.heappush(heap, (-degree[j], j))
    return removal


def _largest_components(links: list[set[int]], removal: list[int]) -> list[int]:
    """Size of the largest component after each removal: agents are put back in reverse and components joined."""
    parent, size = list(range(len(links))), [0] * len(links)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    largest, sizes = 0, []
    for i in reversed(removal):
        sizes.append(largest)  # before i is back
        size[i] = 1
        for j in links[i]:
            if size[root(j)]:
                a, b = sorted((root(i), root(j)), key=lambda k: size[k])
                if a != b:
                    parent[a] = b
                    size[b] += size[a]
        largest = max(largest, size[root(i)])
    return sizes


def removal_regret(team_return: Array, without: Array) -> Tensor:
    """What the team loses without each agent, relative to what it has: ``(J - J_{-i}) / J``.

    The difference reward of an agent (Wolpert and Tumer 2002), normalised by the team's return.

    O(N).

    Args:
        team_return: ``[*]`` return J of the whole team, positive.
        without: ``[*, N]`` return when agent i is taken out.

    Returns:
        ``[*, N]``: 1 for an agent without whom nothing is earned, 0 for a superfluous one, negative if it does harm.

    Raises:
        ValueError: If shapes do not fit, or a return is not positive (shift it, or compare differences).

    >>> removal_regret(torch.tensor(10.0), torch.tensor([5.0, 10.0, 12.0])).tolist()
    [0.5, 0.0, -0.20000000298023224]
    """
    team, rest = torch.as_tensor(team_return), torch.as_tensor(without)
    if rest.ndim < 1 or rest.shape[:-1] != team.shape:
        raise ValueError(f"without: expected {tuple(team.shape)} and [N], got {tuple(rest.shape)}")
    if not bool((team > 0).all()):
        raise ValueError(f"team_return: must be positive to be a scale, got {team.min().item()}")
    return (team.unsqueeze(-1) - rest) / team.unsqueeze(-1)


def responsibility(share: Array, alive: Array | None = None) -> Tensor:
    """Each agent's part of what happened: ``|phi_i| / sum over j of |phi_j|``, with phi Shapley values of the outcome.

    O(N).

    Args:
        share: ``[*, N]`` Shapley values (or any attribution), of either sign.
        alive: ``[*, N]`` bool: whom to count; None for all.

    Returns:
        ``[*, N]`` on the simplex; zero for those who do not count, NaN where nobody had a part.

    >>> responsibility(torch.tensor([3.0, -1.0, 0.0])).tolist()
    [0.75, 0.25, 0.0]
    """
    size = torch.as_tensor(share).abs()
    if alive is not None:
        size = torch.where(torch.as_tensor(alive), size, 0.0)
    return size / size.sum(-1, keepdim=True)
