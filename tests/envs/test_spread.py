"""Spread is mpe2's simple_spread_v3, transition for transition, and keeps the contracts of a native task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpe2 import simple_spread_v3
from torch.testing import assert_close

from coordination import tree
from envs.native import NativeEnv
from envs.particle.spread import Spread, SpreadState

TRANSITIONS = 1_000
EXACT = 3  # up to here whole episodes stay equal; with more agents, contacts double rounding errors every step
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


def mpe2_env(arguments):
    arguments = dict(arguments)
    n = arguments.pop("num_agents", 3)
    return simple_spread_v3.parallel_env(N=n, benchmark_data=n <= EXACT, **arguments)


def place(env, state: SpreadState, copy: int) -> None:
    """Put mpe2's world where copy ``copy`` of ours is."""
    world = env.unwrapped.world
    for i, agent in enumerate(world.agents):
        agent.state.p_pos = state.position[copy, i].double().numpy().copy()
        agent.state.p_vel = state.velocity[copy, i].double().numpy().copy()
    for i, landmark in enumerate(world.landmarks):
        landmark.state.p_pos = state.landmark[copy, i].double().numpy().copy()


def random_actions(task: Spread, generator: torch.Generator, steps: int, copies: int) -> torch.Tensor:
    shape = (steps, copies, task.num_agents)
    if task.agents.discrete:
        return torch.randint(5, (*shape, 1), generator=generator)
    return torch.rand(*shape, 5, generator=generator) * 1.4 - 0.2  # some outside the box, which both sides clip


def matrix(values: dict, task: Spread) -> torch.Tensor:
    """What mpe2 gives each agent, as rows."""
    return torch.tensor(np.stack(list(values.values())), dtype=torch.float32).reshape(task.num_agents, -1)


@pytest.mark.parametrize("arguments", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.filterwarnings("ignore")  # mpe2 warns about every action it clips
def test_equals_mpe2(arguments):
    task, theirs = Spread(**arguments), mpe2_env(arguments)
    assert task.horizon is not None
    steps, copies = task.horizon, TRANSITIONS // task.horizon
    ours, generator = NativeEnv(task, copies), torch.Generator().manual_seed(task.num_agents)
    first = ours.reset(seed=1)
    like = task.initial(generator, copies)
    actions = random_actions(task, generator, steps, copies)
    states, played = [], []
    for action in actions:
        states.append(tree.unpack(like, ours.state_dict()["state"]))
        played.append(ours.step(action))
    for b in range(copies):
        obs, _ = theirs.reset(seed=b)
        assert {k: v.shape for k, v in obs.items()} == dict.fromkeys(task.agents.names, (task.agents.obs_dim,))
        place(theirs, states[0], b)
        assert_close(torch.tensor(theirs.state()).view_as(first.obs[b]), first.obs[b], atol=1e-4, rtol=0)
        for t in range(steps):
            if task.num_agents > EXACT:
                place(theirs, states[t], b)
            chosen = actions[t, b].squeeze(-1).numpy() if task.agents.discrete else actions[t, b].numpy()
            obs, reward, terminated, truncated, info = theirs.step(dict(zip(theirs.agents, chosen, strict=True)))
            step = played[t]
            assert_close(matrix(obs, task), step.next_view.obs[b], atol=1e-4, rtol=0)
            assert_close(matrix(reward, task).squeeze(-1), step.reward[b], atol=1e-4, rtol=0)
            assert list(terminated.values()) == step.terminated[b].tolist()
            assert list(truncated.values()) == step.truncated[b].tolist()
            if task.num_agents <= EXACT:
                _, collisions, distances, covered = matrix({k: v["benchmark_data"] for k, v in info.items()}, task).T
                assert collisions.sum() == step.info["collisions"][b]
                assert covered[0] == step.info["covered"][b]
                assert_close(distances[0], step.info["distance"][b], atol=1e-4, rtol=0)
        assert bool(step.over[b])


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
