from __future__ import annotations

from pathlib import Path

import door_fixtures as fixtures
import networkx as nx
import pytest
import torch

import envs
from coordination.topology import Topology
from envs.wrappers import HideColumns, WithGraph

HERE = str(Path(__file__).with_name("door_fixtures.py"))
SPREAD = "mpe2.simple_spread_v3"


def edges_of(graph):
    """Sender-receiver pairs of a fixed topology, or of each sample."""
    if graph.topology is not None:
        return {tuple(pair) for pair in graph.topology.edges.T.tolist()}
    n = graph.num_agents
    return [{(a, b) for a, b in sample.T.tolist() if a < n} for sample in graph.edges]


# -- hidden columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["spread", SPREAD])
def test_hidden_columns_read_zero_and_nothing_else_changes(env):
    open_env, hidden = (
        envs.make(env, num_envs=2),
        envs.make(env, num_envs=2, wrappers=[{"name": "hide", "columns": [[10, 14]]}]),
    )
    a, b = open_env.reset(seed=1), hidden.reset(seed=1)
    actions = torch.randint(5, (30, 2, 3, 1), generator=torch.Generator().manual_seed(0))
    keep = [*range(10), *range(14, 18)]
    for action in actions:
        assert torch.equal(a.obs[..., keep], b.obs[..., keep])
        assert a.obs[..., 10:14].any()
        assert not b.obs[..., 10:14].any()
        x, y = open_env.step(action), hidden.step(action)
        assert torch.equal(x.reward, y.reward)
        assert (x.next_view is x.view) == (y.next_view is y.view)
        assert not y.next_view.obs[..., 10:14].any()
        a, b = x.view, y.view


def test_parts_are_hidden_by_name_in_the_groups_that_have_them():
    env = envs.make(fixtures.Nested, wrappers=[{"name": "hide", "columns": ["role"]}])
    assert env.reset(seed=0).obs[0, 0].tolist() == [0, 1, 0.5, 0, 0, 0, 0]
    with pytest.raises(
        ValueError, match=r"unknown observation part 'rolle'; did you mean 'role'\? One of: board, role"
    ):
        HideColumns(envs.make(fixtures.Nested), ["rolle"])


def test_ranges_outside_an_observation_are_refused():
    with pytest.raises(ValueError, match=r"expected a part or \[start, stop\] within the 2 columns of group 'caller'"):
        envs.make(fixtures.Events, wrappers=[{"name": "hide", "columns": [[1, 3]]}])


def test_wrapped_environments_go_on_exactly():
    env = envs.make(SPREAD, num_envs=2, graph="none", wrappers=[{"name": "hide", "columns": [[0, 2]]}])
    env.reset(seed=3)
    action = torch.ones(2, 3, 1, dtype=torch.int64)
    env.step(action)
    saved = env.state_dict()
    expected = env.step(action).view.obs
    view = env.load_state_dict(saved)
    assert not view.obs[..., :2].any()
    assert env.resume_exact
    assert torch.equal(env.step(action).view.obs, expected)
    env.close()


# -- graphs ------------------------------------------------------------------------------------------


def test_few_agents_hear_everyone_by_default():
    view = envs.make(SPREAD, N=3).reset(seed=0)
    assert edges_of(view.graph) == {(i, j) for i in range(3) for j in range(3) if i != j}


@pytest.mark.parametrize("env", ["spread", SPREAD])
def test_a_chosen_graph_acts_on_native_and_third_party_environments(env):
    quiet = envs.make(env, num_envs=2, graph="none")
    assert edges_of(quiet.reset(seed=0).graph) == set()
    step = quiet.step(torch.zeros(2, 3, 1, dtype=torch.int64))
    assert edges_of(step.view.graph) == set()
    told = envs.make(env, graph=lambda made: [[0] * (made.agents.num_agents - 1), [*range(1, made.agents.num_agents)]])
    assert edges_of(told.reset(seed=0).graph) == {(0, 1), (0, 2)}
    given = envs.make(env, graph=Topology([[2], [0]], 3))
    assert edges_of(given.reset(seed=0).graph) == {(2, 0)}


