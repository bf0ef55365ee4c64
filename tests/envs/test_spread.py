"""Spread is mpe2's simple_spread_v3, transition for transition, and keeps the contracts of a native task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpe2 import simple_spread_v3
from mpe_states import compare, for_mpe2, place, random_actions, rough
from torch.testing import assert_close

from envs.native import NativeEnv
from envs.particle.spread import Spread, SpreadState

SETTINGS = {
    "one agent": {"num_agents": 1},
    "one agent, neighbours": {"num_agents": 1, "num_agent_neighbors": 2, "num_landmark_neighbors": 2},
    "two, continuous, shared reward": {"num_agents": 2, "continuous_actions": True, "local_ratio": 0.0},
    "defaults": {},
    "continuous": {"continuous_actions": True, "local_ratio": 1.0},
    "long": {"max_cycles": 50, "local_ratio": 0.2},
    "few neighbours": {"num_agents": 5, "num_agent_neighbors": 2, "num_landmark_neighbors": 1, "local_ratio": 0.3},
    "agents only": {"num_agents": 3, "num_agent_neighbors": 1, "continuous_actions": True},
    "padded neighbours": {"num_agents": 2, "num_agent_neighbors": 4, "num_landmark_neighbors": 3},
    "ten": {"num_agents": 10, "num_agent_neighbors": 3, "local_ratio": 0.7},
}


def mpe2_env(arguments, **told):
    others = {k: v for k, v in arguments.items() if k != "num_agents"}
    return simple_spread_v3.parallel_env(N=arguments.get("num_agents", 3), **others, **told)


@pytest.mark.parametrize("arguments", SETTINGS.values(), ids=SETTINGS.keys())
def test_equals_mpe2(arguments):
    compare(Spread(**arguments), mpe2_env(arguments), every_step=True)


def test_nothing_is_hidden_between_steps():
    """The world of mpe2 is put in place once; ten steps are too few for rounding errors to grow."""
    compare(Spread(max_cycles=10), mpe2_env({"max_cycles": 10}))


def test_info_is_what_mpe2_calls_benchmark_data():
    task, theirs, generator = Spread(), mpe2_env({}, benchmark_data=True), torch.Generator().manual_seed(0)
    for episode in range(100):
        state = rough(task.initial(generator, 4), generator)
        action = random_actions(task, generator, 4)
        after, _, _ = task.advance(state, action, generator)
        theirs.reset(seed=episode)
        for b in range(4):
            place(theirs.unwrapped.world, state, b)
            told = theirs.step(for_mpe2(task, action[b]))[4]
            _, collisions, distances, covered = np.array([told[name]["benchmark_data"] for name in theirs.agents]).T
            info = {name: float(value[b]) for name, value in task.info(after).items()}
            assert (info["collisions"], info["covered"]) == (collisions.sum(), covered[0])
            assert info["distance"] == pytest.approx(distances[0], abs=1e-4)


def still(position: list, landmark: list) -> SpreadState:
    place = torch.tensor([position], dtype=torch.float32)
    return SpreadState(place, torch.zeros_like(place), torch.tensor([landmark], dtype=torch.float32))


def test_one_step_by_hand():
    """A push of 5 for 0.1 gives 0.5; the position moves one step later; distance 0.6 and 0.8 to the landmarks."""
    task, generator = Spread(num_agents=2, local_ratio=0.25), torch.Generator()
    state = still([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.6], [1.0, 0.8]])
    after, reward, terminated = task.advance(state, torch.tensor([[[2], [3]]]), generator)
    assert_close(after.position, state.position)
    assert_close(after.velocity, torch.tensor([[[0.5, 0.0], [0.0, -0.5]]]))
    assert_close(reward, torch.full((1, 2), -0.75 * 1.4))
    assert not terminated.any()
    later, _, _ = task.advance(after, torch.zeros(1, 2, 1, dtype=torch.int64), generator)
    assert_close(later.position, torch.tensor([[[0.05, 0.0], [1.0, -0.05]]]))
    assert_close(later.velocity, torch.tensor([[[0.375, 0.0], [0.0, -0.375]]]))


def test_agents_on_one_point_stay_finite():
    task = Spread(num_agents=2)
    state = still([[0.5, 0.5], [0.5, 0.5]], [[0.0, 0.0], [1.0, 1.0]])
    after, reward, _ = task.advance(state, torch.zeros(1, 2, 1, dtype=torch.int64), torch.Generator())
    assert torch.isfinite(after.velocity).all()
    assert torch.isfinite(reward).all()
    assert task.info(after)["collisions"].tolist() == [2.0]


@given(seed=st.integers(0, 1000), n=st.integers(1, 7))
def test_renaming_agents_changes_nothing(seed, n):
    """Law: physics and rewards are equivariant under permutations of the agents."""
    generator = torch.Generator().manual_seed(seed)
    task = Spread(num_agents=n, continuous_actions=True)
    state = task.initial(generator, 4)
    order = torch.randperm(n, generator=generator)
    mixed = SpreadState(state.position[:, order], state.velocity[:, order], state.landmark)
    action = torch.rand(4, n, 5, generator=generator)
    after, reward, _ = task.advance(state, action, generator)
    after_mixed, reward_mixed, _ = task.advance(mixed, action[:, order], generator)
    assert_close(after.velocity[:, order], after_mixed.velocity, atol=1e-5, rtol=1e-5)
    assert_close(reward[:, order], reward_mixed, atol=1e-5, rtol=1e-5)


def test_everyone_hears_everyone_up_to_64_agents():
    env = NativeEnv(Spread(num_agents=64), 2)
    first = env.reset()
    step = env.step(torch.zeros(2, 64, 1, dtype=torch.int64))
    assert first.graph.topology is step.view.graph.topology
    assert step.view.graph.topology.num_edges == 64 * 63
    assert first.obs.shape == (2, 64, 6 * 64)
    assert Spread(num_agents=65).view(Spread(num_agents=65).initial(torch.Generator(), 1)).graph.topology.num_edges == 0


def test_observation_parts_are_named():
    parts = Spread(num_agents=4, num_agent_neighbors=2).agents.groups[0].observation.parts
    assert [(p.name, p.start, p.stop) for p in parts] == [
        ("velocity", 0, 2),
        ("position", 2, 4),
        ("landmarks", 4, 12),
        ("others", 12, 16),
        ("communication", 16, 20),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_agents": 0}, "num_agents: must be at least 1, got 0"),
        ({"local_ratio": 1.5}, r"local_ratio: must be in \[0, 1\], got 1.5"),
        ({"max_cycles": 0}, "max_cycles: must be at least 1"),
        ({"num_agent_neighbors": 0}, "num_agent_neighbors: must be at least 1"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Spread(**arguments)


def test_refuses_a_choice_that_does_not_exist():
    env = NativeEnv(Spread(), 1)
    env.reset()
    for choice in (5, -1):
        with pytest.raises(IndexError):
            env.step(torch.full((1, 3, 1), choice))
