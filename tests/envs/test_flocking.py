"""Flocking: motion and rewards by hand, averaging against its closed form, and costs between their bounds."""

from __future__ import annotations

from dataclasses import replace
from math import cos, pi

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import fminbound
from torch.testing import assert_close

from envs.checks import check
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.population.base import PopulationState
from envs.population.flocking import REACH, Flock, Flocking, local_averaging
from envs.scripted import random_action

TASKS = ("flocking", "rendezvous")


def placed(task: Flocking, position: torch.Tensor, velocity: torch.Tensor | None = None) -> PopulationState[Flock]:
    """A first state with modules as given: ``[B, N, 2]``."""
    velocity = torch.zeros_like(position) if velocity is None else velocity
    flock = Flock(position, velocity, task.sensing)
    state = task.initial(torch.Generator(), len(position))
    return replace(state, modules=flock, graph=task.links(flock))


def agreed(task: Flocking, state: PopulationState[Flock]) -> torch.Tensor:
    return state.modules.velocity if task.flocking else state.modules.position


def onward(task: Flocking, state: PopulationState[Flock], action: torch.Tensor) -> PopulationState[Flock]:
    return task.advance(state, action, torch.Generator())[0]


def follow(task: Flocking, state: PopulationState[Flock], steps: int) -> tuple[PopulationState[Flock], torch.Tensor]:
    """The state after some steps of local averaging, and the team's cost ``[B]``."""
    cost = torch.zeros(len(state.reward))
    for _ in range(steps):
        state = onward(task, state, local_averaging(task.view(state), task.agents))
        cost -= state.reward.sum(-1)
    return state, cost


def test_one_step_of_flocking_by_hand():
    """T = 0.1: r += .1 v + .005 u, v += .1 u, with the action cut at 1; then the distance to the mean velocity."""
    task = Flocking(num_agents=2)
    state = placed(task, torch.tensor([[[0.0, 0], [1, 1]]]), torch.tensor([[[1.0, 0], [0, 0]]]))
    after, reward, terminated = task.advance(state, torch.tensor([[[1.0, -0.5], [-3, 0]]]), torch.Generator())
    assert_close(after.modules.position, torch.tensor([[[0.105, -0.0025], [0.995, 1]]]))
    assert_close(after.modules.velocity, torch.tensor([[[1.1, -0.05], [-0.1, 0]]]))
    assert_close(reward, torch.full((1, 2), -(0.6**2 + 0.025**2)))
    assert not terminated.any()


def test_one_step_of_rendezvous_by_hand():
    task = Flocking(num_agents=2, task="rendezvous")
    state = placed(task, torch.tensor([[[0.0, 0], [1, 1]]]))
    after, reward, _ = task.advance(state, torch.tensor([[[1.0, 0.5], [-3, 0]]]), torch.Generator())
    assert_close(after.modules.position, torch.tensor([[[0.1, 0.05], [0.9, 1]]]))
    assert_close(after.modules.velocity, torch.tensor([[[1.0, 0.5], [-1, 0]]]))
    assert_close(reward, torch.full((1, 2), -(0.4**2 + 0.475**2)))


def test_what_is_seen_by_hand():
    """On a line at 0, 1, 3 and 10 with radius 2: 1 hears both sides, the last hears nobody."""
    task = Flocking(num_agents=4, topology="radius:2")
    position = torch.tensor([[[0.0, 0], [1, 0], [3, 0], [10, 0]]])
    velocity = torch.tensor([[[0.0, 0.2], [0, 0], [0, 0.6], [1, 1]]])
    obs = task.view(placed(task, position, velocity)).obs[0]
    parts = {p.name: obs[:, p.start : p.stop] for p in task.agents.groups[0].observation.parts}
    assert_close(parts["disagreement"], torch.tensor([[0.0, -2], [0, 4], [0, -6], [0, 0]]))
    assert_close(parts["offset"], torch.tensor([[1.0, 0], [0.5, 0], [-2, 0], [0, 0]]))
    assert_close(parts["velocity"], velocity[0])
    assert parts["neighbours"].squeeze(-1).tolist() == [1, 2, 1, 0]
    meeting = Flocking(num_agents=4, topology="radius:2", task="rendezvous")
    obs = meeting.view(placed(meeting, position, velocity)).obs[0]
    assert_close(obs[:, :2], torch.tensor([[10.0, 0], [5, 0], [-20, 0], [0, 0]]))
    assert_close(obs[:, 2:], torch.cat([velocity[0], torch.tensor([[1.0], [2], [1], [0]])], -1))


