from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from coordination.metrics import behaviour as metrics
from coordination.metrics import modularity
from coordination.topology import Topology, complete, exponential, from_networkx, path, ring

seeds = st.integers(0, 10_000)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(n: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(n), 2))


# -- known answers -----------------------------------------------------------------------------------------------------


def test_synchrony_by_hand():
    action = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]])
    torch.testing.assert_close(metrics.action_synchrony(action, 4), torch.tensor([1.0, 0.0, 1 / 3]))


@given(seeds, st.integers(2, 9))
def test_synchrony_equals_counting_pairs(seed, n):
    action = torch.randint(0, 3, (4, n), generator=generator(seed))
    expected = [np.mean([float(a[i] == a[j]) for i, j in pairs(n)]) for a in action]
    torch.testing.assert_close(metrics.action_synchrony(action, 3), torch.tensor(expected).float())


def test_total_correlation_known_answers():
    everyone_alike = torch.arange(4).repeat(5).unsqueeze(1).expand(-1, 3)
    assert metrics.total_correlation(everyone_alike).item() == pytest.approx(2 * math.log(4))
    independent = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2))
    assert metrics.total_correlation(independent).item() == pytest.approx(0, abs=1e-7)
    parity = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])  # any two are independent, the three are not
    assert metrics.total_correlation(parity[:, :2]).item() == pytest.approx(0, abs=1e-7)
    assert metrics.total_correlation(parity).item() == pytest.approx(math.log(2))


def test_total_correlation_counts_a_dead_slot_as_one_constant():
    action = torch.tensor([[0, 0, 7], [1, 1, 3], [0, 0, 9], [1, 1, 1]])
    alive = torch.tensor([True, True, False]).expand(4, 3)
    assert metrics.total_correlation(action, alive).item() == pytest.approx(math.log(2))


def test_two_agents_share_mutual_information():
    joint = np.array([[6, 1, 1], [0, 3, 1]])
    samples = torch.tensor([(i, j) for i in range(2) for j in range(3) for _ in range(joint[i, j])])
    p = joint / joint.sum()
    information = stats.entropy(p.sum(0)) + stats.entropy(p.sum(1)) - stats.entropy(p.ravel())
    assert metrics.total_correlation(samples).item() == pytest.approx(information)
    expected = information / math.sqrt(stats.entropy(p.sum(0)) * stats.entropy(p.sum(1)))
    assert metrics.normalised_mutual_information(*samples.T).item() == pytest.approx(expected)


def test_normalised_mutual_information_extremes():
    a = torch.arange(12) % 4
    assert metrics.normalised_mutual_information(a, 10 - a).item() == pytest.approx(1)
    independent = torch.cartesian_prod(torch.arange(3), torch.arange(4)).T
    assert metrics.normalised_mutual_information(*independent).item() == pytest.approx(0, abs=1e-6)
    assert metrics.normalised_mutual_information(a, torch.zeros(12)).item() == 0
    mask = torch.arange(12) < 8
    spoiled = torch.where(mask, a, torch.arange(12))
    assert metrics.normalised_mutual_information(a, spoiled, mask).item() == pytest.approx(1)


def test_temporal_coherence_by_hand():
    right, up, left = [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]
    action = torch.tensor([[right, up], [right, up], [left, right], [up, [0.0, 0.0]]])  # [T, N, A]
    assert metrics.temporal_coherence(action).item() == pytest.approx((1 - 1 + 0 + 1 + 0 + 0) / 6)
    alive = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    assert metrics.temporal_coherence(action, alive).item() == pytest.approx((1 - 1 + 0 + 1) / 4)
    late = torch.tensor([[True, False], [True, True], [False, True], [False, False]])  # nothing came before its first
    assert metrics.temporal_coherence(action, late).item() == pytest.approx((1 + 0) / 2)


def test_consensus_error_falls_as_the_slem():
    topology = ring(10)
    x = torch.cos(2 * math.pi * torch.arange(10, dtype=torch.float64) / 10).unsqueeze(-1) + 3  # the slowest mode
    now = x
    for _ in range(5):
        now = topology.mixing()(now, 1)
    assert metrics.consensus_error(now, x).item() == pytest.approx(topology.slem() ** 5)
    assert metrics.consensus_error(x, x).item() == 1
    assert metrics.consensus_error(torch.full((3, 1), 4.0), torch.tensor([[0.0], [3.0], [9.0]])).item() == 0


