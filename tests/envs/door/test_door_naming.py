from __future__ import annotations

from pathlib import Path

import door_fixtures as fixtures
import numpy as np
import pytest
import torch
from mpe2 import simple_speaker_listener_v4, simple_spread_v3
from pettingzoo.utils.conversions import parallel_to_aec

import envs
from coordination import rng
from envs.spaces import UnsupportedSpaceError

HERE = str(Path(__file__).with_name("door_fixtures.py"))


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("mpe2.simple_spread_v3", simple_spread_v3),
        ("mpe2.simple_speaker_listener_v4", simple_speaker_listener_v4),
    ],
)
def test_mpe2_through_the_door_equals_mpe2_in_a_loop(path, module):
    door = envs.make(path, num_envs=2, seed=1)
    view = door.reset(seed=6)
    g = torch.Generator().manual_seed(0)
    widths = [door.agents.actions[k].sizes[0] for k in door.agents.group_of]
    actions = torch.stack([torch.randint(w, (30, 2, 1), generator=g) for w in widths], 2)
    for copy in (0, 1):
        env, episode = module.parallel_env(), 0

        def restart(env, copy, episode):
            return env.reset(seed=rng.derive(6, "copy", copy, "episode", episode) % 2**31)[0]

        seen = restart(env, copy, episode)
        view = door.reset(seed=6)
        for t in range(30):
            for i, (name, group) in enumerate(zip(door.agents.names, door.agents.group_of, strict=True)):
                dim = door.agents.groups[group].observation.dim
                np.testing.assert_array_equal(view.obs[copy, i, :dim].numpy(), seen[name])
                assert not view.obs[copy, i, dim:].any()
            seen, rewards, *_ = env.step({a: int(actions[t, copy, i]) for i, a in enumerate(door.agents.names)})
            step = door.step(actions[t])
            view = step.view
            np.testing.assert_allclose(step.reward[copy].numpy(), list(rewards.values()), rtol=1e-6)
            if not env.agents:
                assert step.over[copy]
                assert step.truncated[copy].all()
                seen, episode = restart(env, copy, episode + 1), episode + 1
        assert episode == 1


def test_every_way_to_name_an_environment_leads_to_the_same_one():
    module, factory = simple_spread_v3, simple_spread_v3.parallel_env
    ways = ["mpe2.simple_spread_v3", "mpe2.simple_spread_v3:parallel_env", "mpe2:simple_spread_v3.parallel_env"]
    views = [envs.make(way).reset(seed=1).obs for way in [*ways, module, factory, factory()]]
    assert all(torch.equal(view, views[0]) for view in views)
    assert envs.make(f"{HERE}:make", horizon=3).agents.names[0] == "walker_0"


def test_native_names_give_native_environments():
    env = envs.make("climbing", num_envs=3)
    assert isinstance(env, envs.NativeEnv)
    assert env.reset(seed=0).obs.shape[:2] == (3, 2)
    from envs.matrix.games import Climbing

    assert isinstance(envs.make(Climbing(), num_envs=2), envs.NativeEnv)
    assert isinstance(envs.make(Climbing), envs.NativeEnv)


def test_parallel_gives_one_pettingzoo_environment():
    assert envs.parallel("mpe2.simple_spread_v3", N=2).possible_agents == ["agent_0", "agent_1"]
    assert len(envs.parallel("climbing").possible_agents) == 2
    assert envs.parallel(f"{HERE}:Base").possible_agents == ["agent_0", "agent_1"]


def test_aec_environments_are_converted_where_agents_move_at_once():
    assert envs.make("mpe2.simple_spread_v3:env").agents.num_agents == 3
    assert envs.make(parallel_to_aec(fixtures.Base())).agents.num_agents == 2


@pytest.mark.parametrize(
    ("env", "args", "error", "message"),
    [
        ("spraed", {}, ValueError, r"unknown environment 'spraed'; did you mean 'spread'\?"),
        (
            "climbing",
            {"stps": 3},
            ValueError,
            r"unknown argument of environment 'climbing': 'stps'; did you mean 'steps'",
        ),
        ("no_such_package.module", {}, ValueError, "there is no module 'no_such_package'"),
        ("mpe2.simple_spraed", {}, ValueError, r"there is no module 'mpe2\.simple_spraed'"),
        ("mpe2.simple_spread_v3:par", {}, ValueError, "has no 'par'"),
        ("./nowhere.py:make", {}, ValueError, r"there is no file 'nowhere\.py'"),
        (HERE, {}, ValueError, "the module has no parallel_env"),
        (f"{HERE}:NOTHING", {}, ValueError, "expected a function or class that makes the environment, got 3"),
        (3, {}, TypeError, "expected an id, an import path, a factory or a PettingZoo ParallelEnv, got int"),
        (dict, {}, TypeError, "expected a PettingZoo ParallelEnv, got dict without possible_agents"),
        ("mpe2.simple_spread_v3", {"M": 4}, envs.EnvError, "unexpected keyword argument 'M'"),
        (fixtures.Base(), {"horizon": 3}, ValueError, "an environment object takes no arguments, got horizon"),
        (fixtures.Base(), {"num_envs": 2}, ValueError, "exactly 1 of an environment object; give a factory"),
        (fixtures.Base, {"num_envs": 0}, ValueError, "num_envs: must be at least 1, got 0"),
        (fixtures.Base, {"workers": -1}, ValueError, "workers: must not be negative"),
        (
            fixtures.Base,
            {"on_crash": "ignore", "workers": 1},
            ValueError,
            "on_crash: expected stop or restart, got 'ig",
        ),
        (fixtures.Base, {"on_crash": "restart"}, ValueError, "on_crash: restart needs workers"),
        (fixtures.Base, {"timeout_s": 0}, ValueError, "timeout_s: must be above 0, or None to wait for ever, got 0"),
        ("climbing", {"workers": 2}, ValueError, "workers: only for third-party environments"),
        (fixtures.Texts, {}, UnsupportedSpaceError, "observation of agent 'agent_0': Text spaces are not supported"),
        (
            fixtures.CrashOnBuild,
            {},
            envs.EnvError,
            r"CrashOnBuild: KeyError: 'no such map' \(.*door_fixtures\.py:\d+\)",
        ),
        (fixtures.OldApi, {}, envs.EnvError, r"first reset: reset: expected \(observations, infos\), got dict"),
    ],
)
def test_bad_environments_are_refused_in_one_line(env, args, error, message):
    with pytest.raises(error, match=message) as caught:
        envs.make(env, **args)
    assert "\n" not in str(caught.value)


def test_a_factory_that_gives_the_same_environment_twice_is_refused():
    one = fixtures.Base()
    with pytest.raises(ValueError, match="made the same environment object twice"):
        envs.make(lambda: one, num_envs=2)


def test_above_64_agents_the_graph_must_be_chosen():
    many = [f"walker_{i}" for i in range(65)]
    with pytest.raises(ValueError, match="graph: choose who hears whom among 65 agents"):
        envs.make(fixtures.Events, order=many)
    assert envs.make(fixtures.Events, order=many, graph="none").reset().graph.topology.num_edges == 0
