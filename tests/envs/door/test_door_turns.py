"""Turn-based environments: who acts, rewards between turns, the dead, and PettingZoo's own games."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from door_rollouts import allowed_action, first_draw, play, same
from pettingzoo.classic import tictactoe_v3
from pettingzoo.test import parallel_api_test
from turn_fixtures import Rounds

import envs
from envs.door.turns import Turns

HERE = str(Path(__file__).with_name("turn_fixtures.py"))


def rounds(**args):
    env = Rounds(**args)
    return env, envs.make(env)


def say(*numbers):
    return torch.tensor(numbers).view(1, 3, 1)


def test_views_say_whose_turn_it_is():
    env, door = rounds()
    view = door.reset(seed=4)
    assert view.acts.tolist() == [[True, False, False]]
    assert view.alive.all()
    torch.testing.assert_close(view.obs[0, 1], torch.tensor([0, 1, first_draw(4, 0, 0)]))
    assert view.action_mask.tolist() == [[[False, True, True], [True] * 3, [True] * 3]]
    step = door.step(say(2, 0, 0))
    assert step.view.acts.tolist() == [[False, True, False]]
    assert step.next_view is step.view
    assert step.view.obs[0, :, 0].tolist() == [1, 1, 1]
    step = door.step(say(0, 1, 0))
    assert env.heard == [("player_0", 2), ("player_1", 1)]
    assert step.view.acting.tolist() == [[False, False, True]]


def test_rewards_are_told_when_they_fall_and_add_up_to_what_the_aec_api_says():
    _, door = rounds()
    door.reset(seed=0)
    told = [door.step(say(n, n, n)).reward[0].tolist() for n in (2, 1, 2, 1)]
    assert told == [[2, -2, 0], [0, 1, -1], [-2, 0, 2], [1, -1, 0]]
    aec = Rounds()
    aec.reset(seed=0)
    for number in (2, 1, 2):
        aec.step(number)
    assert aec.last()[1] == 2 + 0 - 2  # player_0, from its own turn to its next
    aec.step(1)
    assert aec.last()[1] == 1 + 0 - 1  # player_1


@pytest.mark.parametrize("deads_first", [True, False])
@pytest.mark.parametrize("mask_in", ["obs", "infos", "nothing"])
def test_an_agent_that_dies_leaves_and_the_others_go_on(mask_in, deads_first):
    env, door = rounds(dies=[(2, "player_2", "terminated")], mask_in=mask_in, deads_first=deads_first)
    door.reset(seed=0)
    door.step(say(1, 1, 1))
    step = door.step(say(2, 2, 2))
    assert step.reward.tolist() == [[0, 2, -2]]
    assert step.terminated.tolist() == [[False, False, True]]
    assert step.view.alive.tolist() == [[True, True, False]]
    assert step.view.acts.tolist() == [[True, False, False]]
    assert step.view.obs[0, 2].tolist() == [0, 0, 0]
    step = door.step(say(2, 0, 0))
    assert step.reward.tolist() == [[2, -2, 0]]
    assert step.view.acts.tolist() == [[False, True, False]]
    step = door.step(say(1, 1, 0))
    assert step.view.acts.tolist() == [[True, False, False]]
    assert [who for who, _ in env.heard] == ["player_0", "player_1", "player_0", "player_1"]


def test_an_agent_cut_off_out_of_turn_can_be_bootstrapped():
    _, door = rounds(dies=[(1, "player_2", "truncated")])
    door.reset(seed=0)
    step = door.step(say(1, 1, 1))
    assert step.truncated.tolist() == [[False, False, True]]
    assert step.next_view.alive.all()
    assert step.next_view.obs[0, 2, :2].tolist() == [1, 2]
    assert step.view.alive.tolist() == [[True, True, False]]


def test_the_end_shows_the_last_view_in_which_nobody_acts():
    _, door = rounds(horizon=2)
    door.reset(seed=0)
    door.step(say(1, 1, 1))
    step = door.step(say(1, 1, 1))
    assert step.over.all()
    assert step.truncated.all()
    assert step.next_view.alive.all()
    assert step.next_view.obs[0, :, 0].tolist() == [2, 2, 2]
    assert not step.next_view.acts.any()
    assert step.view.acts.tolist() == [[True, False, False]]
    assert step.view.obs[0, :, 0].tolist() == [0, 0, 0]


def test_what_others_hold_is_not_read_and_the_actors_choice_is_checked():
    _, door = rounds()
    door.reset(seed=0)
    door.step(say(1, 99, -7))
    with pytest.raises(ValueError, match="action of 'player_1' in copy 0: 0 is outside its action mask, which allows"):
        door.step(say(1, 0, 1))


def test_a_restored_state_goes_on_exactly():
    door = envs.make(f"{HERE}:Rounds", num_envs=2, dies=[[3, "player_0", "terminated"]])
    generator = torch.Generator().manual_seed(0)
    view = door.reset(seed=1)
    for _ in range(9):
        view = door.step(allowed_action(view, door.agents, generator)).view
    saved, mark = door.state_dict(), generator.get_state()
    expected = door.step(allowed_action(view, door.agents, generator))
    fresh = envs.make(f"{HERE}:Rounds", num_envs=2, dies=[[3, "player_0", "terminated"]])
    restored = fresh.load_state_dict(saved)
    assert fresh.resume_exact
    assert torch.equal(restored.acts, view.acts)
    generator.set_state(mark)
    got = fresh.step(allowed_action(restored, fresh.agents, generator))
    assert torch.equal(got.view.obs, expected.view.obs)
    assert torch.equal(got.reward, expected.reward)


@pytest.mark.filterwarnings("ignore")
def test_turns_pass_pettingzoo_and_our_own_check():
    parallel_api_test(Turns(Rounds(mask_in="nothing")), num_cycles=30)
    for dies in ([], [[2, "player_1", "terminated"], [3, "player_2", "truncated"]]):
        for deads_first in (True, False):
            report = envs.check(lambda d=dies, f=deads_first: Rounds(d, deads_first=f))
            assert report.passed, report.problems
            assert report.replayable
    assert envs.parallel("pettingzoo.classic.tictactoe_v3").possible_agents == ["player_1", "player_2"]


def test_tic_tac_toe_equals_its_own_loop():
    door = envs.make("pettingzoo.classic.tictactoe_v3", teams={"player_1": 0, "player_2": 1})
    assert door.agents.team == (0, 1)
    aec, generator = tictactoe_v3.env(), torch.Generator().manual_seed(3)
    view = door.reset(seed=0)
    aec.reset(seed=0)
    winners = []
    for _ in range(60):
        agent = aec.agent_selection
        who = door.agents.names.index(agent)
        seen = aec.observe(agent)
        assert view.acts[0].tolist() == [i == who for i in (0, 1)]
        assert view.obs[0, who].tolist() == seen["observation"].reshape(-1).tolist()
        assert view.action_mask[0, who].tolist() == seen["action_mask"].astype(bool).tolist()
        action = allowed_action(view, door.agents, generator)
        aec.step(int(action[0, who]))
        step = door.step(action)
        assert step.reward[0].tolist() == [aec.rewards[a] for a in door.agents.names]
        assert step.over.item() == all(aec.terminations.values())
        if step.over:
            winners.append(tuple(step.reward[0].tolist()))
            aec.reset()
        view = step.view
    assert {(1, -1), (-1, 1)} <= set(winners)


@pytest.mark.parametrize("name", ["connect_four_v3", "leduc_holdem_v4", "hanabi_v5", "rps_v2"])
def test_classic_games_play_and_repeat_themselves(name):
    pytest.importorskip({"leduc_holdem_v4": "rlcard", "hanabi_v5": "shimmy"}.get(name, "pettingzoo"))
    path = f"pettingzoo.classic.{name}"
    one = play(envs.make(path, num_envs=2), 60)
    assert same(one, play(envs.make(path, num_envs=2), 60))
    assert any(tensor.dtype == torch.bool and tensor.shape == (2,) and tensor.any() for tensor in one)  # episodes end


def test_simultaneous_aec_environments_keep_their_parallel_form():
    door = envs.make("mpe2.simple_spread_v3:env")
    assert door.reset(seed=0).acts is None
    assert same(play(door, 30), play(envs.make("mpe2.simple_spread_v3"), 30))