@given(seeds)
def test_disagreement_energy_is_the_laplacian_form(seed):
    topology = from_networkx(nx.karate_club_graph())
    x = torch.randn(2, 34, 3, generator=generator(seed), dtype=torch.float64)
    form = (x * topology.laplacian()(x, 1)).sum((-1, -2))
    torch.testing.assert_close(metrics.disagreement_energy(x, topology), form.float())
    assert metrics.disagreement_energy(torch.full((34, 1), 0.1), topology).item() == 0


def test_disagreement_energy_of_one_way_links_and_dead_ends():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert metrics.disagreement_energy(x, Topology([[0, 1], [1, 2]], 3)).item() == 2.5
    assert metrics.disagreement_energy(x, path(3), torch.tensor([True, True, False])).item() == 1


def test_modularity_known_answers():
    karate = nx.karate_club_graph()
    topology = from_networkx(karate)
    club = torch.tensor([0 if karate.nodes[v]["club"] == "Mr. Hi" else 1 for v in karate])
    labels = torch.stack([club, torch.arange(34), torch.zeros(34, dtype=torch.int64)])
    groups = [[{v for v in karate if label[v] == c} for c in set(label.tolist())] for label in labels]
    expected = [nx.community.modularity(karate, g, weight=None) for g in groups]
    torch.testing.assert_close(modularity(labels, topology), torch.tensor(expected, dtype=torch.float64))
    finer = nx.community.modularity(karate, groups[0], weight=None, resolution=2.0)
    assert modularity(club, topology, 2.0).item() == pytest.approx(finer)
    two = nx.disjoint_union(nx.complete_graph(5), nx.complete_graph(5))
    two.add_edge(0, 5)
    halves = torch.arange(10) // 5
    assert modularity(halves, from_networkx(two)).item() == pytest.approx(20 / 21 - 0.5)


def test_modularity_without_the_dead_is_that_of_the_rest():
    karate = nx.karate_club_graph()
    alive = torch.arange(34) % 5 != 0
    label = torch.arange(34) % 3
    rest = karate.subgraph(np.flatnonzero(alive.numpy()).tolist())
    groups = [{v for v in rest if label[v] == c} for c in range(3)]
    expected = nx.community.modularity(rest, groups, weight=None)
    spoiled = torch.where(alive, label, 99)
    assert modularity(spoiled, from_networkx(karate), alive=alive).item() == pytest.approx(expected)
    assert modularity(label, from_networkx(karate), alive=torch.zeros(34, dtype=torch.bool)).isnan()
    with pytest.raises(ValueError, match="modularity: needs an undirected graph, 'exponential' has one-way edges"):
        modularity(torch.zeros(5, dtype=torch.int64), exponential(5))


def test_fairness_known_answers():
    x = torch.tensor([[1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    assert metrics.gini(x).tolist() == [0.25, 0, 0.75, 0]
    assert metrics.jain(x).tolist() == [0.75, 1, 0.25, 1]
    torch.testing.assert_close(metrics.load_balance(x), torch.tensor([4 / 3, 1, 4, 1]))


@given(seeds, st.integers(2, 20))
def test_gini_is_the_mean_difference(seed, n):
    x = torch.rand(3, n, generator=generator(seed))
    apart = (x.unsqueeze(-1) - x.unsqueeze(-2)).abs().sum((-1, -2))
    torch.testing.assert_close(metrics.gini(x), apart / (2 * n**2 * x.mean(-1)))


def test_gaussian_diversity_known_answers():
    mean, std = torch.tensor([[0.0], [1.0], [3.0]]), torch.ones(3, 1)
    assert metrics.gaussian_diversity(mean, std).item() == 2  # (1 + 3 + 2) / 3, from the paper's definition
    assert metrics.gaussian_diversity(torch.ones(2, 5, 4), torch.ones(2, 5, 4)).tolist() == [0, 0]
    apart = metrics.gaussian_diversity(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 5.0]]))
    assert apart.item() == 5  # means 3 apart, standard deviations 4


def test_gaussian_diversity_in_parts_is_the_same(monkeypatch):
    mean, std = torch.randn(2, 3, 6, 2), torch.rand(2, 3, 6, 2)
    whole = metrics.gaussian_diversity(mean, std)
    monkeypatch.setattr(metrics, "PAIRS", 1)
    torch.testing.assert_close(metrics.gaussian_diversity(mean, std), whole)


@given(seeds, st.integers(2, 6))
def test_categorical_diversity_equals_total_variation(seed, n):
    p = torch.rand(2, n, 4, generator=generator(seed)).softmax(-1)
    expected = [np.mean([0.5 * (q[i] - q[j]).abs().sum().item() for i, j in pairs(n)]) for q in p]
    torch.testing.assert_close(metrics.categorical_diversity(p), torch.tensor(expected).float())


