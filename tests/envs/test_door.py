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
STILL = torch.zeros(1, 3, 2)  # everyone chooses 0; the caller says [0, 0]


def events(*what, **args):
    return envs.make(fixtures.Events, events=what, **args)


def first_draw(seed: int, copy: int, episode: int) -> float:
    return 10 * np.random.default_rng(rng.derive(seed, "copy", copy, "episode", episode) % 2**31).random()


# -- the one agent axis ------------------------------------------------------------------------------


def test_agents_with_equal_spaces_and_stem_form_contiguous_groups():
    agents = events().agents
    assert agents.names == ("walker_0", "walker_1", "caller_0")
    assert [(g.name, g.start, g.size, g.observation.dim) for g in agents.groups] == [
        ("walker", 0, 2, 3),
        ("caller", 2, 1, 2),
    ]
    assert [a.kind for a in agents.actions] == ["discrete", "box"]
    assert (agents.obs_dim, agents.action_dim, agents.logits_dim) == (3, 2, 4)


def test_agents_of_one_stem_with_different_spaces_are_different_groups():
    spec = envs.make("mpe2.simple_adversary_v3").agents
    assert [(g.name, g.size) for g in spec.groups] == [("adversary", 1), ("agent", 2)]
    spec = envs.make(lambda: fixtures.Events(order=("walker_0", "x_caller_1", "x_walker_2"))).agents
    assert [g.name for g in spec.groups] == ["walker", "x_caller", "x_walker"]
    odd = fixtures.Base()
    odd.action_space = lambda agent: fixtures.spaces.Discrete(2 if agent == "agent_0" else 3)
    assert [g.name for g in envs.make(odd).agents.groups] == ["agent", "agent2"]


def test_the_first_view_holds_what_each_agent_sees_padded_with_zeros():
    view = events(num_envs=2).reset(seed=7)
    draws = [first_draw(7, copy, 0) for copy in (0, 1)]
    expected = [[[0, d, 0], [0, d, 0], [0, d, 0]] for d in draws]
    torch.testing.assert_close(view.obs, torch.tensor(expected))
    assert draws[0] != draws[1]
    assert view.alive.all()
    assert view.graph.num_agents == 3


def test_actions_reach_the_agents_in_the_form_of_their_spaces():
    env = fixtures.Events()
    door = envs.make(env)
    door.reset(seed=0)
    door.step(torch.tensor([[[2.0, 0.0], [1.0, 0.0], [0.5, -3.0]]]))
    heard = env.heard[-1]
    assert heard["walker_0"] == 2
    assert isinstance(heard["walker_1"], int)
    np.testing.assert_array_equal(heard["caller_0"], np.array([0.5, -1.0], dtype=np.float32))  # clipped to its box


def test_dict_observations_are_flat_and_multidiscrete_actions_whole():
    env = fixtures.Nested()
    door = envs.make(env)
    view = door.reset(seed=0)
    assert [p.name for p in door.agents.groups[0].observation.parts] == ["board", "role"]
    assert view.obs[0].tolist() == [[0, 1, 0.5, 0, 0, 0, 1], [0, 1, 0.5, 0, 0, 1, 0]]
    door.step(torch.tensor([[[1, 3], [0, 2]]]))
    assert {a: v.tolist() for a, v in env.heard[-1].items()} == {"agent_0": [1, 3], "agent_1": [0, 2]}


@pytest.mark.parametrize("kind", [fixtures.MaskInObs, fixtures.MaskInInfos])
def test_action_masks_come_from_observations_or_infos(kind):
    door = envs.make(kind, num_envs=2)
    view = door.reset(seed=0)
    assert door.agents.obs_dim == 2
    assert view.action_mask.tolist() == [[[True, False], [True, True]]] * 2
    step = door.step(torch.zeros(2, 2, 1, dtype=torch.int64))
    assert step.view.action_mask.tolist() == [[[False, True], [True, True]]] * 2
    assert step.view.obs[0, 0, 0] == 1


def test_views_stay_as_they_were():
    door = envs.make(fixtures.Base)
    first = door.reset(seed=1)
    kept = first.obs.clone()
    for _ in range(3):
        door.step(torch.zeros(1, 2, 1, dtype=torch.int64))
    torch.testing.assert_close(first.obs, kept)


def test_the_global_state_is_flat_and_optional():
    door = envs.make(fixtures.Events, use_state=True, horizon=2)
    assert door.agents.state_dim == 4
    view = door.reset(seed=3)
    draw = first_draw(3, 0, 0)
    torch.testing.assert_close(view.state, torch.tensor([[0, draw, 0, 1]]))
    door.step(torch.ones(1, 3, 2))
    step = door.step(torch.ones(1, 3, 2))
    torch.testing.assert_close(step.next_view.state, torch.tensor([[2, draw, 8, 1]]))
    assert step.view.state[0, 0] == 0
    assert events().reset(seed=3).state is None
    with pytest.raises(envs.EnvError, match="use_state: the environment has no working state"):
        envs.make(fixtures.Base, use_state=True)


# -- agents that leave, come back, are cut off -------------------------------------------------------


def test_an_ordinary_step_shares_one_view():
    door = events()
    door.reset(seed=0)
    step = door.step(STILL)
    assert step.next_view is step.view
    assert step.reward.tolist() == [[1, 3, 2]]  # number in the environment's own order plus time
    assert not torch.cat([step.terminated.flatten(), step.truncated.flatten(), step.over]).any()