def test_information_by_hand():
    task = Flocking(num_agents=4, topology="radius:2")
    position = torch.tensor([[[0.0, 0], [1, 0], [3, 0], [8, 0]]])
    velocity = torch.tensor([[[2.0, 0], [0, 1], [0, -5], [0, 0]]])
    info = {name: x.item() for name, x in task.info(placed(task, position, velocity)).items()}
    assert info["variance"] == pytest.approx((2.25 + 1 + 0.25 + 4 + 0.25 + 16 + 0.25 + 1) / 4)
    assert info["order"] == pytest.approx(0.25)  # headings right, up, down, and none
    assert info["spread"] == pytest.approx(((9 + 4 + 0 + 25) / 4) ** 0.5)
    assert (info["neighbours"], info["dropped"]) == (1.0, 0.0)


def test_links_without_a_slot_are_counted():
    """Five in one place with two slots each: of 20 links 10 are dropped; the k nearest leave none out."""
    crowd = torch.zeros(1, 5, 2)
    task = Flocking(num_agents=5, capacity=2)
    state = placed(task, crowd)
    assert task.info(state)["dropped"].tolist() == [10.0]
    assert task.info(state)["neighbours"].tolist() == [2.0]
    nearest = Flocking(num_agents=5, topology="knn:3")
    assert nearest.info(placed(nearest, crowd))["dropped"].tolist() == [0.0]
    assert nearest.info(placed(nearest, crowd))["neighbours"].tolist() == [3.0]


@pytest.mark.parametrize("n", [200, 3_000])
def test_density_and_edge_slots_do_not_depend_on_the_number_of_modules(n):
    """Away from the border a disc of radius 1.5 holds 7.07 others on average."""
    task = Flocking(num_agents=n)
    state = task.initial(torch.Generator().manual_seed(0), 2)
    inner = (state.modules.position.abs() < n**0.5 / 2 - 1.5).all(-1)
    assert task.view(state).obs[..., -1][inner].mean().item() == pytest.approx(pi * 1.5**2, rel=0.05)
    assert state.graph.edges is not None
    assert state.graph.edges.shape == (2, 2, 16 * n)


@pytest.mark.parametrize("task", TASKS)
def test_averaging_on_a_ring_contracts_as_its_eigenvalue_says(task):
    """A wave cos(2 pi k i / N) small enough not to be cut shrinks by (1 + cos(2 pi k / N)) / 2 a step."""
    n, waves = 12, (1, 2, 5)
    env = Flocking(num_agents=n, task=task, topology="ring")
    wave = torch.tensor([[0.05 * cos(2 * pi * k * i / n) for i in range(n)] for k in waves])
    x = torch.stack([wave, -2 * wave], -1)
    state = placed(env, *((torch.zeros_like(x), x) if env.flocking else (x,)))
    state, _ = follow(env, state, 10)
    factor = torch.tensor([((1 + cos(2 * pi * k / n)) / 2) ** 10 for k in waves])
    assert_close(agreed(env, state), x * factor.reshape(-1, 1, 1), atol=1e-6, rtol=1e-4)


@given(seed=st.integers(0, 1000), task=st.sampled_from(TASKS), links=st.sampled_from(["radius:1", "knn:2", "star"]))
def test_averaging_never_widens(seed, task, links):
    """Law: along either axis all stay between the least and the greatest, connected or not."""
    env = Flocking(num_agents=9, task=task, topology=links)
    state = env.initial(torch.Generator().manual_seed(seed), 3)
    for _ in range(5):
        before = agreed(env, state)
        state, _ = follow(env, state, 1)
        after = agreed(env, state)
        assert (after.amax(1) <= before.amax(1) + 1e-5).all()
        assert (after.amin(1) >= before.amin(1) - 1e-5).all()