# -- laws: every function with a mask ----------------------------------------------------------------------------------

GRAPH = complete(6)
MASKED = {
    "action_synchrony": lambda x, alive: metrics.action_synchrony(x[..., 0].abs().long().clamp(max=3), 4, alive),
    "temporal_coherence": lambda x, alive: metrics.temporal_coherence(
        torch.stack([x, 2 * x + 1, x - 1]), None if alive is None else torch.stack([alive] * 3)
    ),
    "consensus_error": lambda x, alive: metrics.consensus_error(x**2, x, alive),
    "phase_synchrony": lambda x, alive: metrics.phase_synchrony(x[..., 0], alive),
    "team_entropy": metrics.team_entropy,
    "load_variation": lambda x, alive: metrics.load_variation(x[..., 0].abs(), alive),
    "gini": lambda x, alive: metrics.gini(x[..., 0].abs(), alive),
    "jain": lambda x, alive: metrics.jain(x[..., 0].abs(), alive),
    "load_balance": lambda x, alive: metrics.load_balance(x[..., 0].abs(), alive),
    "gaussian_diversity": lambda x, alive: metrics.gaussian_diversity(x, x.abs(), alive),
    "categorical_diversity": lambda x, alive: metrics.categorical_diversity(x.softmax(-1), alive),
}


def sample(seed: int) -> tuple[Tensor, Tensor]:
    x = 2 * torch.randn(5, 6, 3, generator=generator(seed))
    alive = torch.rand(5, 6, generator=generator(seed + 1)) < 0.6
    return x, alive | (torch.arange(6) < 2)  # two live in every sample


@pytest.mark.parametrize("name", MASKED)
@given(seeds)
def test_the_dead_change_nothing(name, seed):
    x, alive = sample(seed)
    removed = torch.stack([MASKED[name](row[lives].unsqueeze(0), None)[0] for row, lives in zip(x, alive, strict=True)])
    torch.testing.assert_close(MASKED[name](torch.where(alive.unsqueeze(-1), x, torch.nan), alive), removed)


@pytest.mark.parametrize("name", MASKED)
@given(seeds)
def test_order_of_agents_does_not_matter(name, seed):
    x, alive = sample(seed)
    order = torch.randperm(6, generator=generator(seed))
    torch.testing.assert_close(MASKED[name](x[:, order], alive[:, order]), MASKED[name](x, alive))


@pytest.mark.parametrize("name", sorted(MASKED.keys() - {"gini", "jain", "load_balance", "team_entropy"}))
def test_nobody_alive_is_not_a_number(name):
    x, alive = sample(0)
    assert MASKED[name](x, torch.zeros_like(alive)).isnan().all()


def test_fairness_among_nobody_is_not_a_number():
    nobody = torch.zeros(3, dtype=torch.bool)
    for fairness in (metrics.gini, metrics.jain, metrics.load_balance, metrics.load_variation):
        assert fairness(torch.ones(3), nobody).isnan()


def test_numpy_arrays_are_taken():
    assert metrics.gini(np.array([1.0, 1.0, 1.0, 0.0]), np.ones(4, dtype=bool)).item() == 0.25


def test_masks_of_another_shape_or_kind_are_refused():
    with pytest.raises(ValueError, match=r"mask: expected bool \(2, 4\), got torch\.bool \(4,\)"):
        metrics.gini(torch.ones(2, 4), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask: expected bool \(4,\), got torch\.float32 \(4,\)"):
        metrics.jain(torch.ones(4), torch.ones(4))


def test_numbers_out_of_range_and_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"action: expected 0\.\.2, got 0\.\.7"):
        metrics.action_synchrony(torch.tensor([0, 7]), 3)
    for fairness in (metrics.gini, metrics.jain, metrics.load_balance, metrics.load_variation):
        with pytest.raises(ValueError, match=r"x: expected 0\.0\.\.inf, got -1\.0\.\.2\.0"):
            fairness(torch.tensor([-1.0, 2.0]))
    with pytest.raises(ValueError, match=r"x: expected \[\*, N, D\] with N = 4, got \(3, 2\)"):
        metrics.disagreement_energy(torch.ones(3, 2), ring(4))
    with pytest.raises(ValueError, match=r"label: expected integers \[\*, N\] with N = 4, got torch\.int64 \(3,\)"):
        modularity(torch.zeros(3, dtype=torch.int64), ring(4))
    with pytest.raises(ValueError, match="label: expected integers"):
        modularity(torch.zeros(4), ring(4))