def test_topologies_are_built_by_name_and_from_the_seed():
    ring = envs.make(SPREAD, N=5, graph="ring").reset(seed=0).graph
    expected = {(i, (i + d) % 5) for i in range(5) for d in (1, 4)}
    assert edges_of(ring) == expected

    def small_world(seed):
        env = envs.make(SPREAD, N=10, seed=seed, graph={"name": "small_world", "k": 4, "p": 0.5})
        return edges_of(env.reset(seed=0).graph)

    assert small_world(0) == small_world(0)
    assert small_world(0) != small_world(1)


@pytest.mark.parametrize(
    ("suffix", "too_few"),
    [("graphml", "expected 2 agents, got 3 nodes"), ("edgelist", r"line 2: agents are 0\.\.1, got 1 and 2")],
)
def test_topologies_are_read_from_files(tmp_path, suffix, too_few):
    path = tmp_path / f"net.{suffix}"
    graph = nx.path_graph(3)
    nx.write_graphml(graph, path) if suffix == "graphml" else nx.write_edgelist(graph, path, data=False)
    view = envs.make(SPREAD, N=3, graph=str(path)).reset(seed=0)
    assert edges_of(view.graph) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    with pytest.raises(ValueError, match=too_few):
        envs.make(SPREAD, N=2, graph=str(path))
    with pytest.raises(ValueError, match="graph: there is no file"):
        envs.make(SPREAD, graph=str(tmp_path / "nowhere.graphml"))


def brute_force(position, k=None, radius=None):
    """Pairs (sender, receiver) by the definition."""
    distance = torch.cdist(position.double(), position.double()).fill_diagonal_(torch.inf)
    if k is not None:
        return {(int(j), i) for i, row in enumerate(distance) for j in row.argsort()[:k]}
    return {(int(j), i) for i, row in enumerate(distance) for j in (row <= radius).nonzero().flatten()}


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"name": "knn", "k": 2, "on": [2, 4]}, {"k": 2}),
        ({"name": "radius", "r": 0.8, "on": [2, 4]}, {"radius": 0.8}),
    ],
)
def test_neighbours_are_found_anew_at_every_view(setting, rule):
    env = envs.make(SPREAD, num_envs=3, N=6, graph=setting)
    view = env.reset(seed=2)
    seen = set()
    for action in torch.randint(5, (8, 3, 6, 1), generator=torch.Generator().manual_seed(0)):
        for sample, pairs in zip(view.obs, edges_of(view.graph), strict=True):
            assert pairs == brute_force(sample[:, 2:4], **rule)
            seen.add(frozenset(pairs))
        view = env.step(action).view
    assert len(seen) > 3


def test_links_beyond_the_capacity_are_dropped_and_counted():
    env = envs.make(SPREAD, N=5, graph={"name": "radius", "r": 100, "on": [2, 4], "capacity": 3})
    assert all(len(pairs) == 5 * 3 for pairs in edges_of(env.reset(seed=0).graph))
    env.step(torch.zeros(1, 5, 1, dtype=torch.int64))
    assert env.graph_source.dropped == 2 * 5


