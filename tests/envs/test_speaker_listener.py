"""SpeakerListener is mpe2's simple_speaker_listener_v4, transition for transition; its optimum is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mpe2 import simple_speaker_listener_v4
from mpe_states import compare, play, random_returns
from scipy.optimize import lsq_linear
from torch.testing import assert_close

from coordination import tree
from envs.native import NativeEnv
from envs.particle.scripted import speaker_listener_words
from envs.particle.speaker_listener import SpeakerListener, SpeakerListenerState


def dress(world, state: SpeakerListenerState, copy: int) -> None:
    world.agents[0].goal_b = world.landmarks[int(state.goal[copy])]
    world.agents[0].state.c = state.word[copy].double().numpy()


@pytest.mark.parametrize("arguments", [{}, {"continuous_actions": True}, {"max_cycles": 40}])
def test_equals_mpe2(arguments):
    theirs = simple_speaker_listener_v4.parallel_env(**arguments)
    compare(SpeakerListener(**arguments), theirs, dress)


def state(goal: int) -> SpeakerListenerState:
    """The listener in the middle; landmarks 0.5 to the right, 1 up, and 2 to the left."""
    place = torch.zeros(1, 1, 2)
    landmark = torch.tensor([[[0.5, 0.0], [0.0, 1.0], [-2.0, 0.0]]])
    return SpeakerListenerState(place, place, landmark, torch.tensor([goal]), torch.zeros(1, 3))


def test_a_word_is_heard_one_step_later():
    task = SpeakerListener()
    before = task.view(state(1)).obs[0]
    assert_close(before[0, :3], torch.tensor([0.15, 0.65, 0.15]))
    assert not before[0, 3:].any()
    assert not before[1, 8:].any()
    after, reward, terminated = task.advance(state(1), torch.tensor([[[2], [1]]]), torch.Generator())
    assert_close(reward, torch.full((1, 2), -1.0))
    assert not terminated.any()
    heard = task.view(after).obs[0, 1]
    assert_close(heard, torch.tensor([-0.5, 0, 0.5, 0, 0, 1, -2, 0, 0, 0, 1]))


@pytest.mark.parametrize(("goal", "success", "distance"), [(0, 1.0, 0.5), (1, 0.0, 1.0), (2, 0.0, 2.0)])
def test_success_is_being_nearest_to_the_goal(goal, success, distance):
    info = SpeakerListener().info(state(goal))
    assert info["success"].tolist() == [success]
    assert_close(info["distance"], torch.tensor([distance]))


def test_groups_have_their_own_spaces():
    agents = SpeakerListener().agents
    assert [(g.name, g.observation.dim, g.action.sizes) for g in agents.groups if g.action] == [
        ("speaker", 3, (3,)),
        ("listener", 11, (5,)),
    ]
    assert agents.team == (0, 0)
    assert [g.action.components for g in SpeakerListener(continuous_actions=True).agents.groups if g.action] == [3, 5]


def test_goals_are_equally_likely():
    start = SpeakerListener().initial(torch.Generator().manual_seed(0), 9_000)
    assert_close(torch.bincount(start.goal) / 9_000, torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    assert_close(start.landmark.flatten().var(), torch.tensor(1 / 3), atol=0.01, rtol=0)
    assert_close(start.position.flatten().var(), torch.tensor(1 / 3), atol=0.01, rtol=0)


@pytest.mark.parametrize(("continuous", "theirs", "error"), [(False, -39.92, 0.85), (True, -37.10, 0.80)])
def test_random_return(continuous, theirs, error):
    """Mean and standard error of 1,500 random episodes of mpe2 1.1.1, per agent."""
    mean, own = random_returns(SpeakerListener(continuous_actions=continuous))
    assert mean == pytest.approx(theirs, abs=4 * float(np.hypot(error, own[0])))


def responses() -> np.ndarray:
    """``[T, T]``: the place of the listener after each step, by the step of a full push to the right."""
    columns = []
    for when in range(25):
        env = NativeEnv(SpeakerListener(continuous_actions=True), 1)
        start = SpeakerListenerState(
            torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.zeros(1, 3, 2), torch.tensor([0]), torch.zeros(1, 3)
        )
        env.reset()
        env.load_state_dict(env.state_dict() | {"state": tree.pack(start)})
        action = torch.zeros(1, 2, 5)
        places = []
        for t in range(25):
            action[0, 1, 2] = float(t == when)
            places.append(-float(env.step(action).next_view.obs[0, 1, 2]))
        columns.append(places)
    return np.array(columns).T


def test_the_optimum_is_attained_and_bounds_the_scripted_policy():
    """If the goal is known, each axis is a least-squares problem in 25 pushes between -1 and 1 (solved by SciPy)."""
    response, task = responses(), SpeakerListener(continuous_actions=True)
    env = NativeEnv(task, 40)
    first = env.reset(seed=0)
    goal = first.obs[:, 0, :3].argmax(1)
    offset = first.obs[:, 1, 2:8].view(40, 3, 2)[torch.arange(40), goal].double().numpy()
    plans = [[lsq_linear(response, np.full(25, d), bounds=(-1, 1)) for d in pair] for pair in offset]
    best = -2 * np.array([sum(2 * plan.cost for plan in pair) for pair in plans])
    pushes = torch.tensor(np.array([[plan.x for plan in pair] for pair in plans]), dtype=torch.float32)
    total = torch.zeros(40)
    for t in range(25):
        action = torch.zeros(40, 2, 5)
        action[:, 1, 2::2], action[:, 1, 1::2] = pushes[..., t].clamp(min=0), (-pushes[..., t]).clamp(min=0)
        total += env.step(action).reward.sum(1)
    assert_close(total.double().numpy(), best, atol=1e-3, rtol=1e-4)
    scripted = play(task, lambda view: speaker_listener_words(view, task.agents), 40).sum(1)
    assert (scripted.numpy() <= best + 1e-3).all()


def test_the_best_return_known_to_exist():
    """Over the triangular density (2 - d) / 2 of the distance along an axis, four times the cost of an axis."""
    response, distance = responses(), np.linspace(0, 2, 21)
    cost = [2 * lsq_linear(response, np.full(25, d), bounds=(-1, 1)).cost for d in distance]
    assert -4 * np.trapezoid(cost * (2 - distance) / 2, distance) == pytest.approx(-11.43, abs=0.03)


@pytest.mark.parametrize(("continuous", "bound"), [(False, -14.6), (True, -11.43)])
def test_saying_the_goal_comes_close_to_the_optimum(continuous, bound):
    task = SpeakerListener(continuous_actions=continuous)
    found = play(task, lambda view: speaker_listener_words(view, task.agents), 4_000).sum(1)
    error = float(found.std()) / 4_000**0.5
    assert bound - 1 - 4 * error < float(found.mean()) < bound + 4 * error


def test_refuses_what_does_not_exist():
    with pytest.raises(ValueError, match="max_cycles: must be at least 1, got 0"):
        SpeakerListener(max_cycles=0)
    env = NativeEnv(SpeakerListener(), 1)
    env.reset()
    for choice in ([[3], [0]], [[0], [5]], [[-1], [0]]):
        with pytest.raises(IndexError):
            env.step(torch.tensor([choice]))
