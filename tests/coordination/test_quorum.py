"""Quorums by enumeration, juries with known accuracy, and leaders elected over graphs."""

from __future__ import annotations

from itertools import combinations, product

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, relabelled, topology

from coordination.channel import Drop
from coordination.voting import decide, elect_leader, log_odds, majority_accuracy, quorum_overlap, quorum_size


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("byzantine", [False, True])
def test_quorums_meet_in_an_honest_voter_and_can_be_formed(n, byzantine):
    for f in range(n):
        if n < (3 if byzantine else 2) * f + 1:
            with pytest.raises(ValueError, match=f"need at least {(3 if byzantine else 2) * f + 1} voters"):
                quorum_size(n, f, byzantine)
            continue
        size = quorum_size(n, f, byzantine)
        overlaps = [len(set(a) & set(b)) for a, b in product(combinations(range(n), size), repeat=2)]
        assert min(overlaps) == quorum_overlap(n, size)
        assert min(overlaps) >= (f + 1 if byzantine else 1)
        assert size <= n - f
        assert not byzantine or quorum_overlap(n, size - 1) < f + 1  # and none smaller would do


def test_liars_cannot_make_two_counts_decide_differently():
    """Four voters, one of which tells every counter something else."""
    for honest in product([0, 1], repeat=3):
        told = torch.tensor([[*honest, lie] for lie in (0, 1, -1)])
        decided = set(decide(told, 2, f=1, byzantine=True).tolist()) - {-1}
        assert len(decided) <= 1
        if len(set(honest)) == 1:
            assert decide(told, 2, f=1, byzantine=True).tolist() == [honest[0]] * 3
    assert decide(torch.tensor([1, 1, -1]), 2, f=1).item() == 1
    assert decide(torch.tensor([1, 0, -1]), 2, f=1).item() == -1


@pytest.mark.parametrize(
    ("competence", "majority", "optimal"),
    [
        ((0.6,) * 3, 0.648, 0.648),
        ((0.6,) * 5, 0.68256, 0.68256),
        ((0.9, 0.6, 0.6), 0.792, 0.900),
        ((0.9, 0.7, 0.7, 0.7, 0.7), 0.88984, 0.91672),
        ((0.8, 0.7, 0.6, 0.6, 0.55), 0.76868, 0.812),
    ],
)
def test_known_juries(competence, majority, optimal):
    p = torch.tensor(competence, dtype=torch.float64)
    assert majority_accuracy(p) == pytest.approx(majority, abs=1e-9)
    assert majority_accuracy(p, log_odds(p)) == pytest.approx(optimal, abs=1e-9)


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=7), st.integers(0, 2**31))
def test_log_odds_are_optimal(competence, seed):
    p = torch.tensor(competence, dtype=torch.float64)
    best = majority_accuracy(p, log_odds(p))
    likelihood = sum(
        max(np.prod(np.where(right, p, 1 - p)), np.prod(np.where(right, 1 - p, p)))
        for right in product([True, False], repeat=len(competence))
    )
    assert best == pytest.approx(likelihood / 2, abs=1e-9)  # the most likely of two answers, for every pattern of votes
    other = np.random.default_rng(seed).normal(size=len(competence))
    assert majority_accuracy(p, other) <= best + 1e-12


def test_ties_count_half():
    assert majority_accuracy(np.array([0.6, 0.6])) == pytest.approx(0.36 + 0.48 / 2)
    with pytest.raises(ValueError, match="V <= 20"):
        majority_accuracy(np.full(21, 0.6))
    with pytest.raises(ValueError, match="competence: expected probabilities"):
        majority_accuracy(np.array([0.6, 1.5]))
    with pytest.raises(ValueError, match="must be in"):
        log_odds(torch.tensor([1.0]))


@given(connected(), st.integers(0, 2**31))
def test_everyone_learns_the_leader_within_the_diameter(graph, seed):
    rng = np.random.default_rng(seed)
    priority = torch.from_numpy(rng.integers(0, 3, size=(2, graph.num_agents)))
    elected = elect_leader(priority, graph, rounds=nx.diameter(graph.to_networkx()))
    assert elected.agreed.all()
    for row, leaders in zip(priority.tolist(), elected.leader.tolist(), strict=True):
        assert set(leaders) == {row.index(max(row))}  # the first in place among equals
    assert elect_leader(priority, graph).leader.tolist() == elected.leader.tolist()
    order = rng.permutation(graph.num_agents)
    moved, ids = torch.empty_like(priority), torch.empty(graph.num_agents, dtype=torch.int64)
    moved[:, order] = priority
    ids[order] = torch.arange(graph.num_agents)
    renamed = elect_leader(moved, relabelled(graph, order), ids=ids).leader
    assert torch.equal(renamed[:, order], torch.from_numpy(order)[elected.leader])


def test_the_dead_do_not_lead_and_losses_delay():
    circle = topology(nx.cycle_graph(6))
    priority = torch.tensor([1.0, 9.0, 2.0, 3.0, torch.nan, 8.0])
    alive = torch.tensor([True, True, True, True, False, True])
    assert elect_leader(priority, circle, alive=alive).leader.tolist() == [1, 1, 1, 1, -1, 1]
    early = elect_leader(priority, circle, alive=alive, rounds=1)
    assert not early.agreed
    assert early.leader.tolist() == [1, 1, 1, 3, -1, 5]
    generator = torch.Generator().manual_seed(0)
    assert elect_leader(priority, circle, alive=alive, channel=Drop(0.8), generator=generator, rounds=200).agreed
    with pytest.raises(ValueError, match="priority: is NaN for a living agent"):
        elect_leader(priority, circle)
    alive[1] = False
    with pytest.raises(ValueError, match="the graph is not connected"):
        elect_leader(priority, topology(nx.path_graph(6)), alive=alive)


def test_one_liar_is_elected():
    priority = torch.tensor([1.0, 2.0, 3.0, 1e9])
    assert (elect_leader(priority, topology(nx.complete_graph(4))).leader == 3).all()
