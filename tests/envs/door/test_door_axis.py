from __future__ import annotations

import door_fixtures as fixtures
import numpy as np
import pytest
import torch
from door_rollouts import events, first_draw

import envs


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


def test_images_stay_bytes():
    door = envs.make(fixtures.Images, num_envs=2, wrappers=[{"name": "hide", "columns": [[0, 2]]}])
    view = door.reset(seed=0)
    assert view.obs.dtype == torch.uint8
    assert view.obs[1, 0].tolist() == [0, 0, 250, 250, 250, 250]
    assert door.agents.groups[0].observation.parts[0].shape == (2, 3, 1)
    step = door.step(torch.zeros(2, 2, 1, dtype=torch.int64))
    assert step.view.obs[0, 0, -1].item() == 251
    assert envs.make(fixtures.Base).reset(seed=0).obs.dtype == torch.float32


def test_images_may_be_cut_down_by_wrappers_from_the_config():
    wrappers = [
        {"name": "resize_v1", "x_size": 2, "y_size": 1},
        {"name": "frame_stack_v1", "stack_size": 2},
    ]
    door = envs.make(fixtures.Images, wrappers=wrappers)
    door.reset(seed=0)
    step = door.step(torch.zeros(1, 2, 1, dtype=torch.int64))
    assert step.view.obs.dtype == torch.uint8
    assert step.view.obs[0, 0].tolist() == [250, 251, 250, 251]
    scaled = envs.make(fixtures.Images, wrappers=[{"name": "dtype_v0", "dtype": "float32"}, "normalize_obs_v0"])
    view = scaled.reset(seed=0)
    assert view.obs.dtype == torch.float32
    torch.testing.assert_close(view.obs[0, 0], torch.full((6,), 250 / 255))
