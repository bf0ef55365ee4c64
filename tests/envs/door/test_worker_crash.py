"""Workers that raise, die or hang: stopped with an error, or started again with new episodes, by setting."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

import envs
from coordination import rng
from envs.wrappers import HideColumns

HERE = str(Path(__file__).with_name("door_fixtures.py"))


def seed_of(copy, episode, root=8):
    return rng.derive(root, "copy", copy, "episode", episode) % 2**31


def unlucky(how, on_crash="restart", **args):
    """Four copies in two workers; copy 2, the first of the second worker, fails in the third step of episode 0."""
    env = envs.make(f"{HERE}:Unlucky", num_envs=4, workers=2, on_crash=on_crash, seeds=[seed_of(2, 0)], how=how, **args)
    env.reset(seed=8)
    return env


def still(env):
    return env.step(torch.zeros(4, 2, 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "copy 2, episode 0, step 3: ZeroDivisionError: the floor is lava"),
        ("dies", "worker 1 (copies 2 to 3) was killed by signal 9"),
        ("hangs", "worker 1 (copies 2 to 3) gave no answer for 1 s"),
    ],
)
def test_a_worker_is_started_again_and_its_copies_are_cut_off(how, message):
    env = unlucky(how, timeout_s=1.0 if how == "hangs" else 60.0)
    seen = env.reset(seed=8)
    assert (env.restarts, env.last_crash) == (0, None)
    still(env)
    seen = still(env).view
    step = still(env)
    assert env.restarts == 1
    assert message in env.last_crash
    assert HideColumns(env, [[0, 1]]).restarts == 1
    assert step.over.tolist() == [False, False, True, True]
    assert step.truncated.tolist() == [[False] * 2] * 2 + [[True] * 2] * 2
    assert not step.terminated.any()
    assert step.reward.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert torch.equal(step.next_view.obs[2:], seen.obs[2:])  # the last that is known
    assert step.next_view.obs[:2, 0, 0].tolist() == [3, 3]
    assert step.view.obs[:, 0, 0].tolist() == [3, 3, 0, 0]
    assert step.view.obs[2:, 0, 1].tolist() == [seed_of(copy, 1) % 1000 for copy in (2, 3)]
    assert step.view.alive.all()
    step = still(env)
    assert step.view.obs[:, 0, 0].tolist() == [4, 4, 1, 1]
    saved = env.state_dict()
    assert saved["episode"].tolist() == [0, 0, 1, 1]
    assert saved["clock"].tolist() == [4, 4, 1, 1]
    env.load_state_dict(saved)
    assert env.resume_exact
    env.close()


def test_episodes_after_a_restart_are_those_of_their_seeds():
    env, calm = unlucky("dies"), envs.make(f"{HERE}:Base", num_envs=4, horizon=5)
    calm.reset(seed=8)
    for _ in range(3):
        still(env)
    for _ in range(2):  # copies 0 and 1 have two steps to go, 2 and 3 begin episode 1
        last = still(env)
    for _ in range(5):
        expected = still(calm)
    assert last.over.tolist() == [True, True, False, False]
    assert torch.equal(last.view.obs[:2], expected.view.obs[:2])
    assert torch.equal(last.view.obs[2:, :, 1], expected.view.obs[2:, :, 1])
    env.close()


def test_a_worker_that_hangs_stops_the_run_where_that_is_the_setting():
    env = unlucky("hangs", on_crash="stop", timeout_s=1.0)
    still(env)
    still(env)
    with pytest.raises(envs.EnvError, match=r"worker 1 \(copies 2 to 3\) gave no answer for 1 s; raise timeout_s"):
        still(env)
    with pytest.raises(envs.EnvError, match="the workers of this environment are closed"):
        still(env)


def test_a_worker_killed_between_steps_is_started_again_at_a_reset():
    env = unlucky("raises")
    os.kill(env._host.processes[0].pid, signal.SIGKILL)
    view = env.reset(seed=9)
    assert env.restarts == 1
    assert view.obs[:, 0, 1].tolist() == [seed_of(copy, 0, root=9) % 1000 for copy in range(4)]
    env.close()


def test_a_worker_that_cannot_begin_again_stops_the_run():
    seeds = [seed_of(3, 0)]
    env = envs.make(f"{HERE}:UnluckyReset", num_envs=4, workers=2, on_crash="restart", seeds=seeds)
    with pytest.raises(envs.EnvError, match="copy 3, episode 0, step 0: ZeroDivisionError: no ground"):
        env.reset(seed=8)


def test_an_environment_that_crashes_while_it_is_replayed_begins_a_new_episode():
    env = unlucky("raises")
    still(env)
    still(env)
    saved = env.state_dict()
    saved["actions"] = torch.cat([saved["actions"], saved["actions"][:1]])
    saved["clock"] += 1
    env.load_state_dict(saved)
    assert not env.resume_exact
    assert env.restarts == 1
    assert env.state_dict()["clock"].tolist() == [0, 0, 0, 0]
    assert still(env).view.alive.all()
    env.close()
