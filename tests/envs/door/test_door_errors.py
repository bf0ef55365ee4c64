from __future__ import annotations

import door_fixtures as fixtures
import pytest
import torch
from door_rollouts import STILL, events, random_actions, rolled

import envs


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


@pytest.mark.parametrize(
    ("env", "action", "message"),
    [
        (fixtures.Base, [[0], [2]], "action of 'agent_1' in copy 0: expected a whole number from 0 to 1, got 2"),
        (fixtures.Base, [[-1], [0]], "action of 'agent_0' in copy 0: expected a whole number from 0 to 1, got -1"),
        (fixtures.MaskInObs, [[1], [0]], "'agent_0' in copy 0: 1 is outside its action mask, which allows 0$"),
        (
            fixtures.Nested,
            [[1, 3], [0, 4]],
            "'agent_1' in copy 0: expected a whole number from 0 to 3, got 4",
        ),
        (fixtures.Events, [[1.5, 0], [0, 0], [0, 0]], "action of 'walker_0' in copy 0: expected a whole number from 0"),
        (fixtures.Events, [[float("nan"), 0], [0, 0], [0, 0]], "'walker_0' in copy 0: expected a whole number from 0"),
        (
            fixtures.Events,
            [[0, 0], [0, 0], [0, float("nan")]],
            "'caller_0' in copy 0: expected finite numbers, got n",
        ),
    ],
)
def test_actions_that_do_not_exist_or_are_masked_are_refused(env, action, message):
    door = envs.make(env)
    view = door.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        door.step(torch.tensor([action]))
    kept = door.step(torch.zeros(1, *torch.tensor(action).shape, dtype=torch.tensor(action).dtype))
    assert kept.view.obs[0, 0, 0] == view.obs[0, 0, 0] + (env is not fixtures.Nested)  # nothing was stepped before


def test_what_the_dead_hold_is_not_read():
    door = events([1, "walker_0", "terminated"])
    door.reset(seed=0)
    door.step(STILL)
    garbage = STILL.clone()
    garbage[0, 0] = float("nan")
    assert door.step(garbage).reward.tolist() == [[0, 4, 3]]


@pytest.mark.parametrize("env", [fixtures.Base, "climbing"])
def test_nothing_can_be_done_with_a_closed_environment(env):
    door = envs.make(env)
    door.reset(seed=0)
    door.close()
    door.close()
    with pytest.raises(RuntimeError, match="step: the environment is closed; make a new one"):
        door.step(torch.zeros(1, 2, 1, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="reset: the environment is closed; make a new one"):
        door.reset()
