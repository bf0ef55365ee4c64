"""Condorcet methods on majority contests: Schulze and ranked pairs, and ``vote``, which applies any rule by name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.names import unknown
from coordination.voting.ballots import borda, copeland, pairwise, plurality

Rule = Literal["plurality", "borda", "copeland", "schulze", "ranked_pairs"]
RULES = ("plurality", "borda", "copeland", "schulze", "ranked_pairs")
MAX_TIED = 12  # majorities of equal strength on common cycles that ranked pairs takes in every order


def vote(ranks: Array, rule: Rule, weight: Array | None = None) -> Tensor:
    """Winners of an election, ties included.

    O(V M^2) to count; then what the rule costs, with its source: :func:`schulze` and :func:`ranked_pairs`; Borda 1781;
    Copeland 1951.

    Args:
        ranks: ``[*, V, M]``, lower is better; see :mod:`coordination.voting.ballots`.
        rule: ``plurality``, ``borda``, ``copeland``, ``schulze`` or ``ranked_pairs``.
        weight: ``[*, V]``; ones if None.

    Returns:
        ``[*, M]`` bool.

    Raises:
        ValueError: If the rule is unknown.

    >>> vote(torch.tensor([[0, 1, 2], [0, 2, 1], [2, 0, 1]]), "schulze")
    tensor([ True, False, False])
    """
    scores = {"plurality": plurality, "borda": borda, "copeland": copeland}
    if rule in scores:
        score = scores[rule](ranks, weight)
        return score == score.amax(-1, keepdim=True)
    if rule == "schulze":
        return schulze(pairwise(ranks, weight))
    if rule == "ranked_pairs":
        return ranked_pairs(pairwise(ranks, weight))
    raise ValueError(unknown("voting rule", rule, RULES))


def strongest_paths(wins: Array, strength: Literal["votes", "margins"] = "votes") -> Tensor:
    """Strength of the strongest path between candidates: its weakest majority, maximised over paths.

    Max-min Floyd-Warshall on the contests won, for a whole batch at once; O(M^3) (Schulze 2011, section 2.3).

    Args:
        wins: ``[*, M, M]`` from :func:`pairwise`.
        strength: A won contest counts by the votes for the winner or by the margin; they rank contests alike where no
            ballot has ties.

    Returns:
        ``[*, M, M]``; 0 where there is no path, and on the diagonal.

    >>> strongest_paths(torch.tensor([[0, 5, 1], [2, 0, 4], [6, 3, 0]]))
    tensor([[0, 5, 4],
            [4, 0, 4],
            [6, 5, 0]])
    """
    if strength not in ("votes", "margins"):
        raise ValueError(f"strength: 'votes' or 'margins', got {strength!r}")
    wins = torch.as_tensor(wins)
    count = wins if strength == "votes" else wins - wins.mT
    path = torch.where(wins > wins.mT, count, 0)
    for k in range(wins.shape[-1]):
        path = torch.maximum(path, torch.minimum(path[..., :, k, None], path[..., None, k, :]))
    return path.masked_fill(torch.eye(wins.shape[-1], dtype=torch.bool, device=wins.device), 0)


def schulze(wins: Array, strength: Literal["votes", "margins"] = "votes") -> Tensor:
    """Schulze winners ``[*, M]`` bool: no path to them is stronger than theirs back (Schulze 2011); O(M^3).

    >>> schulze(torch.tensor([[0, 2, 1], [1, 0, 2], [2, 1, 0]]))
    tensor([True, True, True])
    """
    path = strongest_paths(wins, strength)
    return (path >= path.mT).all(-1)


def ranked_pairs(wins: Array) -> Tensor:
    """Ranked-pairs winners ``[*, M]`` bool (Tideman 1987).

    Majorities are kept by falling margin unless they close a cycle with those kept before. Majorities of equal margin
    are taken in every order, and who wins under any order wins (parallel universes), so no candidate is favoured.
    Profiles are treated one by one on the CPU, O(M^4) without ties.

    Args:
        wins: ``[*, M, M]`` from :func:`pairwise`.

    Raises:
        ValueError: If more than 12 equal majorities lie on common cycles: their orders are too many.

    >>> ranked_pairs(torch.tensor([[0, 2, 1], [1, 0, 2], [2, 1, 0]]))
    tensor([True, True, True])
    """
    wins = torch.as_tensor(wins)
    size = wins.shape[-1]
    margins = (wins - wins.mT).reshape(-1, size, size).cpu().tolist()
    winners = [[c in found for c in range(size)] for found in map(_undominated, margins)]
    return torch.tensor(winners, dtype=torch.bool, device=wins.device).reshape(wins.shape[:-1])


def _undominated(margin: list[list[float]]) -> set[int]:
    """Winners of one profile. Relations are kept as bit sets: ``above[a]`` holds all that a stands above, and a."""
    size = len(margin)
    contests: dict[float, list[tuple[int, int]]] = {}
    for a in range(size):
        for b in range(size):
            if margin[a][b] > 0:
                contests.setdefault(margin[a][b], []).append((a, b))
    relations = {tuple(1 << a for a in range(size))}
    for strength in sorted(contests, reverse=True):
        relations = {after for above in relations for after in _keep(above, contests[strength])}
    return {a for above in relations for a in range(size) if sum(row >> a & 1 for row in above) == 1}


def _keep(above: tuple[int, ...], contests: list[tuple[int, int]]) -> set[tuple[int, ...]]:
    """All relations that keeping equally strong contests in some order leads to."""
    everything = above
    for contest in contests:
        everything = _with(everything, contest)
    for a, b in contests:
        if not everything[b] >> a & 1:  # on no cycle: kept in every order
            above = _with(above, (a, b))
    cyclic = [(a, b) for a, b in contests if everything[b] >> a & 1]
    if len(cyclic) > MAX_TIED:
        raise ValueError(
            f"ranked_pairs: {len(cyclic)} equal majorities on common cycles, more than {MAX_TIED}; use schulze"
        )
    reached, finished = {above}, set()
    while reached:
        current = reached.pop()
        free = [(a, b) for a, b in cyclic if not current[b] >> a & 1 and not current[a] >> b & 1]
        if free:
            reached |= {_with(current, contest) for contest in free}
        else:
            finished.add(current)
    return finished


def _with(above: tuple[int, ...], contest: tuple[int, int]) -> tuple[int, ...]:
    """The transitive relation with one more contest."""
    a, b = contest
    return tuple(row | above[b] if row >> a & 1 else row for row in above)
