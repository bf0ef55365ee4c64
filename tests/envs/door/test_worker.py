from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import door_fixtures as fixtures
import pytest
import torch
from door_rollouts import play, same

import envs

HERE = str(Path(__file__).with_name("door_fixtures.py"))
TURNS = str(Path(__file__).with_name("turn_fixtures.py"))
SPREAD = "mpe2.simple_spread_v3"


def discrete(num_envs: int, agents: int, steps: int, choices: int = 2):
    return torch.randint(choices, (steps, num_envs, agents, 1), generator=torch.Generator().manual_seed(0))


def rollout(env, actions):
    view = env.reset(seed=8)
    seen = [view.obs, view.alive]
    for action in actions:
        step = env.step(action)
        seen += [step.view.obs, step.view.alive, step.next_view.obs, step.next_view.alive]
        seen += [step.reward, step.terminated, step.truncated, step.over]
        seen += [] if step.view.action_mask is None else [step.view.action_mask]
    return seen


def workers_of(env):
    return [process.pid for process in env._host.processes]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids, seconds=10.0):
    end = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(is_running(pid) for pid in pids)


MIXED = {"events": [[2, "walker_0", "terminated"], [3, "walker_1", "truncated"], [4, "walker_0", "joins"]]}


@pytest.mark.parametrize(
    ("path", "args", "counts"),
    [
        (SPREAD, {"max_cycles": 9}, (0, 1, 2, 4)),
        (f"{HERE}:MaskInInfos", {}, (0, 2)),
        (f"{HERE}:GlobalNoise", {}, (0, 2)),
        (f"{HERE}:Images", {}, (0, 2)),
        (f"{TURNS}:Rounds", {"dies": [[2, "player_1", "terminated"]], "use_state": True}, (0, 2)),
    ],
)
def test_numbers_are_the_same_for_any_number_of_workers(path, args, counts):
    expected = None
    for workers in counts:
        env = envs.make(path, num_envs=4, workers=workers, **args)
        got = play(env, 12)
        env.close()
        expected = expected or got
        assert same(expected, got), f"{workers} workers"


def test_every_copy_and_episode_has_a_seed_of_its_own():
    env = envs.make(f"{HERE}:Base", num_envs=4, workers=2, horizon=2)
    seeds = [env.reset(seed=8).obs[:, 0, 1]]
    for action in discrete(4, 2, 6):
        step = env.step(action)
        seeds += [step.view.obs[:, 0, 1]] if step.over.any() else []
    env.close()
    assert len({seed for row in seeds for seed in row.tolist()}) == 16


def test_agents_that_come_and_go_are_the_same_in_uneven_workers():
    inside = play(envs.make(f"{HERE}:make", num_envs=3, **MIXED), 12)
    env = envs.make(f"{HERE}:make", num_envs=3, workers=2, **MIXED)
    outside = play(env, 12)
    env.close()
    assert same(inside, outside)


def test_wrappers_are_worn_in_workers():
    wrappers = [{"name": "frame_stack_v1", "stack_size": 2}, {"name": "clip_reward_v0", "lower_bound": -1}]
    actions = discrete(2, 3, 6)
    inside = rollout(envs.make(SPREAD, num_envs=2, wrappers=wrappers), actions)
    env = envs.make(SPREAD, num_envs=2, workers=2, wrappers=wrappers)
    assert env.agents.obs_dim == 36
    outside = rollout(env, actions)
    env.close()
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_workers_run_without_torch_in_processes_of_their_own():
    env = envs.make(f"{HERE}:Spy", num_envs=2, workers=2)
    obs = env.reset().obs
    assert obs[:, :, 0].tolist() == [[0, 0], [0, 0]]
    assert obs[:, 0, 1].tolist() == workers_of(env)
    env.close()
    assert envs.make(f"{HERE}:Spy").reset().obs[0, 0].tolist() == [1, os.getpid()]


def test_a_restored_state_goes_on_exactly_in_workers_and_across_them():
    actions = discrete(3, 3, 40, choices=5)
    env = envs.make(SPREAD, num_envs=3, workers=2)
    env.reset(seed=4)
    for action in actions[:31]:
        env.step(action)
    saved = env.state_dict()
    expected = [env.step(action).view.obs for action in actions[31:]]
    env.load_state_dict(saved)
    assert env.resume_exact
    again = [env.step(action).view.obs for action in actions[31:]]
    env.close()
    inside = envs.make(SPREAD, num_envs=3)
    inside.load_state_dict(saved)
    assert inside.resume_exact
    moved = [inside.step(action).view.obs for action in actions[31:]]
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(expected, again, moved, strict=True))


