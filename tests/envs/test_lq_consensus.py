"""Linear-quadratic consensus: rules by hand, and the optimum against SciPy, published numbers and simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_are

from coordination.topology import Topology
from coordination.topology.builders import build
from envs.base import View
from envs.checks import check
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.population.lq_consensus import LQConsensus, Values
from envs.population.riccati import cost_of_gain, cost_to_go, optimal_cost, optimal_gain, riccati, spectrum
from envs.scripted import random_action

RANDOM = {"name": "small_world", "k": 4, "p": 0.3}


def at(task: LQConsensus, value: torch.Tensor):
    """The state in which modules hold ``value [B, N]``."""
    return replace(task.initial(torch.Generator(), len(value)), modules=Values(value))


def unit_cost(task: LQConsensus, steps: int, policy) -> float:
    """The exact expected cost per module of a linear policy: the sum over starts with a single 1 (no push is cut)."""
    state, generator, total = at(task, torch.eye(task.num_agents)), torch.Generator(), 0.0
    for t in range(steps):
        state, reward, _ = task.advance(state, policy(task.view(state), t), generator)
        total -= float(reward.sum())
    return total / task.num_agents


def laplacian(topology: Topology) -> np.ndarray:
    return topology.laplacian().dense().numpy()


# -- the rules ----------------------------------------------------------------------------------------


def test_a_step_by_hand():
    """0 - 1 - 2 hold 0, 1, 3 and push 1, 0, -5 (cut at -3): half of 1, of 1 + 4, of 4, and twice 1, 0, 9."""
    task = LQConsensus(num_agents=3, topology="path", control_cost=2.0)
    state = at(task, torch.tensor([[0.0, 1.0, 3.0]]))
    view = task.view(state)
    assert view.obs.tolist() == [[[0.0, 1.0], [1.0, 0.5], [3.0, -2.0]]]
    assert float(task.info(state)["deviation"]) == pytest.approx(np.std([0, 1, 3]))
    after, reward, terminated = task.advance(state, torch.tensor([[[1.0], [0.0], [-5.0]]]), torch.Generator())
    assert reward.tolist() == [[-2.5, -2.5, -20.0]]
    assert after.modules.value.tolist() == [[1.0, 1.0, 0.0]]
    assert not terminated.any()


@given(n=st.integers(2, 12), seed=st.integers(0, 99), r=st.floats(0.1, 5))
def test_rewards_add_up_to_the_quadratic_form(n, seed, r):
    task = LQConsensus(num_agents=n, topology=build({"name": "erdos_renyi", "p": 0.5}, n, seed), control_cost=r)
    value, push = torch.randn(2, 4, n, generator=torch.Generator().manual_seed(seed)).clamp(-3, 3).unbind()
    _, reward, _ = task.advance(at(task, value), push.unsqueeze(-1), torch.Generator())
    x, u = value.double().numpy(), push.double().numpy()
    expected = np.einsum("bi,ij,bj->b", x, laplacian(task.topology), x) + r * (u * u).sum(1)
    assert np.allclose(-reward.sum(-1), expected, rtol=1e-4, atol=1e-4)


def test_links_that_are_down_cost_nothing_and_empty_slots_stay_out():
    task = LQConsensus(num_agents=3, topology="path", dynamics={"leave": 0.1, "drop": 0.5})
    state = at(task, torch.tensor([[0.0, 1.0, torch.nan]]))
    live = (task.topology.edges == torch.tensor([[0], [1]])).all(0).unsqueeze(0)  # 1 hears 0, and that is all
    absent = torch.tensor([[False, False, True]])
    state = replace(state, graph=replace(state.graph, live=live), conditions=replace(state.conditions, absent=absent))
    _, reward, _ = task.advance(
        state, torch.full((1, 3, 1), torch.nan).index_fill(1, torch.tensor([0, 1]), 0), torch.Generator()
    )
    assert reward.tolist() == [[0.0, -0.5, 0.0]]
    assert float(task.info(state)["deviation"]) == 0.5
    view = task.view(state)
    assert view.obs[0, :2].tolist() == [[0.0, 0.0], [1.0, -1.0]]
    assert riccati(view, task.agents)[0, :2].isfinite().all()


@pytest.mark.parametrize("dynamics", [None, {"fail": 0.1, "repair": 0.5, "leave": 0.1, "join": 0.5, "drop": 0.1}])
def test_keeps_the_rules(dynamics):
    check(NativeParallel(LQConsensus(num_agents=4, dynamics=dynamics))).raise_if_failed()


# -- the optimum --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "per_module"), [(10, 2.626184), (692, 2.636618), (100_000, 2.636620)])
def test_the_published_numbers_of_rings(n, per_module):
    assert optimal_cost(build("ring", n)) == pytest.approx(per_module, abs=5e-7)


@pytest.mark.parametrize(("topology", "r"), [("ring", 1.0), ("star", 0.3), (RANDOM, 2.0)])
def test_agrees_with_a_general_solver(topology, r):
    """SciPy's algebraic Riccati equation, on the complement of consensus, where nothing has to be done."""
    graph = build(topology, 12, seed=1)
    basis = np.linalg.qr(np.c_[np.ones(12), np.eye(12)[:, 1:]])[0][:, 1:]
    one = np.eye(11)
    p = solve_discrete_are(one, one, basis.T @ laplacian(graph) @ basis, r * one)
    assert optimal_cost(graph, r) == pytest.approx(np.trace(p) / 12, rel=1e-9)
    gain = basis @ np.linalg.solve(r * one + p, p) @ basis.T
    assert np.allclose(optimal_gain(graph, r), gain, atol=1e-8)
    assert cost_of_gain(gain, graph, r) == pytest.approx(optimal_cost(graph, r), rel=1e-9)


