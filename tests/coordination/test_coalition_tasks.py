from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from coordination.coalition import (
    TaskGreedy,
    assign_tasks,
)


def test_tasks_by_hand():
    capability = torch.tensor([[2.0, 0], [1, 1], [0, 2], [1, 0]])
    requirement = torch.tensor([[2.0, 0], [1, 2]])
    reward, cost = torch.tensor([10.0, 12.0]), torch.tensor([4.0, 1.0, 2.0, 1.0])
    formed, task = assign_tasks(capability, requirement, reward, cost)
    # task 0: {1, 3} for 2 (ratio 5); task 1: {2, 3} and {1, 2} for 3 (ratio 4) have lost a member, {0, 2} for 6 has not
    assert task.tolist() == [1, 0, 1, 0]
    assert formed.value.item() == 10 - 2 + 12 - 6
    # best is {0} and {1, 2}: 6 + 9; the relaxation halves {0}, {1, 3}, {1, 2} and {2, 3}: (6 + 8 + 9 + 9) / 2
    assert formed.upper_bound.item() == pytest.approx(16, abs=1e-6)


@given(st.integers(0, 10_000))
def test_task_gaps_are_true(seed):
    rng = np.random.default_rng(seed)
    n, jobs = 8, 3
    able, need = rng.integers(0, 3, (n, 2)).astype(float), rng.integers(1, 4, (jobs, 2)).astype(float)
    reward, cost = rng.uniform(1, 10, jobs), rng.uniform(0.5, 2, n)
    args = (torch.from_numpy(x) for x in (able, need, reward, cost))
    formed, task = assign_tasks(*args, max_size=3)
    best = _best_tasks(able, need, reward, cost)
    assert formed.value.item() <= best + 1e-9 <= formed.upper_bound.item() + 2e-6
    earned = 0.0
    for j in range(jobs):
        team = (task == j).numpy()
        if team.any():
            assert (able[team].sum(0) >= need[j]).all()
            earned += reward[j] - cost[team].sum()
    assert formed.value.item() == pytest.approx(earned)
    assert ((formed.label < 0) == (task < 0)).all()


def _best_tasks(able, need, reward, cost):
    n, jobs = len(able), len(need)
    teams = [s for s in range(1, 1 << n) if s.bit_count() <= 3]
    member = np.array([[s >> i & 1 for i in range(n)] for s in teams])
    columns = [(t, j) for t in range(len(teams)) for j in range(jobs) if (member[t] @ able >= need[j]).all()]
    if not columns:
        return 0.0
    net = np.array([reward[j] - member[t] @ cost for t, j in columns])
    limits = np.zeros((n + jobs, len(columns)))
    for k, (t, j) in enumerate(columns):
        limits[:n, k], limits[n + j, k] = member[t], 1
    result = milp(-net, integrality=np.ones(len(net)), bounds=Bounds(0, 1), constraints=LinearConstraint(limits, ub=1))
    return -float(result.fun)


def test_candidates_keep_tasks_local():
    n = 400
    near = torch.zeros(40, n, dtype=torch.bool)
    for j in range(40):
        near[j, 10 * j : 10 * j + 10] = True
    former = TaskGreedy(torch.full((40, 1), 3.0), torch.full((40,), 5.0), torch.ones(n), candidates=near)
    formed = former.form(features=torch.ones(n, 1))
    assert formed.num_coalitions.item() == 40
    assert formed.value.item() == 80.0
    assert formed.gap.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TaskGreedy(torch.ones(1, 1), torch.ones(1), torch.ones(2)).form(), "needs features"),
        (lambda: assign_tasks(*(torch.ones(s) for s in ((2, 1), (1, 2), (1,), (2,)))), "expected capability"),
        (lambda: assign_tasks(*(torch.ones(s) for s in ((2, 1), (1, 1), (1,))), torch.zeros(2)), "above 0"),
        (lambda: assign_tasks(*(torch.ones(s) for s in ((500, 1), (1, 1), (1,), (500,)))), "teams to try"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