def test_an_agent_that_dies_keeps_its_last_reward_and_leaves_an_empty_slot():
    door = events([2, "walker_0", "terminated"])
    door.reset(seed=0)
    door.step(STILL)
    step = door.step(STILL)
    assert step.reward.tolist() == [[2, 4, 3]]
    assert step.terminated.tolist() == [[True, False, False]]
    assert step.next_view is step.view
    assert step.view.alive.tolist() == [[False, True, True]]
    assert step.view.obs[0, 0].tolist() == [0, 0, 0]
    assert step.view.obs[0, 1, 0] == 2
    step = door.step(STILL)
    assert step.reward.tolist() == [[0, 5, 4]]
    assert not step.terminated.any()


def test_an_agent_cut_off_alone_can_be_bootstrapped_but_not_acted_on():
    door = events([2, "walker_1", "truncated"])
    door.reset(seed=5)
    door.step(STILL)
    step = door.step(STILL)
    assert step.truncated.tolist() == [[False, True, False]]
    assert not step.over.any()
    assert step.next_view is not step.view
    assert step.next_view.alive.all()
    torch.testing.assert_close(step.next_view.obs[0, 1], torch.tensor([2, first_draw(5, 0, 0), 0]))
    assert step.view.alive.tolist() == [[True, False, True]]
    assert step.view.obs[0, 1].tolist() == [0, 0, 0]
    assert torch.equal(step.view.obs[0, 0], step.next_view.obs[0, 0])


def test_an_agent_that_returns_is_alive_again():
    door = events([1, "caller_0", "terminated"], [3, "caller_0", "joins"])
    door.reset(seed=0)
    assert door.step(STILL).view.alive.tolist() == [[True, True, False]]
    assert door.step(STILL).view.alive.tolist() == [[True, True, False]]
    back = door.step(STILL)
    assert back.view.alive.all()
    assert back.view.obs[0, 2, 0] == 3
    assert back.reward[0, 2] == 0
    assert door.step(STILL).reward.tolist() == [[4, 6, 5]]


def test_an_agent_may_be_absent_at_first():
    door = events([0, "walker_0", "absent"], [1, "walker_0", "joins"])
    assert door.reset(seed=0).alive.tolist() == [[False, True, True]]
    assert door.step(STILL).view.alive.all()


def test_the_end_of_an_episode_shows_both_its_last_view_and_the_first_of_the_next():
    door = events([1, "walker_0", "terminated"], num_envs=2, horizon=2)
    door.reset(seed=4)
    still = STILL.expand(2, -1, -1)
    door.step(still)
    step = door.step(still)
    assert step.over.all()
    assert step.truncated.tolist() == [[False, True, True]] * 2
    assert step.next_view.alive.tolist() == [[False, True, True]] * 2
    assert step.next_view.obs[:, 1, 0].tolist() == [2, 2]
    assert step.view.alive.all()
    draws = torch.tensor([first_draw(4, copy, 1) for copy in (0, 1)])
    torch.testing.assert_close(step.view.obs[:, 0, 1], draws)
    assert step.view.obs[:, 0, 0].tolist() == [0, 0]


def test_a_flag_for_both_ends_is_a_termination():
    door = events([2, "walker_0", "terminated"], horizon=2)
    door.reset(seed=0)
    door.step(STILL)
    step = door.step(STILL)
    assert step.terminated.tolist() == [[True, False, False]]
    assert step.truncated.tolist() == [[False, True, True]]
    assert step.next_view.alive.tolist() == [[False, True, True]]


# -- seeds -------------------------------------------------------------------------------------------


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


# -- resuming by replay ------------------------------------------------------------------------------


def rolled(door, actions):
    steps = [door.step(a) for a in actions]
    return [(s.view.obs, s.next_view.obs, s.reward, s.view.alive, s.over) for s in steps]


def random_actions(door, count, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (count, door.num_envs, door.agents.num_agents, door.agents.action_dim)
    return (
        torch.randint(2, shape, generator=g) if door.agents.discrete else torch.randint(2, shape, generator=g).float()
    )


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


# -- real environments -------------------------------------------------------------------------------


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


# -- what stands at the door -------------------------------------------------------------------------


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
    turns = simple_spread_v3.env()
    turns.metadata["is_parallelizable"] = False
    try:
        with pytest.raises(ValueError, match="turn-based"):
            envs.make(lambda: turns)
    finally:
        turns.metadata["is_parallelizable"] = True  # the metadata belongs to the class


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


@pytest.mark.parametrize(
    ("env", "steps", "message"),
    [
        (
            fixtures.Crash,
            3,
            r"copy 0, episode 0, step 3: ZeroDivisionError: the floor is lava \(.*door_fixtures.py:\d+",
        ),
        (fixtures.WrongShape, 1, r"an observation has shape \(1,\), its space says \(2,\)"),
        (fixtures.MaskTooLate, 1, "hold an action_mask, but not at the first reset"),
        (fixtures.NothingAllowed, 1, "action_mask of agent 'agent_0' allows nothing"),
    ],
)
def test_an_environment_that_fails_says_where(env, steps, message):
    door = envs.make(env)
    door.reset(seed=0)
    with pytest.raises(envs.EnvError, match=message) as caught:
        rolled(door, random_actions(door, steps))
    assert "\n" not in str(caught.value)


def test_leaving_without_a_flag_is_refused():
    door = events([1, "walker_0", "vanishes"])
    door.reset(seed=0)
    with pytest.raises(envs.EnvError, match=r"'walker_0' left env\.agents without a termination or truncation"):
        door.step(STILL)


def test_order_and_form_of_calls_are_checked():
    door = envs.make(fixtures.Base)
    with pytest.raises(RuntimeError, match="step: call reset first"):
        door.step(torch.zeros(1, 2, 1, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="state_dict: call reset first"):
        door.state_dict()
    door.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected \[B, N, A\] = \(1, 2, 1\), got \(1, 2\)"):
        door.step(torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="action: expected int64, got float32"):
        door.step(torch.zeros(1, 2, 1))