@pytest.mark.parametrize("topology", ["ring", "grid", RANDOM])
def test_short_episodes_attain_their_optimum(topology):
    """The best pushes with t steps to go, in the environment itself; nothing else costs less."""
    task = LQConsensus(num_agents=12, topology=topology, control_cost=0.7, horizon=6)
    value, vector = np.linalg.eigh(laplacian(task.topology))

    def push(view: View, t: int, scale: float = 1.0) -> torch.Tensor:
        to_go = cost_to_go(value.clip(min=0), 0.7, 5 - t)  # after this step
        gain = (vector * (to_go / (0.7 + to_go))) @ vector.T
        return -scale * (view.obs[..., 0] @ torch.tensor(gain, dtype=torch.float32)).unsqueeze(-1)

    best = unit_cost(task, 6, push)
    assert best == pytest.approx(task.optimal_cost(), rel=1e-5)
    assert unit_cost(task, 6, lambda view, t: push(view, t, 0.95)) > best
    assert unit_cost(task, 6, lambda view, t: push(view, t, 1.05)) > best


@pytest.mark.parametrize(("topology", "n"), [("ring", 30), ("ring", 31), ("grid", 24), (RANDOM, 20)])
def test_the_scripted_policy_attains_the_optimum_of_long_episodes(topology, n):
    task = LQConsensus(num_agents=n, topology=topology)
    steps = 600  # the slowest mode of these is down by e^-60 then
    cost = unit_cost(task, steps, lambda view, t: riccati(view, task.agents))
    assert cost == pytest.approx(optimal_cost(task.topology), rel=1e-4)


def test_an_episode_of_the_environment_costs_what_it_should():
    """Through restarts, with drawn starts: 4 episodes of 3,000 rings; five standard errors."""
    task = LQConsensus(num_agents=20)
    env = NativeEnv(task, 3_000)
    view, cost = env.reset(seed=0), torch.zeros(4, 3_000)
    for t in range(4 * 32):
        step = env.step(riccati(view, env.agents))
        view, cost[t // 32] = step.view, cost[t // 32] - step.reward.mean(-1)
    assert step.over.all()
    error = float(cost.std() / 12_000**0.5)
    assert float(cost.mean()) == pytest.approx(task.optimal_cost(), abs=5 * error)
    assert error < 0.01


def test_random_play_costs_what_it_should():
    task = LQConsensus(num_agents=10, topology="star", control_cost=2.0, max_push=0.5, horizon=12)
    env, generator = NativeEnv(task, 10_000), torch.Generator().manual_seed(0)
    view, cost = env.reset(seed=0), torch.zeros(10_000)
    for _ in range(12):
        step = env.step(random_action(view, env.agents, generator))
        view, cost = step.view, cost - step.reward.mean(-1)
    assert float(cost.mean()) == pytest.approx(task.random_cost(), abs=5 * float(cost.std()) / 100)
    assert float(cost.std()) / 100 < 0.02 * task.random_cost()


def test_gains_within_hops_cost_what_was_published_and_never_less_than_the_optimum():
    ring = build("ring", 10)
    cost = [10 * cost_of_gain(optimal_gain(ring, hops=k), ring) for k in (1, 2, 3, 5)]
    assert cost[:3] == pytest.approx([38.93, 28.76, 26.856], abs=5e-3)
    assert cost[3] == pytest.approx(10 * optimal_cost(ring), rel=1e-9)
    assert np.abs(optimal_gain(ring, hops=2).sum(1)).max() < 1e-12
    assert (optimal_gain(ring, hops=2)[0] != 0).tolist() == [True] * 3 + [False] * 5 + [True] * 2


def test_spectra_of_alike_places_equal_dense_ones():
    n = 11
    a = np.arange(n)
    chords = Topology.from_links(np.r_[a, a], np.r_[a + 1, a + 4] % n, n)
    for topology in (chords, build("ring", 8), build("complete", 7), build("empty", 4), build("ring", 2)):
        expected = np.linalg.eigvalsh(laplacian(topology))
        assert np.allclose(np.sort(spectrum(topology)), expected, atol=1e-9)


def test_from_random_to_riccati_at_every_size():
    for n in (16, 64, 692, 10_000):
        task = LQConsensus(num_agents=n)
        assert task.optimal_cost() == pytest.approx(2.6365, abs=0.005)
        assert task.random_cost() > 1000 * task.optimal_cost()


def test_refusals():
    with pytest.raises(ValueError, match="control_cost: must be above 0, got 0"):
        LQConsensus(control_cost=0)
    with pytest.raises(ValueError, match="max_push: must be above 0, got -1"):
        LQConsensus(max_push=-1)
    with pytest.raises(ValueError, match="spectrum: needs an undirected topology, 'exponential' has one-way edges"):
        LQConsensus(topology="exponential").optimal_cost()
    with pytest.raises(ValueError, match="spectrum: 5000 modules are too many unless all places are alike"):
        LQConsensus(num_agents=5_000, topology="grid").optimal_cost()
    task = LQConsensus(dynamics={"rewire": 0.1})
    with pytest.raises(ValueError, match="riccati: needs one topology for all copies"):
        riccati(task.view(task.initial(torch.Generator(), 1)), task.agents)
