from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination.topology import (
    BUILDERS,
    Topology,
    build,
    complete,
    erdos_renyi,
    exponential,
    grid,
    path,
    random_geometric,
    random_regular,
    ring,
    scale_free,
    small_world,
    star,
    torus,
    tree,
    uniform_positions,
)

ARGUMENTS = {
    "erdos_renyi": {"p": 0.3},
    "random_regular": {"degree": 4},
    "random_geometric": {"radius": 0.3},
}  # what builders without defaults need
RANDOM = ("small_world", "scale_free", "erdos_renyi", "random_regular", "random_geometric")


def links(topology: Topology) -> set[tuple[int, int]]:
    return set(map(tuple, topology.edges.T.tolist()))


def both_ways(graph: nx.Graph) -> set[tuple[int, int]]:
    return set(nx.DiGraph(graph).edges)


def spec(name: str) -> dict:
    return {"name": name, **ARGUMENTS.get(name, {})}


@pytest.mark.parametrize(
    ("topology", "graph"),
    [
        (complete(5), nx.complete_graph(5)),
        (ring(6), nx.cycle_graph(6)),
        (path(6), nx.path_graph(6)),
        (star(6), nx.star_graph(5)),
        (tree(13, branching=3), nx.balanced_tree(3, 2)),
        (tree(15), nx.balanced_tree(2, 3)),
        (tree(4, branching=1), nx.path_graph(4)),
        (small_world(12, k=4, p=0.0), nx.circulant_graph(12, [1, 2])),
        (erdos_renyi(7, p=1.0), nx.complete_graph(7)),
        (random_geometric(9, radius=2.0), nx.complete_graph(9)),
        (exponential(3), nx.complete_graph(3)),
    ],
)
def test_builders_equal_networkx(topology, graph):
    assert links(topology) == both_ways(graph)


@pytest.mark.parametrize(("rows", "cols"), [(3, 4), (1, 5), (5, 1), (2, 3)])
@pytest.mark.parametrize("periodic", [False, True])
def test_rectangles_equal_networkx(rows, cols, periodic):
    graph = nx.grid_2d_graph(rows, cols, periodic=periodic)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    expected = both_ways(nx.relabel_nodes(graph, {(r, c): r * cols + c for r, c in graph.nodes}))
    made = (torus if periodic else grid)(rows * cols, rows=rows)
    assert links(made) == expected
    assert links((torus if periodic else grid)(rows * cols, cols=cols)) == expected


@pytest.mark.parametrize(("num_agents", "rows", "cols"), [(12, 3, 4), (16, 4, 4), (7, 1, 7), (692, 4, 173)])
def test_rectangles_are_as_square_as_possible(num_agents, rows, cols):
    assert links(grid(num_agents)) == links(grid(num_agents, rows=rows, cols=cols))


def test_exponential_sends_along_powers_of_two():
    assert links(exponential(6)) == {(i, (i + jump) % 6) for i in range(6) for jump in (1, 2, 4)}
    assert exponential(64).in_degree.unique().tolist() == [6]
    assert not exponential(6).is_undirected


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - set(RANDOM)))
def test_the_smallest_sizes(name, n):
    topology = build(name, n)
    assert topology.num_agents == n
    assert topology.num_edges <= n * (n - 1)
    assert topology.is_connected or name == "empty"


@pytest.mark.parametrize("name", RANDOM)
def test_random_builders_repeat_and_vary_with_the_seed(name):
    made = [links(build(spec(name), 40, seed)) for seed in (3, 3, 4)]
    assert made[0] == made[1]
    assert made[0] != made[2]
    assert links(build({**spec(name), "seed": 4}, 40, seed=3)) == made[2]
    assert build(spec(name), 40).is_undirected


@given(st.integers(1, 30), st.integers(0, 29), st.integers(0, 3))
def test_random_regular_is_regular(n, degree, seed):
    if degree >= n or n * degree % 2:
        with pytest.raises(ValueError, match="random_regular: degree must be in"):
            random_regular(n, degree, seed)
    else:
        assert (random_regular(n, degree, seed).in_degree == degree).all()


def test_random_regular_chooses_evenly():
    draws = 400
    count = np.zeros((8, 8))
    for seed in range(draws):
        sender, receiver = random_regular(8, 3, seed).edges.numpy()
        count[receiver, sender] += 1
    frequency = count[~np.eye(8, dtype=bool)] / draws
    spread = math.sqrt(3 / 7 * 4 / 7 / draws)  # by symmetry every link is there with probability 3/7
    assert abs(frequency - 3 / 7).max() < 4.5 * spread
    assert len({tuple(random_regular(8, 3, seed).edges.flatten().tolist()) for seed in range(50)}) > 45