def test_positions_are_found_by_the_name_of_a_part():
    env = envs.make("spread", num_envs=2, graph="knn:1")
    assert any(p.name == "position" for p in env.agents.groups[0].observation.parts)
    start = next(p.start for p in env.agents.groups[0].observation.parts if p.name == "position")
    view = env.reset(seed=1)
    for sample, pairs in zip(view.obs, edges_of(view.graph), strict=True):
        assert pairs == brute_force(sample[:, start : start + 2], k=1)


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        ("knn", ValueError, "say how many or how far, as in knn:3"),
        ("knn:many", ValueError, "expected a whole number after the colon, got 'many'"),
        ("radius:x", ValueError, "expected a number after the colon, got 'x'"),
        ("knn:3", ValueError, "not every agent's observation has a part 'position'"),
        ({"name": "knn", "k": 0, "on": [2, 4]}, ValueError, "k must be a whole number from 1 up, got 0"),
        ({"name": "knn", "n": 3}, ValueError, "unknown argument of graph knn 'n'"),
        ({"name": "radius", "r": -1, "on": [2, 4]}, ValueError, "r must be a positive number, got -1"),
        ({"name": "radius", "r": 1, "on": [16, 20]}, ValueError, r"\[start, stop\] within the 18 columns"),
        ("rign", ValueError, r"unknown topology 'rign'; did you mean 'ring'"),
        (3, TypeError, "graph: expected a name, a mapping, a file or a function, got int"),
        (Topology([[1], [0]], 2), ValueError, "graph: expected 3 agents, got 2"),
    ],
)
def test_bad_graphs_are_refused(graph, error, message):
    with pytest.raises(error, match=message):
        envs.make(SPREAD, graph=graph)


def test_a_graph_can_be_put_on_any_vector_env():
    env = WithGraph(envs.make("climbing", num_envs=2), "none")
    assert edges_of(env.reset(seed=0).graph) == set()
    assert (env.num_envs, env.agents.num_agents, env.device) == (2, 2, torch.device("cpu"))


# -- SuperSuit ---------------------------------------------------------------------------------------


def test_preprocessing_is_worn_in_order():
    wrappers = [
        {"name": "frame_stack_v1", "stack_size": 3},
        {"name": "clip_reward_v0", "lower_bound": 0, "upper_bound": 2},
    ]
    env = envs.make(fixtures.Base, wrappers=wrappers)
    assert env.agents.obs_dim == 6
    env.reset(seed=0)
    env.step(torch.zeros(1, 2, 1, dtype=torch.int64))
    step = env.step(torch.zeros(1, 2, 1, dtype=torch.int64))
    assert step.view.obs[0, 0, ::2].tolist() == [0, 1, 2]  # the times of the last three frames
    assert step.reward.tolist() == [[1, 1]]
    clipped = envs.make(fixtures.Base, wrappers=[{"name": "clip_reward_v0", "lower_bound": -1, "upper_bound": 0.25}])
    clipped.reset(seed=0)
    assert clipped.step(torch.zeros(1, 2, 1, dtype=torch.int64)).reward.tolist() == [[0.25, 0.25]]


@pytest.mark.parametrize(
    ("wrappers", "error", "message"),
    [
        (["frame_stak_v1"], ValueError, r"unknown wrapper 'frame_stak_v1'; did you mean 'frame_stack_v1'\?"),
        (
            ["black_death_v3"],
            ValueError,
            "'black_death_v3' is refused: dead agents are masked already; .* one step too long",
        ),
        (["concat_vec_envs_v1"], ValueError, r"is refused: copies and workers are made by envs\.make"),
        (["pad_observations_v0"], ValueError, "is refused: agents with different spaces are padded already"),
        (["observation_lambda_v0"], ValueError, "is refused: it takes functions"),
        ([{"name": "frame_stack_v1", "size": 3}], envs.EnvError, "wrapper 'frame_stack_v1': TypeError: .*'size'"),
        ([{"name": "hide"}], ValueError, "wrapper 'hide': expected columns"),
        (["hide"], ValueError, "wrapper 'hide': expected columns"),
        ([3], TypeError, "wrappers: expected a name or a mapping with a name, got 3"),
        ("frame_stack_v1", TypeError, "wrappers: expected a list of wrappers, got 'frame_stack_v1'"),
    ],
)
def test_bad_wrappers_are_refused(wrappers, error, message):
    with pytest.raises(error, match=message):
        envs.make(fixtures.Base, wrappers=wrappers)


def test_preprocessing_is_for_third_party_environments():
    with pytest.raises(ValueError, match="wrappers: only for third-party environments; Climbing is a native one"):
        envs.make("climbing", wrappers=["clip_reward_v0"])