@pytest.mark.parametrize(
    ("task", "links"), [("flocking", "radius:100"), ("rendezvous", "radius:6"), ("flocking", "ring")]
)
def test_averaging_agrees_and_chance_does_not(task, links):
    """Everyone in sight (or on a ring): disagreement falls below a thousandth of what it was, and stays at random."""
    env = NativeEnv(Flocking(num_agents=16, task=task, topology=links, capacity=15, horizon=300), 8)
    generator = torch.Generator().manual_seed(0)
    reached = []
    for policy in (lambda view: local_averaging(view, env.agents), lambda v: random_action(v, env.agents, generator)):
        step = env.step(policy(env.reset(seed=4)))
        first = step.info["variance"]
        for _ in range(298):
            step = env.step(policy(step.view))
        reached.append(step.info["variance"] / first)
    assert reached[0].max() < 1e-3
    assert reached[1].min() > 0.1


def test_headings_align_in_a_flock_that_moves():
    """With a common drift, agreement on the velocity is one heading for all (order 1), over links that move along."""
    task = Flocking(num_agents=30, topology="knn:10")
    state = task.initial(torch.Generator().manual_seed(1), 4)
    drift = torch.tensor([2.0, 0.0])
    state = placed(task, state.modules.position, state.modules.velocity + drift)
    assert (task.info(state)["order"] < 0.97).all()
    state, _ = follow(task, state, 100)
    assert (task.info(state)["order"] > 0.9999).all()


@pytest.mark.parametrize("task", TASKS)
def test_two_modules_attain_the_least_cost(task):
    """Two at distance 2 a along x pay 2 (a - t REACH)^2 after t steps at full speed, and the bound says the same."""
    env, a, steps = Flocking(num_agents=2, task=task, topology="complete"), 0.55, 8
    x = torch.tensor([[[a, 0.3], [-a, 0.3]]])
    state = placed(env, *((torch.zeros_like(x), x) if env.flocking else (x,)))
    exact = sum(2 * max(0.0, a - t * REACH) ** 2 for t in range(1, steps + 1))
    assert env.least_cost(state, steps).item() == pytest.approx(exact, abs=1e-6)
    cost = 0.0
    for _ in range(steps):
        gap = agreed(env, state).mean(1, keepdim=True) - agreed(env, state)
        state = onward(env, state, gap / REACH)
        cost -= state.reward.sum().item()
    assert cost == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_costs_stay_above_the_bound_and_full_speed_comes_close(task):
    """Twelve modules in 200 copies: full speed to the first mean pays 1.02 times the bound on average, chance twice."""
    flocking, generator = Flocking(num_agents=12, task=task, topology="complete"), torch.Generator().manual_seed(0)
    start = flocking.initial(generator, 200)
    goal, least = agreed(flocking, start).mean(1, keepdim=True), flocking.least_cost(start, 30)

    def cost(policy) -> torch.Tensor:
        state, total = start, torch.zeros(200)
        for _ in range(30):
            state = onward(flocking, state, policy(state))
            total -= state.reward.sum(-1)
        assert (total >= least * (1 - 1e-5)).all()
        return total

    direct = cost(lambda state: (goal - agreed(flocking, state)) / REACH)
    averaging = cost(lambda state: local_averaging(flocking.view(state), flocking.agents))
    chance = cost(lambda state: random_action(flocking.view(state), flocking.agents, generator))
    assert (direct / least).mean() < 1.03
    assert (averaging / least).mean() < 1.1
    assert (chance / least).mean() > 2


def test_the_bound_equals_a_general_minimiser():
    """After three steps along one axis, against SciPy's scalar minimisation."""
    env = Flocking(num_agents=5, task="rendezvous", topology="complete")
    place = np.array([-2.0, -0.1, 0.0, 0.7, 3.0])
    state = placed(env, torch.tensor(np.stack([place, np.zeros(5)], -1)[None], dtype=torch.float32))
    total = 0.0
    for t in (1, 2, 3):
        cost = lambda c, t=t: float((np.maximum(0, np.abs(place - c) - t * REACH) ** 2).sum())  # noqa: E731
        total += cost(fminbound(cost, -2, 3, xtol=1e-10))
    assert env.least_cost(state, 3).item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("links", ["radius:1.5", "knn:4", "torus"])
