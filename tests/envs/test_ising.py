"""Ising reproduces exact enumeration and Onsager's closed form, and its rewards are the energy."""

from __future__ import annotations

from dataclasses import replace
from math import cosh, pi, sinh, tanh

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ellipk
from torch.testing import assert_close

from coordination.topology import Topology, ring, torus
from coordination.topology.builders import build
from envs.checks import check
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.population.base import PopulationState
from envs.population.ising import Ising, Spins, follow_field, heat_bath

SQUARE = {"name": "torus", "rows": 4, "cols": 4}
RANDOM_GRAPH = {"name": "erdos_renyi", "p": 0.3}


def magnetisation(temperature: float) -> float:
    """Of the infinite square lattice with J = 1, below the critical temperature (Onsager; Yang 1952)."""
    return (1 - sinh(2 / temperature) ** -4) ** (1 / 8)


def energy_per_spin(temperature: float) -> float:
    """Of the infinite square lattice with J = 1 (Onsager 1944)."""
    k = 1 / temperature
    modulus = 2 * sinh(2 * k) / cosh(2 * k) ** 2
    return -1 / tanh(2 * k) * (1 + 2 / pi * (2 * tanh(2 * k) ** 2 - 1) * ellipk(modulus**2))


def enumerated(topology: Topology, temperature: float) -> tuple[float, float]:
    """Mean size of the magnetisation and mean energy, per spin, over all configurations weighed by exp(-H / T)."""
    n = topology.num_agents
    spins = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sender, receiver = topology.edges.numpy()
    energy = -(spins[:, sender] * spins[:, receiver]).sum(1) / 2
    weight = np.exp(-(energy - energy.min()) / temperature)
    weight /= weight.sum()
    return float(weight @ np.abs(spins.mean(1))), float(weight @ energy) / n


def sampled(task: Ising, temperature: float, copies: int, steps: int, warmup: int) -> tuple[float, float]:
    """The same by heat bath through the environment's own steps."""
    env, generator = NativeEnv(task, copies), torch.Generator().manual_seed(7)
    view, order, energy = env.reset(seed=3), [], []
    for t in range(steps):
        step = env.step(heat_bath(view, temperature, generator))
        view = step.view
        if t >= warmup:
            order.append(step.info["order"].mean())
            energy.append(step.info["energy"].mean())
    return float(torch.stack(order).mean()), float(torch.stack(energy).mean())


def placed(task: Ising, spins: list) -> PopulationState[Spins]:
    """The first state of one copy, with spins as given."""
    state = task.initial(torch.Generator(), 1)
    return replace(state, modules=replace(state.modules, spin=torch.tensor([spins], dtype=torch.int8)))


def test_the_oracles_give_the_published_numbers():
    assert magnetisation(2.0) == pytest.approx(0.911319, abs=1e-6)
    assert magnetisation(1.5) == pytest.approx(0.986500, abs=1e-6)
    assert energy_per_spin(2.0) == pytest.approx(-1.745565, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.5, 2.0])
def test_heat_bath_reproduces_onsager(temperature):
    task = Ising(num_agents=64 * 64, updates="half", up=1.0, horizon=None)
    order, energy = sampled(task, temperature, copies=8, steps=1_000, warmup=200)
    assert order == pytest.approx(magnetisation(temperature), abs=6e-3)
    assert energy == pytest.approx(energy_per_spin(temperature), abs=6e-3)


def test_above_the_critical_temperature_order_is_lost():
    task = Ising(num_agents=64 * 64, updates="half", up=1.0, horizon=None)
    order, energy = sampled(task, 3.0, copies=8, steps=400, warmup=100)
    assert order < 0.06  # 1 / sqrt(N) = .016 times the root of the susceptibility
    assert energy == pytest.approx(energy_per_spin(3.0), abs=6e-3)


@pytest.mark.parametrize(
    ("setting", "temperature"), [(SQUARE, 2.5), (SQUARE, 4.0), ("grid", 2.0), ("path", 1.0), ("star", 3.0)]
)
def test_heat_bath_reproduces_enumeration(setting, temperature):
    """Turns of two colours sample exp(-H / T) exactly, on any topology that has two colours."""
    n = 16 if setting == SQUARE else 12
    exact = enumerated(build(setting, n), temperature)
    task = Ising(num_agents=n, topology=setting, updates="half", horizon=None)
    assert sampled(task, temperature, copies=2_048, steps=150, warmup=50) == pytest.approx(exact, abs=8e-3)


def test_heat_bath_all_at_once_samples_another_law():
    """Little's dynamics: at T = 2.5 the lattice of 16 is off by far more than the tolerance above."""
    task = Ising(num_agents=16, topology=SQUARE, updates="all", horizon=None)
    order, energy = sampled(task, 2.5, copies=2_048, steps=150, warmup=50)
    exact = enumerated(build(SQUARE, 16), 2.5)
    assert abs(order - exact[0]) > 0.05
    assert abs(energy - exact[1]) > 0.05


