"""Matrix games pay what their papers say."""

from __future__ import annotations

import itertools

import pytest
import torch

from envs.matrix.games import Climbing, Penalty, TwoStep
from envs.native import NativeEnv

CLIMBING = {(0, 0): 11, (0, 1): -30, (0, 2): 0, (1, 0): -30, (1, 1): 7, (1, 2): 6, (2, 0): 0, (2, 1): 0, (2, 2): 5}


def joint(*choices: int) -> torch.Tensor:
    return torch.tensor([choices]).unsqueeze(-1)


def returns(env: NativeEnv, *choices: int) -> float:
    """The first agent's return of an episode of equal joint actions."""
    env.reset()
    total, over = 0.0, False
    while not over:
        step = env.step(joint(*choices))
        total, over = total + float(step.reward[0, 0]), bool(step.over[0])
    return total


def test_climbing_pays_its_matrix_to_both():
    env = NativeEnv(Climbing(), 9)
    env.reset()
    pairs = list(itertools.product(range(3), repeat=2))
    step = env.step(torch.tensor(pairs).unsqueeze(-1))
    assert step.reward.tolist() == [[CLIMBING[p]] * 2 for p in pairs]
    assert step.info["optimal"].tolist() == [1.0] + [0.0] * 8
    assert not step.view.obs.any()
    assert step.view.obs.shape == (9, 2, 1)


def test_known_returns():
    assert returns(NativeEnv(Climbing(), 1), 0, 0) == 275
    assert returns(NativeEnv(Climbing(), 1), 1, 1) == 175
    assert returns(NativeEnv(Penalty(), 1), 0, 2) == 250
    assert returns(NativeEnv(Penalty(k=-100), 1), 2, 2) == -2500
    assert returns(NativeEnv(Penalty(steps=3), 1), 1, 1) == 6


def test_penalty_counts_both_optima():
    env = NativeEnv(Penalty(k=-25), 3)
    env.reset()
    step = env.step(torch.tensor([[0, 2], [2, 0], [0, 0]]).unsqueeze(-1))
    assert step.reward[:, 0].tolist() == [10, 10, -25]
    assert step.info["optimal"].tolist() == [1, 1, 0]


def test_repeated_games_are_truncated_together():
    env = NativeEnv(Climbing(steps=2), 3)
    env.reset()
    noop = torch.zeros(3, 2, 1, dtype=torch.int64)
    first, second, third = (env.step(noop) for _ in range(3))
    assert [s.over.tolist() for s in (first, second, third)] == [[False] * 3, [True] * 3, [False] * 3]
    assert second.truncated.all()
    assert not second.terminated.any()


@pytest.mark.parametrize("choices", list(itertools.product(range(2), repeat=4)))
def test_two_step(choices):
    """The first agent's first choice picks the matrix: 7 everywhere, or 0, 1, 1, 8."""
    first, other, row, column = choices
    env = NativeEnv(TwoStep(), 1)
    view = env.reset()
    assert view.obs.tolist() == [[[1, 0, 0]] * 2]
    step = env.step(joint(first, other))
    assert step.reward.tolist() == [[0, 0]]
    assert not (step.terminated | step.truncated).any()
    expected = [0, 0, 1] if first else [0, 1, 0]
    assert step.view.obs.tolist() == [[expected] * 2]
    assert step.view.state is not None
    assert step.view.state.tolist() == [expected]
    step = env.step(joint(row, column))
    assert step.reward.tolist() == [[row + column if row + column < 2 else 8] * 2 if first else [7, 7]]
    assert step.terminated.all()
    assert not step.truncated.any()
    assert step.over.all()
    assert not step.next_view.alive.any()
    assert step.view.obs.tolist() == [[[1, 0, 0]] * 2]


def test_refuses_no_steps():
    with pytest.raises(ValueError, match="steps: must be at least 1, got 0"):
        Climbing(steps=0)