def test_erdos_renyi_has_every_link_with_probability_p():
    draws, p = 1000, 0.3
    count = np.zeros((6, 6))
    totals = []
    for seed in range(draws):
        topology = erdos_renyi(6, p, seed)
        sender, receiver = topology.edges.numpy()
        count[receiver, sender] += 1
        totals.append(topology.num_edges / 2)
    off = count[~np.eye(6, dtype=bool)] / draws
    assert abs(off - p).max() < 4 * math.sqrt(p * (1 - p) / draws)
    assert np.var(totals) == pytest.approx(15 * p * (1 - p), rel=0.2)  # independent: binomial variance
    assert erdos_renyi(6, 0.0).num_edges == 0


def test_small_world_keeps_the_number_of_links_and_rewires_p_of_them():
    lattice = links(small_world(1000, k=6, p=0.0))
    made = small_world(1000, k=6, p=0.2, seed=1)
    assert made.num_edges == 6000
    assert len(links(made) - lattice) / 6000 == pytest.approx(0.2, abs=0.03)


def test_scale_free_has_hubs():
    degree = scale_free(2000, m=3, seed=0).in_degree
    assert degree.sum() == 2 * 3 * (2000 - 3)
    assert degree.min() == 3
    assert degree.max() > 60  # a random graph of mean degree 6 has no agent above 25


def test_random_geometric_joins_those_in_reach():
    place = uniform_positions(60, seed=5)
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1)
    expected = set(zip(*np.nonzero((apart <= 0.2) & (apart > 0)), strict=True))
    assert links(random_geometric(60, radius=0.2, seed=5)) == expected


def test_build_takes_names_and_mappings():
    assert links(build("ring", 5)) == links(ring(5))
    assert links(build({"name": "torus", "rows": 3}, 12)) == links(torus(12, rows=3))
    assert build({"name": "small_world", "k": 6, "p": 0.5}, 20, seed=2).name == "small_world(k=6, p=0.5)"


@pytest.mark.parametrize(
    ("given_spec", "error", "match"),
    [
        ("rign", ValueError, "unknown topology 'rign'; did you mean 'ring'\\? One of: empty, complete, ring"),
        (
            {"name": "small_world", "kk": 4},
            ValueError,
            "topology 'small_world': unknown argument 'kk'; did you mean 'k'",
        ),
        ({"name": "ring", "k": 4}, ValueError, "topology 'ring': unknown argument 'k'; it takes none"),
        ({"k": 4}, ValueError, "topology: expected a name or a mapping with one, got {'k': 4}"),
        ("erdos_renyi", ValueError, "topology 'erdos_renyi': needs p"),
        ({"name": "small_world", "k": 4.0}, TypeError, "topology 'small_world': k must be an integer, got 4.0"),
        ({"name": "small_world", "p": "high"}, TypeError, "topology 'small_world': p must be a number, got 'high'"),
        ({"name": "small_world", "k": 5}, ValueError, "small_world: k must be even, .* below num_agents = 12, got 5"),
        ({"name": "small_world", "p": 1.5}, ValueError, r"small_world: p must be in \[0, 1\], got 1.5"),
        ({"name": "scale_free", "m": 12}, ValueError, r"scale_free: m must be in 1\.\.11 for 12 agents, got 12"),
        ({"name": "erdos_renyi", "p": -0.1}, ValueError, "erdos_renyi: p must be in"),
        ({"name": "random_geometric", "radius": 0}, ValueError, "random_geometric: radius must be positive, got 0"),
        ({"name": "grid", "rows": 5}, ValueError, "grid: rows \\* cols must be num_agents = 12, got rows 5, cols None"),
        ({"name": "torus", "rows": 3, "cols": 3}, ValueError, "torus: rows \\* cols must be num_agents = 12"),
        ({"name": "grid", "cols": 0}, ValueError, "grid: rows \\* cols must be num_agents"),
        ({"name": "tree", "branching": 0}, ValueError, "tree: branching must be at least 1, got 0"),
    ],
)
def test_build_says_what_is_wrong(given_spec, error, match):
    with pytest.raises(error, match=match):
        build(given_spec, num_agents=12)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_no_agents_are_refused(name):
    with pytest.raises(ValueError, match=r"num_agents|for 0 agents"):
        build(spec(name), num_agents=0)


def test_complete_refuses_what_would_fill_the_memory():
    with pytest.raises(ValueError, match="complete: at most 10000 agents, got 100000; choose a sparse topology"):
        complete(100_000)


@pytest.mark.parametrize(
    "large",
    [
        {"name": "torus"},
        {"name": "small_world", "k": 8},
        {"name": "scale_free", "m": 4},
        {"name": "erdos_renyi", "p": 8e-5},
        {"name": "random_regular", "degree": 8},
        {"name": "random_geometric", "radius": 0.00505},
    ],
)
def test_a_hundred_thousand_agents(large):
    topology = build(large, 100_000)
    expected = 4 if large["name"] == "torus" else 8
    assert topology.num_edges / 100_000 == pytest.approx(expected, rel=0.02)
