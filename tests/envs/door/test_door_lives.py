from __future__ import annotations

import torch
from door_rollouts import STILL, events, first_draw


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
