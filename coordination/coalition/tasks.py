"""Coalitions for tasks: who together can do what, best worth for its cost first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import scipy.sparse as sp
import torch
from scipy.optimize import linprog
from torch import Tensor

from coordination.arrays import as_numpy
from coordination.coalition.base import Coalitions, canonical
from coordination.games import Game
from coordination.topology import Topology

MAX_TEAMS = 2_000_000  # tried
MAX_COLUMNS = 20_000  # feasible teams up to which the bound is the linear relaxation


@dataclass(frozen=True, eq=False)
class TaskGreedy:
    """Teams of at most ``max_size`` agents for tasks; :func:`assign_tasks` as a former.

    ``form`` takes the capabilities ``[N, R]`` as ``features``. Agents of one team share a label, idle agents have -1;
    which task a team does is in the second result of :func:`assign_tasks`.

    Args:
        requirement, reward, cost, max_size, candidates: As there.
    """

    requirement: Tensor
    reward: Tensor
    cost: Tensor
    max_size: int = 3
    candidates: Tensor | None = None

    def form(
        self,
        game: Game | None = None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """See :class:`Former`; only ``features`` are looked at.

        Raises:
            ValueError: Without features, and as :func:`assign_tasks`.
        """
        if features is None:
            raise ValueError("TaskGreedy: needs features [N, R], the capabilities of the agents")
        return assign_tasks(features, self.requirement, self.reward, self.cost, self.max_size, self.candidates)[0]


def assign_tasks(
    capability: Tensor,
    requirement: Tensor,
    reward: Tensor,
    cost: Tensor,
    max_size: int = 3,
    candidates: Tensor | None = None,
) -> tuple[Coalitions, Tensor]:
    """Disjoint teams for tasks, greedily by reward for cost (after Shehory and Kraus 1998).

    A team can do task j if its capabilities add up to the requirement in every resource; doing it earns ``reward_j``
    less the costs of the members. Teams that earn something are taken in order of reward / cost while their task is
    open and their members are free. Shehory and Kraus rank by cost per member and recompute worths as tasks fill up;
    here a task is done once and worths do not change. All teams are tried: O(J candidates^max_size); at scale give
    every task few candidates (the agents within k hops).

    Args:
        capability: ``[N, R]`` what each agent brings of each resource.
        requirement: ``[J, R]`` what each task needs.
        reward: ``[J]`` what doing a task earns.
        cost: ``[N]`` cost of each agent's part in a team, above 0.
        max_size: Most agents in a team.
        candidates: ``[J, N]`` bool: who may work on which task; None if everybody may.

    Returns:
        Coalitions (labels ``[N]``, -1 for idle agents; ``value`` what the teams earn; ``upper_bound`` the linear
        relaxation of the best choice of teams, or the sum over tasks of their best team where more than 20,000 teams
        are feasible), and the task of each agent ``[N]``, -1 for idle ones.

    Raises:
        ValueError: If shapes disagree, a cost is not above 0, or more than two million teams would have to be tried.

    >>> price = torch.tensor([1.0, 3.0, 1.0])
    >>> formed, task = assign_tasks(torch.ones(3, 1), torch.tensor([[2.0]]), torch.tensor([9.0]), price)
    >>> task.tolist(), formed.value.item()
    ([0, -1, 0], 7.0)
    """
    given = (capability, requirement, reward, cost)
    able, need, earns, price = (as_numpy(x) for x in given)
    (n, resources), jobs = able.shape, len(earns)
    allowed = np.ones((jobs, n), dtype=bool) if candidates is None else torch.as_tensor(candidates).cpu().numpy()
    if need.shape != (jobs, resources) or price.shape != (n,) or allowed.shape != (jobs, n):
        raise ValueError(
            f"assign_tasks: expected capability [N, R], requirement [J, R], reward [J], cost [N], candidates [J, N], "
            f"got {able.shape}, {need.shape}, {earns.shape}, {price.shape}, {allowed.shape}"
        )
    if not (price > 0).all():
        raise ValueError(f"cost: must be above 0 for every agent, got {price.min()}")
    tries = sum(comb(int(row.sum()), k) for row in allowed for k in range(1, max_size + 1))
    if tries > MAX_TEAMS:
        raise ValueError(f"assign_tasks: {tries} teams to try, at most {MAX_TEAMS}; give candidates or lower max_size")
    team, of_task = _feasible(able, need, allowed, max_size)
    paid = np.where(team >= 0, price[team], 0.0).sum(1)
    net = earns[of_task] - paid
    team, of_task, paid, net = (x[net > 0] for x in (team, of_task, paid, net))
    task, value = np.full(n, -1), 0.0
    done = np.zeros(jobs, dtype=bool)
    for t in np.argsort(-(net + paid) / paid, kind="stable"):
        members = team[t][team[t] >= 0]
        if not done[of_task[t]] and (task[members] < 0).all():
            done[of_task[t]], task[members] = True, of_task[t]
            value += float(net[t])
    bound = max(_bound(team, of_task, net, n, jobs), value)
    found = torch.from_numpy(task).to(torch.as_tensor(capability).device)
    formed = Coalitions(canonical(found), *torch.tensor([value, bound], dtype=torch.float64, device=found.device))
    return formed, found


def _feasible(able: np.ndarray, need: np.ndarray, allowed: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """All teams that can do a task: members ``[M, most]`` padded with -1, and the task of each ``[M]``."""
    teams, tasks = [np.zeros((0, most), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for j, row in enumerate(allowed):
        agents = np.flatnonzero(row)
        for k in range(1, min(most, len(agents)) + 1):
            members = agents[np.array(list(combinations(range(len(agents)), k)))]
            members = members[(able[members].sum(1) >= need[j]).all(1)]
            teams.append(np.pad(members, ((0, 0), (0, most - k)), constant_values=-1))
            tasks.append(np.full(len(members), j))
    return np.concatenate(teams), np.concatenate(tasks)


def _bound(team: np.ndarray, of_task: np.ndarray, net: np.ndarray, n: int, jobs: int) -> float:
    if not len(net):
        return 0.0
    if len(net) > MAX_COLUMNS:
        best = np.zeros(jobs)
        np.maximum.at(best, of_task, net)
        return float(best.sum())
    row, position = np.nonzero(team >= 0)
    columns = np.arange(len(net))
    limits = sp.csc_array(
        (np.ones(len(row) + len(net)), (np.r_[team[row, position], n + of_task], np.r_[row, columns])),
        shape=(n + jobs, len(net)),
    )
    relaxed = linprog(-net, limits, np.ones(n + jobs))
    return -float(relaxed.fun) * (1 + 1e-9)
