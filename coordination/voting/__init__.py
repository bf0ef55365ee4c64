"""Voting: how agents choose together among candidates, answers or leaders."""

from coordination.voting.ballots import borda, condorcet, copeland, pairwise, plurality, ranks_from, ranks_of
from coordination.voting.election import Election, elect_leader
from coordination.voting.quorum import decide, quorum_overlap, quorum_size
from coordination.voting.ranked import ranked_pairs, schulze, strongest_paths, vote
from coordination.voting.weighted import log_odds, majority_accuracy, tally, weighted_majority

__all__ = [
    "Election",
    "borda",
    "condorcet",
    "copeland",
    "decide",
    "elect_leader",
    "log_odds",
    "majority_accuracy",
    "pairwise",
    "plurality",
    "quorum_overlap",
    "quorum_size",
    "ranked_pairs",
    "ranks_from",
    "ranks_of",
    "schulze",
    "strongest_paths",
    "tally",
    "vote",
    "weighted_majority",
]