def test_boltzmann_over_own_rewards_is_the_heat_bath_at_twice_the_temperature():
    """With own rewards r(s) = s f / 2 (Yang et al. 2018), odds of +1 at tau are exp(f / tau): T = 2 tau."""
    field = torch.tensor([-4.0, -2, 0, 2, 4])
    view = Ising(num_agents=5, topology="ring").view(Ising(num_agents=5, topology="ring").initial(torch.Generator(), 1))
    view = replace(view, obs=torch.stack([torch.ones(5), field], -1).expand(200_000, 5, 2))
    tau, generator = 1.2, torch.Generator().manual_seed(0)
    rewards = torch.stack([-field / 2, field / 2], -1)
    chosen = heat_bath(view, 2 * tau, generator).squeeze(-1).float().mean(0)
    assert_close(chosen, torch.softmax(rewards / tau, -1)[:, 1], atol=5e-3, rtol=0)


def test_one_step_by_hand():
    """A ring of four, coupling 2: spins + + + - have fields 0 4 0 4 and rewards 0 2 0 -2."""
    task = Ising(num_agents=4, topology="ring", coupling=2.0)
    before = placed(task, [-1, -1, -1, -1])
    assert before.modules.spin.dtype == torch.int8
    after, reward, terminated = task.advance(before, torch.tensor([[[1], [1], [1], [0]]]), torch.Generator())
    assert task.view(after).obs[0].tolist() == [[1, 0], [1, 4], [1, 0], [-1, 4]]
    assert reward[0].tolist() == [0, 2, 0, -2]
    assert not terminated.any()
    info = task.info(after)
    assert (info["magnetisation"].item(), info["order"].item(), info["energy"].item()) == (0.5, 0.5, 0.0)
    assert task.ground == 8.0  # four links, each worth the coupling


@given(seed=st.integers(0, 1000), setting=st.sampled_from(["torus", "ring", "scale", RANDOM_GRAPH]))
def test_rewards_add_up_to_minus_the_energy(seed, setting):
    """Law: the team is paid lambda for every link whose ends agree, minus lambda for others; at most the ground."""
    generator = torch.Generator().manual_seed(seed)
    topology = build({"name": "scale_free", "m": 2} if setting == "scale" else setting, 24, seed)
    task = Ising(num_agents=24, topology=topology, coupling=-0.7 if seed % 2 else 1.3)
    state, reward, _ = task.advance(
        task.initial(generator, 3), torch.randint(2, (3, 24, 1), generator=generator), generator
    )
    spin = state.modules.spin.double()
    sender, receiver = topology.edges
    links = sender < receiver
    energy = -task.coupling * (spin[:, sender[links]] * spin[:, receiver[links]]).sum(-1)
    assert_close(reward.double().sum(-1), -energy, atol=1e-4, rtol=0)
    assert (reward.sum(-1) <= task.ground + 1e-4).all()
    assert_close(task.factors(state), reward)


@pytest.mark.parametrize(("rows", "cols"), [(3, 3), (3, 7), (5, 4), (2, 6), (16, 1)])
def test_rolling_equals_gathering(rows, cols):
    """The same links under other names take the other path: fields agree on every torus, the narrow ones included."""
    lattice = torus(rows * cols, rows, cols)
    assert (Ising(num_agents=rows * cols, topology=lattice)._lattice is None) == (min(rows, cols) < 3)
    task = Ising(num_agents=rows * cols, topology=lattice)
    state = task.initial(torch.Generator().manual_seed(1), 5)
    adjacency = lattice.adjacency().dense()
    assert_close(task.view(state).obs[..., 1].double(), state.modules.spin.double() @ adjacency.T)


@pytest.mark.parametrize("dynamics", [{"leave": 0.1, "join": 0.3}, {"drop": 0.3}, {"fail": 0.1, "repair": 0.2}])
def test_dynamics_reach_the_field(dynamics):
    """Fields and rewards count exactly the links that are up between the living."""
    task = Ising(num_agents=36, dynamics=dynamics, updates="half")
    env, generator = NativeEnv(task, 4), torch.Generator().manual_seed(2)
    view = env.reset(seed=0)
    sender, receiver = task.topology.edges
    for _ in range(20):
        before, there = view, view.graph.up()
        step = env.step(torch.randint(2, (4, 36, 1), generator=generator))
        view = step.next_view
        spin = torch.where(before.alive, view.obs[..., 0], 0.0)
        if "leave" not in dynamics:  # else who has just come has another spin than the one that was paid
            weight = spin[:, sender] if there is None else torch.where(there, spin[:, sender], 0.0)
            field = torch.zeros(4, 36).index_add_(1, receiver, weight)
            assert_close(step.reward, spin * field / 2)
        kept = ~before.acting
        assert (view.obs[..., 0] == before.obs[..., 0])[kept & before.alive & view.alive].all()
        assert (step.reward[~before.alive] == 0).all()
        up, now = view.graph.up(), torch.where(view.alive, view.obs[..., 0], 0.0)[:, sender]
        field = torch.zeros(4, 36).index_add_(1, receiver, now if up is None else torch.where(up, now, 0.0))
        assert_close(view.obs[..., 1][view.alive], field[view.alive])
        view = step.view


