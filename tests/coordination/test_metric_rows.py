"""One test a row of the table of coordination metrics: its public function, its known answer, its range."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch

from coordination import metrics
from coordination.consensus import Averaging, run
from coordination.credit import difference, shapley
from coordination.games import TabularGame
from coordination.topology import Topology, complete, from_networkx, ring

MAJORITY = TabularGame(torch.tensor([0.0, 0, 0, 1, 0, 1, 1, 1]))
COPY = 50 * torch.eye(4)


def _spectrum() -> tuple[float, float, float]:
    karate = from_networkx(nx.karate_club_graph())
    return karate.lambda2(), complete(7).lambda2(), ring(10).lambda2()


def _error_after(rounds: int) -> float:
    x = torch.cos(2 * math.pi * torch.arange(10, dtype=torch.float64) / 10)  # the slowest mode of the ring
    after = run(Averaging(), x, ring(10), rounds=rounds).value
    return metrics.consensus_error(after.unsqueeze(-1), x.unsqueeze(-1)).item()


def _two_roads(drivers: int = 8) -> torch.Tensor:
    """Pigou: one road costs 1, the other its share of the traffic."""
    cost = torch.zeros(drivers, *[2] * drivers)
    for joint in torch.cartesian_prod(*[torch.arange(2)] * drivers).tolist():
        for i, road in enumerate(joint):
            cost[(i, *joint)] = sum(joint) / drivers if road else 1.0
    return cost


def _removal() -> tuple[list[float], list[float]]:
    """Taking an agent out costs its difference reward."""
    game = TabularGame(torch.tensor([0.0, 1, 2, 5]))
    without = torch.tensor([2.0, 1.0])
    return metrics.removal_regret(torch.tensor(5.0), without).tolist(), (difference(game) / 5).tolist()


def _random_phases() -> float:
    angle = 2 * math.pi * torch.rand(4000, 1000, generator=torch.Generator().manual_seed(0))
    return metrics.phase_synchrony(angle).mean().item()


ROWS = {
    "disagreement energy": (lambda: metrics.disagreement_energy(torch.tensor([[0.0], [2.0]]), complete(2)).item(), 4.0),
    "disagreement energy at consensus": (lambda: metrics.disagreement_energy(torch.ones(5, 2), ring(5)).item(), 0.0),
    "consensus error": (lambda: _error_after(7), ring(10).slem() ** 7),
    "algebraic connectivity": (_spectrum, (0.46853, 7.0, 2 - 2 * math.cos(2 * math.pi / 10))),
    "spectral gap": (lambda: 1 - ring(10).slem(), 1 - 0.87268),
    "r-robustness": (lambda: [metrics.max_robustness(g) for g in (complete(7), ring(6))], [4, 1]),
    "social influence": (
        lambda: metrics.social_influence(torch.tensor(0), torch.zeros(4), COPY).item(),
        math.log(4),
    ),
    "mutual information": (lambda: metrics.mutual_information(torch.eye(4) / 4).item(), math.log(4)),
    "total correlation": (
        lambda: metrics.total_correlation(torch.arange(4).unsqueeze(1).expand(4, 3)).item(),
        2 * math.log(4),
    ),
    "normalised mutual information": (
        lambda: metrics.normalised_mutual_information(torch.arange(4), torch.arange(4)).item(),
        1.0,
    ),
    "action synchrony": (lambda: metrics.action_synchrony(torch.tensor([0, 0, 1, 1]), 2).item(), 1 / 3),
    "phase synchrony": (_random_phases, math.sqrt(math.pi / 4000)),
    "system neural diversity": (
        lambda: metrics.gaussian_diversity(torch.tensor([[0.0], [1.0], [3.0]]), torch.ones(3, 1)).item(),
        2.0,
    ),
    "hierarchic social entropy": (lambda: metrics.hierarchic_social_entropy(torch.zeros(4, 4)), 0.0),
    "role information": (lambda: metrics.role_information(torch.tensor([[0, 1, 2]] * 3)).item(), math.log(3)),
    "silhouette": (
        lambda: metrics.silhouette(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([0, 0, 1, 1])).item(),
        (1 - 1 / 10.5) / 2 + (1 - 1 / 9.5) / 2,
    ),
    "adjusted Rand index": (
        lambda: metrics.adjusted_rand(torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 2, 2])).item(),
        1.0,
    ),
    "modularity": (lambda: metrics.modularity(torch.arange(10) // 5, _two_cliques()).item(), 20 / 21 - 1 / 2),
    "coalition stability": (lambda: metrics.deviation_stability(torch.tensor([0.0, 0.5, -1.0, 0.0])).item(), 0.75),
    "core excess": (lambda: metrics.core_excess(MAJORITY, torch.full((3,), 1 / 3)).item(), 1 / 3),
    "churn": (lambda: metrics.churn(torch.tensor([[0, 0, 1, 1]] * 2)).tolist(), [0.0]),
    "temporal coherence": (lambda: metrics.temporal_coherence(torch.ones(3, 2, 2)).item(), 1.0),
    "Gini": (lambda: metrics.gini(torch.tensor([1.0, 1, 1, 0])).item(), 0.25),
    "Jain": (lambda: metrics.jain(torch.tensor([1.0, 1, 1, 0])).item(), 0.75),
    "load balance": (lambda: metrics.load_balance(torch.ones(5)).item(), 1.0),
    "load variation": (lambda: metrics.load_variation(torch.tensor([5.0, 0, 0, 0, 0])).item(), 2.0),
    "cooperation ratio": (lambda: metrics.cooperation_ratio(7.0, 8.0).item(), 7 / 8),
    "price of anarchy": (lambda: metrics.price_of_anarchy(_two_roads(), cost=True)[0], 4 / 3),
    "percolation robustness": (
        lambda: [
            metrics.percolation_robustness(from_networkx(g))
            for g in (nx.complete_graph(10), nx.star_graph(9), nx.cycle_graph(10))
        ],
        [0.45, 0.09, 0.29],
    ),
    "removal regret": (lambda: _removal()[0], _removal()[1]),
    "team entropy": (lambda: metrics.team_entropy(torch.zeros(3, 4)).item(), 3 * math.log(4)),
    "responsibility": (
        lambda: metrics.responsibility(shapley(MAJORITY).value).tolist(),
        [1 / 3] * 3,
    ),
    "information per bit": (
        lambda: metrics.information_per_bit(metrics.causal_influence(torch.zeros(4), COPY), 2).item(),
        1.0,
    ),
    "value of communication": (lambda: metrics.value_of_communication(0.9, 0.5, 1.0), 0.8),
    "communication efficiency": (lambda: metrics.communication_efficiency(10.0, 6.0, 8.0), 0.5),
}


def _two_cliques() -> Topology:
    graph = nx.disjoint_union(nx.complete_graph(5), nx.complete_graph(5))
    graph.add_edge(0, 5)
    return from_networkx(graph)


@pytest.mark.parametrize("row", ROWS)
def test_known_answers(row):
    found, expected = ROWS[row]
    assert found() == pytest.approx(expected, rel=2e-2 if row == "phase synchrony" else 1e-4)


def test_copying_an_agent_moves_the_two_diversities_apart():
    """Three agents at 0, 0 and 1 against two at 0 and 1: pairs are less diverse, the kinds are as many."""
    two, three = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [0.0], [1.0]])
    pairs = [metrics.gaussian_diversity(x, torch.ones_like(x)).item() for x in (two, three)]
    assert pairs == pytest.approx([1, 2 / 3])
    kinds = [metrics.hierarchic_social_entropy(torch.cdist(x, x)) for x in (two, three)]
    assert kinds == pytest.approx([1, math.log2(3) - 2 / 3])