@pytest.mark.parametrize("task", TASKS)
def test_modules_that_leave_fail_and_come_disturb_nobody(task, links):
    """Means over the living alone, whatever the slots hold; what is heard is what the graph says."""
    dynamics = {"leave": 0.1, "join": 0.2, "fail": 0.05, "repair": 0.3, "drop": 0.2, "partition": 0.1, "heal": 0.3}
    env = NativeEnv(Flocking(num_agents=80, task=task, topology=links, dynamics=dynamics), 3)
    view, generator = env.reset(seed=0), torch.Generator().manual_seed(1)
    left = False
    for _ in range(25):
        step = env.step(random_action(view, env.agents, generator))
        view, left = step.view, left or bool(step.terminated.any())
        assert torch.isfinite(view.obs).all()
        assert torch.isfinite(step.reward).all()
        assert all(torch.isfinite(x).all() for x in step.info.values())
        edges, weight, _ = view.graph.flat(3, view.alive)
        heard = torch.bincount(edges[1][edges[1] < 240], minlength=240).view(3, 80)
        assert weight is None
        assert torch.equal(view.obs[..., -1].long()[view.alive], heard[view.alive])
        assert (view.obs[~view.alive] == 0).all()
    assert left
    assert not view.alive.all()


def test_failed_modules_drift_or_stand_still():
    for task in TASKS:
        env = Flocking(num_agents=6, task=task, topology="complete", dynamics={"fail": 1.0})
        state = onward(env, env.initial(torch.Generator().manual_seed(0), 2), torch.ones(2, 6, 2))
        assert state.works is not None
        assert not state.works.any()
        after = onward(env, state, torch.ones(2, 6, 2))
        assert_close(after.modules.velocity, state.modules.velocity if env.flocking else torch.zeros(2, 6, 2))
        assert (env.view(after).obs[..., -1] == 0).all()


@given(seed=st.integers(0, 1000), task=st.sampled_from(TASKS))
def test_renaming_and_moving_everybody_changes_nothing(seed, task):
    """Law: what is seen and paid follows the modules through permutations and does not depend on the origin."""
    generator = torch.Generator().manual_seed(seed)
    env = Flocking(num_agents=10, task=task)
    state = env.initial(generator, 2)
    order = torch.randperm(10, generator=generator)
    flock = state.modules
    moved = placed(env, (flock.position + 3.0)[:, order], flock.velocity[:, order])
    assert_close(env.view(state).obs[:, order], env.view(moved).obs, atol=1e-3, rtol=0)
    action = torch.rand(2, 10, 2, generator=generator) * 2 - 1
    assert_close(
        onward(env, state, action).reward[:, order], onward(env, moved, action[:, order]).reward, atol=1e-4, rtol=1e-4
    )


def test_resumes_exactly():
    def played(env: NativeEnv, steps: int) -> list:
        rewards = []
        for _ in range(steps):
            step = env.step(torch.full((2, 20, 2), 0.3))
            rewards.append((step.reward.tolist(), step.info["dropped"].tolist(), step.view.obs.tolist()))
        return rewards

    first, second = (NativeEnv(Flocking(num_agents=20, dynamics={"drop": 0.1}, horizon=7), 2) for _ in range(2))
    first.reset(seed=1)
    played(first, 5)
    saved = first.state_dict()
    second.reset(seed=2)
    second.load_state_dict(saved)
    assert played(first, 6) == played(second, 6)


@pytest.mark.parametrize("task", TASKS)
def test_follows_the_rules_of_pettingzoo(task):
    report = check(NativeParallel(Flocking(num_agents=8, task=task, horizon=12, dynamics={"leave": 0.1, "join": 0.2})))
    report.raise_if_failed()
    assert report.replayable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "flokcing"}, "unknown task 'flokcing'; did you mean 'flocking'"),
        ({"topology": "radius:0"}, "topology 'radius:0': expected a positive number, as in radius:1.5"),
        ({"topology": "radius"}, "topology 'radius': expected a positive number"),
        ({"topology": "knn:2.5"}, "topology 'knn:2.5': expected a positive whole number, as in knn:7"),
        ({"topology": "knn:-1"}, "topology 'knn:-1': expected a positive whole number"),
        ({"topology": "rign"}, "unknown topology 'rign'; did you mean 'ring'"),
        ({"capacity": 0}, "capacity: must be at least 1, got 0"),
        ({"dynamics": {"rewire": 0.1}}, "rewire needs fixed places"),
        ({"horizon": 0}, "horizon: must be at least 1"),
        ({"num_agents": 1}, "num_agents: must be at least 2"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Flocking(**arguments)
