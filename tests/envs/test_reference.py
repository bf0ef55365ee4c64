"""Reference is mpe2's simple_reference_v3, transition for transition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mpe2 import simple_reference_v3
from mpe_states import compare, play, random_returns
from torch.testing import assert_close

from envs.native import NativeEnv
from envs.particle.reference import Reference, ReferenceState
from envs.particle.scripted import reference_words


def dress(world, state: ReferenceState, copy: int) -> None:
    for i, agent in enumerate(world.agents):
        agent.goal_b = world.landmarks[int(state.goal[copy, i])]
        agent.state.c = state.word[copy, i].double().numpy()


@pytest.mark.parametrize(
    "arguments", [{}, {"continuous_actions": True, "local_ratio": 1.0}, {"local_ratio": 0.2, "max_cycles": 10}]
)
def test_equals_mpe2(arguments):
    compare(Reference(**arguments), simple_reference_v3.parallel_env(**arguments), dress)


def state() -> ReferenceState:
    """Agent 0 in the middle, agent 1 a unit to the right; 0 knows that 1 should go up, 1 that 0 should go left."""
    position = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    landmark = torch.tensor([[[-2.0, 0.0], [1.0, 2.5], [9.0, 9.0]]])
    return ReferenceState(position, torch.zeros(1, 2, 2), landmark, torch.tensor([[1, 0]]), torch.zeros(1, 2, 10))


def test_one_step_by_hand():
    """Choice 7 is word 1 and a push to the right, 49 word 9 and a push up; errors 2.5 and 2, mean 2.25."""
    task = Reference(local_ratio=0.25)
    after, reward, _ = task.advance(state(), torch.tensor([[[7], [49]]]), torch.Generator())
    assert_close(after.velocity, torch.tensor([[[0.5, 0.0], [0.0, 0.5]]]))
    assert after.word.argmax(2).tolist() == [[1, 9]]
    assert_close(reward, torch.tensor([[-2.3125, -2.1875]]))
    obs = task.view(after).obs[0]
    assert_close(obs[0, :11], torch.tensor([0.5, 0, -2, 0, 1, 2.5, 9, 9, 0.25, 0.75, 0.25]))
    assert obs[:, 11:].argmax(1).tolist() == [9, 1]


def test_success_needs_both():
    task, start = Reference(), state()
    info = task.info(start)
    assert info["success"].tolist() == [1.0]
    assert_close(info["distance"], torch.tensor([2.25]))
    for astray in ([[0.0, 0.0], [9.0, 8.0]], [[9.0, 8.0], [1.0, 0.0]]):
        assert task.info(replace(start, position=torch.tensor([astray])))["success"].tolist() == [0.0]


@pytest.mark.parametrize(("continuous", "theirs", "error"), [(False, -28.73, 0.28), (True, -27.30, 0.26)])
def test_random_return(continuous, theirs, error):
    """Mean and standard error of 1,500 random episodes of mpe2 1.1.1, per agent."""
    mean, own = random_returns(Reference(continuous_actions=continuous))
    assert mean == pytest.approx(theirs, abs=4 * float(np.hypot(error, own[0])))


@pytest.mark.parametrize(("continuous", "known"), [(False, -17.3), (True, -13.3)])
def test_words_attain_their_return(continuous, known):
    """As its docstring says, over 10,000 episodes with a standard error below 0.1."""
    task = Reference(continuous_actions=continuous)
    found = play(task, lambda view: reference_words(view, task.agents), 2_000).sum(1)
    assert float(found.mean()) == pytest.approx(known, abs=4 * float(found.std()) / 2_000**0.5 + 0.4)


def test_one_team_with_moves_and_words():
    assert [action.sizes for action in Reference().agents.actions] == [(50,)]
    assert Reference(continuous_actions=True).agents.action_dim == 15
    assert Reference().agents.team == (0, 0)


def test_refuses_what_does_not_exist():
    with pytest.raises(ValueError, match=r"local_ratio: must be in \[0, 1\], got -1"):
        Reference(local_ratio=-1)
    with pytest.raises(ValueError, match="max_cycles: must be at least 1, got 0"):
        Reference(max_cycles=0)
    env = NativeEnv(Reference(), 1)
    env.reset()
    for choice in (50, -1):
        with pytest.raises(IndexError):
            env.step(torch.full((1, 2, 1), choice))
