import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.metrics.resilience import percolation_robustness, removal_regret, responsibility
from coordination.topology import Topology


def undirected(graph):
    pairs = torch.tensor(list(graph.edges)).reshape(-1, 2).T
    return Topology(torch.cat([pairs, pairs.flip(0)], 1), graph.number_of_nodes())


@pytest.mark.parametrize(
    ("graph", "robustness"),
    [(nx.complete_graph(10), 0.45), (nx.star_graph(9), 0.09), (nx.cycle_graph(10), 0.29), (nx.empty_graph(4), 0.1875)],
)
def test_percolation_robustness_of_known_graphs(graph, robustness):
    """Complete: sum of (n - q) / n. Star: the hub goes first. Cycle: worked through with ties by number."""
    assert percolation_robustness(undirected(graph)) == pytest.approx(robustness)


@given(seed=st.integers(0, 200), p=st.floats(0.05, 0.6))
def test_percolation_robustness_equals_removing_agents_one_by_one(seed, p):
    graph = nx.gnp_random_graph(14, p, seed=seed)
    rest, total = graph.copy(), 0
    while rest:
        rest.remove_node(min(rest, key=lambda i: (-rest.degree(i), i)))
        total += max((len(c) for c in nx.connected_components(rest)), default=0)
    assert percolation_robustness(undirected(graph)) == pytest.approx(total / 14**2)


def test_random_failures_follow_the_given_order():
    path = undirected(nx.path_graph(4))
    assert percolation_robustness(path, [0, 1, 2, 3]) == pytest.approx((3 + 2 + 1) / 16)
    assert percolation_robustness(path, torch.tensor([1, 0, 2, 3])) == pytest.approx((2 + 2 + 1) / 16)
    with pytest.raises(ValueError, match=r"expected a permutation of 0\.\.3"):
        percolation_robustness(path, [0, 1, 2, 2])
    with pytest.raises(ValueError, match="order: expected 'degree'"):
        percolation_robustness(path, "random")


def test_removal_regret_and_its_refusals():
    regret = removal_regret(torch.tensor([10.0, 4.0]), torch.tensor([[5.0, 12.0], [4.0, 0.0]]))
    assert regret.tolist() == [[0.5, pytest.approx(-0.2)], [0, 1]]
    with pytest.raises(ValueError, match="team_return: must be positive"):
        removal_regret(torch.tensor(0.0), torch.ones(2))
    with pytest.raises(ValueError, match=r"without: expected \(2,\) and \[N\]"):
        removal_regret(torch.ones(2), torch.ones(3))


def test_responsibility_lies_on_the_simplex_of_the_living():
    share = torch.tensor([[2.0, -1.0, 1.0, torch.nan]])
    alive = torch.tensor([[True, True, True, False]])
    assert responsibility(share, alive).tolist() == [[0.5, 0.25, 0.25, 0]]
    assert responsibility(torch.zeros(2)).isnan().all()
