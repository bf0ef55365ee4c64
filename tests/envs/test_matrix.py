"""Matrix games pay what their papers say."""

from __future__ import annotations

import itertools

import pytest
import torch

from envs.checks import check
from envs.matrix.games import Climbing, Penalty, Qplex, StagHunt, TwoStep
from envs.native import NativeEnv, Task
from envs.native.parallel import NativeParallel

CLIMBING = [[11, -30, 0], [-30, 7, 6], [0, 0, 5]]
QPLEX = {  # read off the authors' matrix_game_1, 2 and 3
    1: [[10.4, 0, 10], [0, 10, 10], [10, 10, 10]],
    2: [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]],
    3: [[8, -12, -12], [-12, 6, 0], [-12, 0, 6]],
}


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


def payoffs(task: Task, choices: int) -> torch.Tensor:
    """``[K, K, 2]`` what every joint action pays to either agent."""
    env = NativeEnv(task, choices**2)
    env.reset()
    pairs = list(itertools.product(range(choices), repeat=2))
    return env.step(torch.tensor(pairs).unsqueeze(-1)).reward.view(choices, choices, 2)


def test_climbing_pays_its_matrix_to_both():
    env = NativeEnv(Climbing(), 9)
    env.reset()
    pairs = list(itertools.product(range(3), repeat=2))
    step = env.step(torch.tensor(pairs).unsqueeze(-1))
    assert step.reward.tolist() == [[CLIMBING[a][b]] * 2 for a, b in pairs]
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


@pytest.mark.parametrize(("game", "optimum"), [(1, 10.4), (2, 8.0), (3, 8.0)])
def test_qplex_games_pay_their_matrices_and_have_one_optimum(game, optimum):
    paid = payoffs(Qplex(game=game), 3)
    torch.testing.assert_close(
        paid, torch.tensor(QPLEX[game], dtype=torch.float32).unsqueeze(-1).expand(3, 3, 2), rtol=0, atol=0
    )
    assert paid.max().item() == pytest.approx(optimum)
    assert (paid[..., 0] == paid.max()).nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize(("game", "fit", "greedy"), [(1, 12.18, {10}), (2, -3.56, {0}), (3, -0.89, {0, 6})])
def test_a_sum_of_values_misses_the_optimum_of_qplex_games(game, fit, greedy):
    """The least-squares sum is row mean + column mean - grand mean; its greatest value, and what is paid there."""
    paid = payoffs(Qplex(game=game), 3)[..., 0].double()
    added = paid.mean(1, keepdim=True) + paid.mean(0, keepdim=True) - paid.mean()
    assert added.max().item() == pytest.approx(fit, abs=0.005)
    assert set(paid[added > added.max() - 1e-6].tolist()) == greedy


def test_qplex_games_terminate():
    env = NativeEnv(Qplex(), 2)
    env.reset()
    step = env.step(torch.tensor([[0, 0], [2, 2]]).unsqueeze(-1))
    assert step.terminated.all()
    assert not step.truncated.any()
    assert step.over.all()
    assert step.info["optimal"].tolist() == [1, 0]
    assert returns(NativeEnv(Qplex(game=3, steps=4), 1), 1, 1) == 24
    env = NativeEnv(Qplex(steps=2), 2)
    env.reset()
    ends = [env.step(torch.zeros(2, 2, 1, dtype=torch.int64)).terminated.tolist() for _ in range(4)]
    assert ends == [[[False] * 2] * 2, [[True] * 2] * 2] * 2


def test_stag_hunt_has_two_equilibria_and_one_optimum():
    paid = payoffs(StagHunt(), 2)
    assert paid.tolist() == [[[4, 4], [0, 3]], [[3, 0], [3, 3]]]
    first, second = paid.unbind(-1)
    stable = (first == first.amax(0, keepdim=True)) & (second == second.amax(1, keepdim=True))
    assert stable.nonzero().tolist() == [[0, 0], [1, 1]]
    belief = torch.tensor([0.75, 0.25])  # a partner who hunts the stag three times in four
    assert (first @ belief).tolist() == [3, 3]
    env = NativeEnv(StagHunt(), 4)
    env.reset()
    step = env.step(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).unsqueeze(-1))
    assert step.info["optimal"].tolist() == [1, 0, 0, 0]


def test_stag_hunt_returns():
    assert returns(NativeEnv(StagHunt(), 1), 0, 0) == 100
    assert returns(NativeEnv(StagHunt(steps=2), 1), 1, 0) == 6
    assert returns(NativeEnv(StagHunt(steps=2), 1), 0, 1) == 0


@pytest.mark.parametrize("task", [Qplex(), Qplex(game=2, steps=3), StagHunt(steps=4), Penalty()])
def test_keeps_the_rules(task):
    report = check(NativeParallel(task))
    report.raise_if_failed()
    assert report.replayable


def test_a_saved_game_goes_on_where_it_was():
    played, fresh = NativeEnv(Qplex(steps=3), 1), NativeEnv(Qplex(steps=3), 1)
    played.reset()
    played.step(joint(0, 0))
    fresh.load_state_dict(played.state_dict())
    assert [bool(fresh.step(joint(1, 1)).over[0]) for _ in range(2)] == [False, True]


def test_refuses_unknown_games():
    with pytest.raises(ValueError, match="game: expected 1, 2 or 3, got 4"):
        Qplex(game=4)
    with pytest.raises(ValueError, match="steps: must be at least 1, got -1"):
        StagHunt(steps=-1)
