"""Voting: published profiles, axioms, agreement with pref_voting, and a search over all tie orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.voting import (
    borda,
    condorcet,
    copeland,
    pairwise,
    plurality,
    ranked_pairs,
    ranks_from,
    ranks_of,
    schulze,
    strongest_paths,
    tally,
    vote,
    weighted_majority,
)
from coordination.voting.ranked import RULES

# 45 voters of Schulze (2011), example 1
PROFILE = {"ACBED": 5, "ADECB": 5, "BEDAC": 8, "CABED": 3, "CAEBD": 7, "CBADE": 2, "DCEBA": 7, "EBADC": 8}


def ballots(profile: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    names = sorted(next(iter(profile)))
    orders = torch.tensor([[names.index(c) for c in order] for order in profile])
    return ranks_of(orders), torch.tensor(list(profile.values()))


def winners(mask: torch.Tensor) -> str:
    return "".join(name for name, wins in zip("ABCDEFG", mask.tolist(), strict=False) if wins)


def test_the_published_profile():
    ranks, weight = ballots(PROFILE)
    chosen = {rule: winners(vote(ranks, rule, weight)) for rule in RULES}
    assert chosen == {"plurality": "C", "borda": "E", "copeland": "E", "schulze": "E", "ranked_pairs": "A"}
    assert borda(ranks, weight).tolist() == [98, 92, 89, 69, 102]
    assert not condorcet(ranks, weight).any()
    path = strongest_paths(pairwise(ranks, weight))
    assert path[0].tolist() == [0, 28, 28, 30, 24]
    assert path[4].tolist() == [25, 28, 28, 31, 0]
    assert winners(schulze(pairwise(ranks, weight), "margins")) == "E"


def test_small_profiles():
    cycle, ones = ballots({"ABC": 1, "BCA": 1, "CAB": 1})
    assert all(winners(vote(cycle, rule, ones)) == "ABC" for rule in RULES)
    ranks, weight = ballots({"ABC": 3, "BCA": 2})
    assert winners(condorcet(ranks, weight)) == "A"
    assert borda(ranks, weight).tolist() == [6, 7, 2]
    assert plurality(ranks, weight).tolist() == [3, 2, 0]
    assert copeland(ranks, weight).tolist() == [2, 1, 0]


def random_ranks(seed: int, lead: tuple[int, ...], voters: int, size: int, ties: bool) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    utility = rng.integers(0, 3, size=(*lead, voters, size)) if ties else rng.random((*lead, voters, size))
    return ranks_from(torch.from_numpy(utility))


@given(st.integers(1, 6), st.integers(2, 4), st.booleans(), st.sampled_from(RULES), st.integers(0, 2**31))
def test_names_of_voters_and_candidates_and_batches_do_not_matter(voters, size, ties, rule, seed):
    ranks = random_ranks(seed, (2, 2), voters, size, ties)
    rng = np.random.default_rng(seed)
    chosen = vote(ranks, rule)
    assert chosen.any(-1).all()
    candidates, people = rng.permutation(size), rng.permutation(voters)
    assert torch.equal(vote(ranks[..., candidates], rule), chosen[..., candidates])
    assert torch.equal(vote(ranks[..., people, :], rule), chosen)
    assert torch.equal(vote(ranks[0, 1], rule), chosen[0, 1])


@given(st.integers(1, 5), st.integers(2, 4), st.sampled_from(RULES), st.integers(0, 2**31))
def test_weights_are_copies_and_voters_without_weight_change_nothing(voters, size, rule, seed):
    ranks = random_ranks(seed, (), voters, size, ties=True)
    weight = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, size=voters))
    weight[0] += 1
    copies = ranks.repeat_interleave(weight, 0)
    assert torch.equal(vote(ranks, rule, weight), vote(copies, rule))
    assert torch.equal(vote(ranks, rule, weight.double()), vote(copies, rule))


@given(st.integers(1, 7), st.integers(2, 5), st.integers(0, 2**31))
def test_condorcet_methods_elect_the_condorcet_winner(voters, size, seed):
    ranks = random_ranks(seed, (3,), voters, size, ties=False)
    best = condorcet(ranks)
    for rule in ("copeland", "schulze", "ranked_pairs"):
        chosen = vote(ranks, rule)
        assert (chosen == best)[best.any(-1)].all()


@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 2**31))
def test_scores_by_the_ballot(voters, size, seed):
    ranks = random_ranks(seed, (), voters, size, ties=True)
    by_hand = [
        sum((b[j] > b[c]) + (b[j] == b[c] and j != c) / 2 for b in ranks.tolist() for j in range(size))
        for c in range(size)
    ]
    assert borda(ranks).tolist() == by_hand
    firsts = [sum((b[c] == min(b)) / b.count(min(b)) for b in ranks.tolist()) for c in range(size)]
    assert plurality(ranks).tolist() == pytest.approx(firsts)


def parallel_universes(margin: np.ndarray) -> set[int]:
    """Ranked-pairs winners over every order of equal majorities, by trying them all."""
    size = len(margin)
    strong = [(a, b) for a in range(size) for b in range(size) if margin[a, b] > 0]
    chosen = set()
    for order in permutations(strong):
        strengths = [margin[e] for e in order]
        if strengths != sorted(strengths, reverse=True):
            continue
        reach = np.eye(size, dtype=bool)
        for a, b in order:
            if not reach[b, a]:
                reach |= np.outer(reach[:, a], reach[b])
        chosen |= {c for c in range(size) if reach[:, c].sum() == 1}
    return chosen


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_ranked_pairs_with_ties_takes_every_order(voters, seed):
    wins = pairwise(random_ranks(seed, (), voters, 4, ties=voters % 2 == 0))
    expected = parallel_universes((wins - wins.mT).numpy())
    assert set(ranked_pairs(wins).nonzero().squeeze(-1).tolist()) == expected


def test_agreement_with_pref_voting_on_200_profiles():
    library = pytest.importorskip("pref_voting.voting_methods")
    profiles = pytest.importorskip("pref_voting.profiles")
    rng = np.random.default_rng(0)
    ours = {
        "plurality": "plurality",
        "borda": "borda",
        "copeland": "copeland",
        "schulze": "beat_path",
        "ranked_pairs": "ranked_pairs",
    }
    for _ in range(200):
        size, voters = int(rng.integers(3, 5)), 2 * int(rng.integers(5, 25)) + 1
        orders = np.array([rng.permutation(size) for _ in range(voters)])
        profile = profiles.Profile(orders)
        for rule, name in ours.items():
            mask = vote(ranks_of(torch.from_numpy(orders)), rule)
            assert mask.nonzero().squeeze(-1).tolist() == sorted(getattr(library, name)(profile)), rule


def test_counting_answers():
    choice = torch.tensor([[0, 1, 1, -1], [2, 2, 0, 0]])
    assert tally(choice, 3).tolist() == [[1, 2, 0], [2, 0, 2]]
    assert weighted_majority(choice, 3).tolist() == [[False, True, False], [True, False, True]]
    assert weighted_majority(choice, 3, torch.tensor([3.0, 1.0, 1.0, 1.0])).tolist()[0] == [True, False, False]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="permutation of 0"):
        ranks_of(torch.tensor([[0, 0, 2]]))
    with pytest.raises(ValueError, match=r"weight: expected \[\*, V\] with V = 2, got \(3,\)"):
        pairwise(torch.zeros(2, 3), torch.ones(3))
    with pytest.raises(ValueError, match=r"ranks: expected \[\*, V, M\]"):
        plurality(torch.zeros(3))
    with pytest.raises(ValueError, match="unknown voting rule 'bordas'; did you mean 'borda'"):
        vote(torch.zeros(2, 3), "bordas")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'votes' or 'margins'"):
        strongest_paths(torch.zeros(2, 2), "ratio")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"choice: expected -1\.\.1, got 0\.\.2"):
        tally(torch.tensor([0, 2]), 2)
    ring = torch.tensor([[1 if (j - i) % 7 in (1, 2, 3) else 0 for j in range(7)] for i in range(7)])
    with pytest.raises(ValueError, match="21 equal majorities on common cycles, more than 12"):
        ranked_pairs(ring)
