"""Environments of other packages through the door: gymnasium, lbforaging, rware, MaMuJoCo, magent2."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from door_rollouts import allowed_action, play, same

import envs
from coordination import rng
from envs.door.foreign import PACKAGES, maker

FORAGING = "lbforaging:Foraging-8x8-2p-2f-coop-v3"


def zeros(env):
    return torch.zeros(env.num_envs, env.agents.num_agents, env.agents.action_dim, dtype=torch.int64)


def test_gymnasium_equals_gymnasium():
    door = envs.make("gymnasium:CartPole-v1", num_envs=2)
    assert (door.agents.names, door.agents.obs_dim, door.agents.actions[0].sizes) == (("agent_0",), 4, (2,))
    view = door.reset(seed=3)
    plain = gymnasium.make("CartPole-v1")
    seen, _ = plain.reset(seed=rng.derive(3, "copy", 1, "episode", 0) % 2**31)
    generator, ends = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        np.testing.assert_allclose(view.obs[1, 0].numpy(), seen)
        action = allowed_action(view, door.agents, generator)
        step = door.step(action)
        seen, reward, terminated, *_ = plain.step(int(action[1, 0]))
        assert (step.reward[1, 0].item(), step.terminated[1, 0].item()) == (reward, terminated)
        if terminated:
            ends += 1
            assert not step.next_view.alive[1].any()
            seen, _ = plain.reset(seed=rng.derive(3, "copy", 1, "episode", ends) % 2**31)
        view = step.view
    assert ends


def test_gymnasiums_time_limit_is_a_truncation_and_its_masks_and_boxes_are_known():
    pendulum = envs.make("gymnasium:Pendulum-v1", max_episode_steps=3)
    pendulum.reset(seed=0)
    assert pendulum.agents.actions[0].low == (-2.0,)
    for _ in range(3):
        step = pendulum.step(torch.zeros(1, 1, 1))
    assert step.truncated.all()
    assert not step.terminated.any()
    taxi = envs.make("gymnasium:Taxi-v4")
    view = taxi.reset(seed=0)
    assert taxi.agents.obs_dim == 500  # a Discrete observation, one-hot
    assert view.action_mask is not None
    assert 0 < view.action_mask.sum() < 6


def test_gymnasium_runs_in_workers_without_torch():
    inside = play(envs.make("gymnasium:CartPole-v1", num_envs=3), 30)
    env = envs.make("gymnasium:CartPole-v1", num_envs=3, workers=2)
    assert same(inside, play(env, 30))
    env.close()


@pytest.mark.parametrize(
    ("path", "args", "error", "message"),
    [
        (
            "gymnasium:CartPole-v1",
            {"num_agents": 2},
            envs.EnvError,
            "num_agents: gymnasium environments have one agent",
        ),
        ("gymnasium:CartPile-v1", {}, envs.EnvError, "gymnasium:CartPile-v1: NameNotFound: .*CartPole"),
        ("vmas:balance", {"workers": 1}, ValueError, "workers: VMAS steps all copies together"),
        ("vmas:balance", {"wrappers": ["flatten_v0"]}, ValueError, "wrappers: VMAS steps all copies together"),
    ],
)
def test_what_does_not_fit_is_refused(path, args, error, message):
    with pytest.raises(error, match=message):
        envs.make(path, **args)


@pytest.mark.parametrize(
    ("path", "module"),
    [
        (FORAGING, "lbforaging"),
        ("rware:rware-tiny-2ag-v2", "rware"),
        ("mamujoco:Ant-2x4", "gymnasium_robotics"),
        ("vmas:balance", "vmas"),
        ("magent2.environments.battle_v4", "magent2"),
    ],
)
def test_a_missing_package_is_named(path, module, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)

    class Nowhere:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=module)

    monkeypatch.setattr(sys, "meta_path", [Nowhere(), *sys.meta_path])
    with pytest.raises((envs.EnvError, ValueError), match=f"pip install {PACKAGES[module]}") as caught:
        envs.make(path)
    assert "\n" not in str(caught.value)


def test_naming_an_environment_imports_nothing():
    code = (
        "import sys; from envs.door.foreign import maker; maker('vmas:balance'); "
        "sys.exit(bool({'torch', 'vmas', 'lbforaging', 'rware'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert maker("mpe2.simple_spread_v3:env") is None


# -- packages that may be missing --------------------------------------------------------------------


def test_foraging_equals_lbforaging():
    lbforaging = pytest.importorskip("lbforaging")
    assert lbforaging
    door = envs.make(FORAGING)
    view = door.reset(seed=5)
    plain = gymnasium.make("Foraging-8x8-2p-2f-coop-v3", disable_env_checker=True)
    seen, _ = plain.reset(seed=rng.derive(5, "copy", 0, "episode", 0) % 2**31)
    generator = torch.Generator().manual_seed(1)
    for _ in range(49):
        np.testing.assert_array_equal(view.obs[0].numpy(), np.stack(seen))
        action = allowed_action(view, door.agents, generator)
        step = door.step(action)
        seen, rewards, over, *_ = plain.step(tuple(action[0, :, 0].tolist()))
        np.testing.assert_allclose(step.reward[0].numpy(), rewards)
        assert step.over.item() == over
        view = step.view


def test_foraging_of_any_size_is_known_and_its_time_limit_is_a_truncation():
    pytest.importorskip("lbforaging")
    door = envs.make("lbforaging:Foraging-2s-15x15-4p-5f-coop-v3")
    assert door.agents.num_agents == 4
    assert door.agents.obs_dim == 3 * (4 + 5)
    door.reset(seed=0)
    for _ in range(50):
        step = door.step(zeros(door))
    assert step.truncated.all()
    assert not step.terminated.any()
    assert envs.make(FORAGING, num_agents=3).agents.num_agents == 3
    with pytest.raises(envs.EnvError, match="lbforaging has no task 'Foraging-8x9-2p-2f-v3'; expected a name such as"):
        envs.make("lbforaging:Foraging-8x9-2p-2f-v3")
    crowded = envs.make("lbforaging:Foraging-5x5-9p-1f-v3")
    view, generator = crowded.reset(seed=0), torch.Generator().manual_seed(0)
    for _ in range(60):
        step = crowded.step(allowed_action(view, crowded.agents, generator))
        view = step.view
        if step.terminated.any():
            break
    assert step.terminated.all()  # the food is eaten
    assert step.reward.sum() > 0


def test_foraging_is_the_same_in_every_process():
    pytest.importorskip("lbforaging")
    path = "lbforaging:Foraging-5x5-6p-3f-v3"
    inside, env = envs.make(path, num_envs=2), envs.make(path, num_envs=2, workers=2)
    play(inside, 3)  # what came before is forgotten
    assert same(play(inside, 40), play(env, 40))
    env.close()


def test_the_warehouse_ends_by_its_limit():
    pytest.importorskip("rware")
    door = envs.make("rware:rware-tiny-2ag-v2", num_agents=3, max_steps=4)
    assert door.agents.num_agents == 3
    assert door.agents.obs_dim == 71
    door.reset(seed=0)
    steps = [door.step(zeros(door)) for _ in range(4)]
    assert [step.over.item() for step in steps] == [False, False, False, True]
    assert steps[-1].truncated.all()
    assert not steps[-1].terminated.any()


@pytest.mark.filterwarnings("ignore")
def test_a_body_is_shared_by_its_parts():
    pytest.importorskip("gymnasium_robotics")
    pytest.importorskip("mujoco")
    door = envs.make("mamujoco:HalfCheetah-6x1", use_state=True)
    assert door.agents.num_agents == 6
    assert door.agents.state_dim == 17
    assert same(play(door, 10), play(envs.make("mamujoco:HalfCheetah-6x1", use_state=True), 10))


def test_magent_battles_have_teams_and_dead():
    pytest.importorskip("magent2")
    args = {"graph": "none", "teams": "group", "use_state": True}
    door = envs.make("magent2.environments.combined_arms_v6", map_size=16, minimap_mode=True, **args)
    assert door.agents.num_teams == 4
    assert [group.name for group in door.agents.groups] == ["redmelee", "redranged", "bluemelee", "blueranged"]
    seen = play(door, 60)
    assert same(
        seen, play(envs.make("magent2.environments.combined_arms_v6", map_size=16, minimap_mode=True, **args), 60)
    )
    assert not torch.stack([x for x in seen if x.dtype == torch.bool and x.shape == (1, 12)]).all()


@pytest.mark.parametrize(
    ("path", "args", "needs"),
    [
        ("pettingzoo.butterfly.knights_archers_zombies_v11", {"max_cycles": 20}, "pygame"),
        ("pettingzoo.butterfly.pistonball_v6", {"num_agents": 3, "wrappers": ["color_reduction_v0"]}, "pymunk"),
        ("pettingzoo.sisl.pursuit_v5", {"num_agents": 2}, "pygame"),
        ("pettingzoo.sisl.multiwalker_v9", {"num_agents": 2, "use_state": True}, "Box2D"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_pettingzoos_own_environments_play_and_repeat_themselves(path, args, needs):
    pytest.importorskip(needs)
    assert same(play(envs.make(path, **args), 25), play(envs.make(path, **args), 25))