def test_halves_take_turns_and_never_hear_each_other():
    task = Ising(num_agents=36, updates="half")
    env = NativeEnv(task, 2)
    first = env.reset(seed=1)
    step = env.step(torch.ones(2, 36, 1, dtype=torch.int64))
    second = step.view
    assert first.acts is not None
    assert second.acts is not None
    assert (first.acts ^ second.acts).all()
    sender, receiver = task.topology.edges
    assert not (first.acts[:, sender] & first.acts[:, receiver]).any()
    assert (second.obs[..., 0] == torch.where(first.acts, 1.0, first.obs[..., 0])).all()
    third = env.step(torch.ones(2, 36, 1, dtype=torch.int64)).view
    assert (third.obs[..., 0] == 1).all()


def test_colours_follow_places_that_are_traded():
    task = Ising(num_agents=16, updates="half", dynamics={"rewire": 0.5})
    env = NativeEnv(task, 3)
    view = env.reset(seed=1)
    for _ in range(5):
        view = env.step(torch.zeros(3, 16, 1, dtype=torch.int64)).view
        assert view.acts is not None
        assert view.graph.edges is not None
        ends = [view.acts.gather(1, view.graph.edges[:, end]) for end in (0, 1)]
        assert (ends[0] ^ ends[1]).all()
    assert task.agents.factor_scopes is None


@given(seed=st.integers(0, 1000))
def test_best_responses_in_turn_never_lose_energy(seed):
    env = NativeEnv(Ising(num_agents=30, topology="grid", updates="half", horizon=None), 2)
    view, paid = env.reset(seed=seed), torch.full((2,), -torch.inf)
    for t in range(12):
        step = env.step(follow_field(view, env.agents))
        assert t == 0 or (step.reward.sum(-1) >= paid).all()
        view, paid = step.view, step.reward.sum(-1)


def test_best_responses_attain_the_ground_state_and_oscillate_all_at_once():
    """One wrong spin is corrected for good in turns; from a chequered pattern everybody flips at every step."""
    turns = Ising(num_agents=36, updates="half")
    spins = [-1] + [1] * 35
    state = placed(turns, spins)
    for _ in range(2):
        action = follow_field(turns.view(state), turns.agents)
        state = turns.advance(state, action, torch.Generator())[0]
    assert state.reward.sum().item() == turns.ground == 72.0
    together = Ising(num_agents=36)
    chequered = [1 if (i // 6 + i) % 2 else -1 for i in range(36)]
    state = placed(together, chequered)
    for flipped in (-1, 1, -1):
        action = follow_field(together.view(state), together.agents)
        state, reward, _ = together.advance(state, action, torch.Generator())
        assert (state.modules.spin[0] * flipped).tolist() == chequered
        assert reward.sum().item() == -72.0


def test_the_other_sign_of_the_coupling_orders_chequered():
    task = Ising(num_agents=36, coupling=-1.0, updates="half", horizon=None)
    env, generator = NativeEnv(task, 64), torch.Generator().manual_seed(0)
    view = env.reset(seed=5)
    for t in range(200):
        view = env.step(heat_bath(view, max(3 - 0.02 * t, 0.05), generator)).view
    step = env.step(follow_field(view, env.agents))
    assert step.reward.sum(-1).max().item() == task.ground
    assert step.info["magnetisation"][step.reward.sum(-1) == task.ground].abs().max().item() == 0


def test_kinds_are_groups_and_factors_have_scopes():
    task = Ising(modules={"sensor": 5, "actuator": 4}, topology="ring")
    assert [(g.name, g.start, g.size) for g in task.agents.groups] == [("sensor", 0, 5), ("actuator", 5, 4)]
    assert task.agents.factor_scopes is not None
    assert task.agents.factor_scopes[0] == (0, 1, 8)
    assert Ising(num_agents=40 * 40).agents.factor_scopes is None


def test_follows_the_rules_of_pettingzoo():
    for updates in ("all", "half"):
        report = check(NativeParallel(Ising(updates=updates, horizon=12, dynamics={"leave": 0.05, "join": 0.2})))
        report.raise_if_failed()
        assert report.replayable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coupling": 0.0}, "coupling: must be a number other than 0, got 0.0"),
        ({"coupling": float("nan")}, "coupling: must be a number other than 0, got nan"),
        ({"updates": "hlaf"}, "unknown updates 'hlaf'; did you mean 'half'"),
        ({"up": 1.5}, r"up: must be a probability in \[0, 1\], got 1.5"),
        (
            {"updates": "half", "topology": ring(5), "num_agents": 5},
            "'half' needs a topology of two colours, 'ring' has",
        ),
        ({"horizon": 0}, "horizon: must be at least 1"),
        ({"num_agents": 1}, "num_agents: must be at least 2"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ising(**arguments)


def test_refuses_a_temperature_of_zero():
    task = Ising()
    with pytest.raises(ValueError, match="temperature: must be above 0, got 0"):
        heat_bath(task.view(task.initial(torch.Generator(), 1)), 0, torch.Generator())