def test_what_cannot_be_replayed_is_told_from_workers_too():
    env = envs.make(f"{HERE}:Random", num_envs=2, workers=1)
    env.reset(seed=0)
    env.step(discrete(2, 2, 1)[0])
    env.load_state_dict(env.state_dict())
    assert not env.resume_exact
    env.close()


# -- when things go wrong ----------------------------------------------------------------------------


def test_an_error_in_a_worker_arrives_in_one_line_and_ends_all_workers():
    env = envs.make(f"{HERE}:Crash", num_envs=2, workers=2)
    env.reset()
    actions = discrete(2, 2, 4)
    env.step(actions[0])
    env.step(actions[1])
    pids = workers_of(env)
    with pytest.raises(
        envs.EnvError, match=r"step 3: ZeroDivisionError: the floor is lava \(.*door_fixtures\.py:\d+\)"
    ):
        env.step(actions[2])
    assert wait_until_gone(pids)
    with pytest.raises(envs.EnvError, match="the workers of this environment are closed"):
        env.step(actions[3])
    env.close()


def test_a_worker_that_dies_is_named_with_its_signal():
    env = envs.make(f"{HERE}:Killed", num_envs=4, workers=2)
    env.reset()
    actions = discrete(4, 2, 2)
    env.step(actions[0])
    with pytest.raises(envs.EnvError, match=r"worker 0 \(copies 0 to 1\) was killed by signal 9"):
        env.step(actions[1])


def test_a_worker_killed_from_outside_is_named():
    env = envs.make(f"{HERE}:Base", num_envs=2, workers=2)
    env.reset()
    os.kill(workers_of(env)[1], signal.SIGKILL)
    with pytest.raises(envs.EnvError, match=r"worker 1 \(copies 1 to 1\) was killed by signal 9"):
        env.step(discrete(2, 2, 1)[0])


def test_what_an_environment_prints_is_no_answer():
    env = envs.make(f"{HERE}:Prints", num_envs=1, workers=1)
    env.reset(seed=0)
    assert [env.step(a).view.obs[0, 0, 0].item() for a in discrete(1, 2, 3)] == [1, 2, 3]
    env.close()


def test_workers_ignore_an_interrupt_and_end_with_close():
    env = envs.make(f"{HERE}:Base", num_envs=1, workers=1)
    env.reset(seed=0)
    pids = workers_of(env)
    os.kill(pids[0], signal.SIGINT)
    env.step(discrete(1, 2, 1)[0])
    assert is_running(pids[0])
    env.close()
    env.close()
    assert wait_until_gone(pids)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_the_parent_and_leave_nothing_behind(sign):
    code = f"""
import time
from envs.door.layout import Layout
from envs.door.pool import Pool, Workers
from envs.door.source import Source
source = Source.of({HERE + ":Base"!r}, {{}})
pool = Pool(source, Layout.probe(source.build()), num_envs=1, workers=Workers(1), seed=0)
print(pool.processes[0].pid, flush=True)
time.sleep(60)
"""
    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 1
        assert is_running(pids[0])
        parent.send_signal(sign)
        parent.wait(10)
    assert wait_until_gone(pids)
    assert {name for name in set(os.listdir("/dev/shm")) - before if "concert" in name or "psm" in name} == set()


@pytest.mark.parametrize(
    ("env", "args", "message"),
    [
        (
            fixtures.Base,
            {},
            "workers: Base is an object or a function of this process and cannot be sent to workers; give",
        ),
        (lambda: None, {}, "cannot be sent to workers; give an import path"),
        (fixtures.Base(), {}, "cannot be sent to workers"),
        (f"{HERE}:Base", {"horizon": {1, 2}}, r"horizon: \{1, 2\} cannot be sent to workers as JSON"),
        (f"{HERE}:Base", {"horizon": (1, 2)}, r"horizon: \(1, 2\) cannot be sent to workers as JSON"),
        (f"{HERE}:Base", {"workers": 2}, "workers: at most one for each of the 1 copies, got 2"),
    ],
)
def test_what_workers_cannot_do_is_refused(env, args, message):
    with pytest.raises(ValueError, match=message):
        envs.make(env, **{"workers": 1, **args})


def test_an_environment_that_works_here_and_not_there_says_so():
    with pytest.raises(envs.EnvError, match="RuntimeError: not in a worker"):
        envs.make(f"{HERE}:only_here", num_envs=1, workers=1, pid=os.getpid())
