from __future__ import annotations

import door_fixtures as fixtures
import numpy as np
import pytest
import torch
from door_rollouts import events, first_draw, random_actions, rolled

import envs


def test_the_same_seed_gives_the_same_episodes_and_none_goes_on():
    door = events(num_envs=2)
    first = door.reset(seed=9).obs
    second = door.reset().obs
    assert not torch.equal(first, second)
    assert torch.equal(door.reset(seed=9).obs, first)
    torch.testing.assert_close(second[1, 0, 1], torch.tensor(first_draw(9, 1, 1), dtype=torch.float32))


def test_global_generators_are_seeded_for_the_environment_and_left_alone_for_everybody_else():
    def rollout():
        door = envs.make(fixtures.GlobalNoise, num_envs=2)
        seen = [door.reset(seed=3).obs]
        seen += [door.step(torch.zeros(2, 2, 1, dtype=torch.int64)).view.obs for _ in range(7)]
        return torch.stack(seen)

    np.random.seed(1)  # noqa: NPY002
    mine = np.random.random(2)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    half = np.random.random()  # noqa: NPY002
    first = rollout()
    assert [half, np.random.random()] == mine.tolist()  # noqa: NPY002
    assert torch.equal(first, rollout())
    assert first[:, :, 0].unique().numel() == first[:, :, 0].numel()  # no two draws alike


@pytest.mark.parametrize("env", [fixtures.Events, fixtures.GlobalNoise, "mpe2.simple_spread_v3"])
@pytest.mark.parametrize("steps", [0, 3, 8])
def test_a_restored_state_goes_on_exactly(env, steps):
    door = envs.make(env, num_envs=2, seed=5)
    door.reset(seed=11)
    actions = random_actions(door, 20)
    rolled(door, actions[:steps])
    saved = door.state_dict()
    expected = rolled(door, actions[steps:])
    fresh = envs.make(env, num_envs=2, seed=5)
    view = fresh.load_state_dict(saved)
    assert fresh.resume_exact
    got = rolled(fresh, actions[steps:])
    assert all(torch.equal(a, b) for x, y in zip(expected, got, strict=True) for a, b in zip(x, y, strict=True))
    door.load_state_dict(saved)
    assert torch.equal(door.load_state_dict(fresh.state_dict()).obs, fresh.load_state_dict(fresh.state_dict()).obs)
    assert view.obs.shape == (2, door.agents.num_agents, door.agents.obs_dim)


def test_copies_in_different_places_of_their_episodes_are_all_restored():
    door = envs.make(fixtures.Uneven, num_envs=4)
    door.reset(seed=2)
    actions = random_actions(door, 20)
    rolled(door, actions[:10])
    saved = door.state_dict()
    assert len(set(saved["clock"].tolist())) > 1
    assert saved["actions"].shape[0] == saved["clock"].max()
    expected = rolled(door, actions[10:])
    door.load_state_dict(saved)
    assert door.resume_exact
    got = rolled(door, actions[10:])
    assert all(torch.equal(a, b) for x, y in zip(expected, got, strict=True) for a, b in zip(x, y, strict=True))


def test_a_state_keeps_only_the_actions_of_running_episodes():
    door = envs.make(fixtures.Base, horizon=4)
    door.reset(seed=0)
    rolled(door, random_actions(door, 10))
    saved = door.state_dict()
    assert saved["clock"].tolist() == [2]
    assert saved["episode"].tolist() == [2]
    assert saved["actions"].shape == (2, 1, 2, 1)


def test_an_environment_that_cannot_be_replayed_starts_a_new_episode_and_says_so():
    door = envs.make(fixtures.Random, num_envs=2)
    door.reset(seed=0)
    rolled(door, random_actions(door, 3))
    saved = door.state_dict()
    view = door.load_state_dict(saved)
    assert not door.resume_exact
    assert door.state_dict()["episode"].tolist() == [1, 1]
    assert door.state_dict()["clock"].tolist() == [0, 0]
    assert view.alive.all()
    exact = envs.make(fixtures.Base)
    exact.reset(seed=0)
    exact.load_state_dict(exact.state_dict())
    assert exact.resume_exact


def test_a_state_of_another_shape_is_refused():
    door = envs.make(fixtures.Base, num_envs=2)
    door.reset(seed=0)
    saved = door.state_dict()
    with pytest.raises(ValueError, match=r"saved actions: expected \[B, N, A\] = \(3, 2, 1\), got \(2, 2, 1\)"):
        envs.make(fixtures.Base, num_envs=3).load_state_dict(saved)
