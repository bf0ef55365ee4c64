"""The covering program of task allocation: which agents to send to which tasks for the highest total weight.

With ``x_im`` whether agent i works on task m in its reach and ``y_m`` whether task m is served::

    max sum_m w_m y_m   subject to   sum_m x_im <= 1   and   sum_i min(skill_is, need_ms) x_im >= need_ms y_m

Capping a skill at the need changes no whole solution and tightens the linear relaxation.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.optimize import LinearConstraint, milp

SLACK = 1e-7  # relative; HiGHS keeps constraints to 1e-7


def best_assignment(
    weight: np.ndarray, need: np.ndarray, skill: np.ndarray, near: np.ndarray, *, relaxed: bool = False
) -> tuple[float, np.ndarray]:
    """The highest total weight of tasks served, and who works where.

    Exact by branch and bound (HiGHS), in exponential time at worst; relaxed, a linear program of N K + M variables.

    Args:
        weight: ``[M]`` what each task pays, not negative.
        need: ``[M, S]`` units of each skill that it needs, not negative.
        skill: ``[N, S]`` units of each agent; an agent without any is sent nowhere.
        near: ``[N, K]`` tasks in reach of each.
        relaxed: Allow parts of agents and of tasks: an upper bound, lifted by the tolerance of the solver.

    Returns:
        The value, and ``[N]`` int64: k for an agent sent to task ``near[i, k - 1]``, 0 for one sent nowhere; of no
        meaning where relaxed.

    Raises:
        RuntimeError: If the solver gives up.

    >>> best_assignment(np.array([1.0, 3.0]), np.array([[1], [2]]), np.array([[1], [1]]), np.array([[0, 1], [0, 1]]))
    (3.0, array([2, 2]))
    """
    (n, reach), (tasks, skills) = near.shape, need.shape
    pairs = n * reach
    brings = np.minimum(skill[:, None, :], need[near]).reshape(pairs, skills)
    pair, which = np.nonzero(brings)
    task, wanted = np.nonzero(need)
    cover = sp.csr_array(
        (
            np.concatenate([brings[pair, which], -need[task, wanted]]).astype(np.float64),
            (
                np.concatenate([near.reshape(-1)[pair] * skills + which, task * skills + wanted]),
                np.concatenate([pair, pairs + task]),
            ),
        ),
        shape=(tasks * skills, pairs + tasks),
    )
    once = sp.csr_array((np.ones(pairs), (np.repeat(np.arange(n), reach), np.arange(pairs))), shape=(n, pairs + tasks))
    found = milp(
        -np.concatenate([np.zeros(pairs), weight]),
        integrality=0 if relaxed else 1,
        bounds=(0, 1),
        constraints=[LinearConstraint(cover, lb=0), LinearConstraint(once, ub=1)],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise RuntimeError(f"best_assignment: the solver gave up, {found.message}")
    if relaxed:
        return -float(found.fun) * (1 + SLACK), np.zeros(n, dtype=np.int64)
    sent = found.x[:pairs].reshape(n, reach) > 0.5
    served = found.x[pairs:] > 0.5
    return float(weight[served].sum()), np.where(sent.any(1), sent.argmax(1) + 1, 0)
