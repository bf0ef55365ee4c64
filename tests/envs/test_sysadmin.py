"""SysAdmin: rules by hand, transition frequencies, and the optimum against published numbers and simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.checks import check
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.population.sysadmin import Machines, SysAdmin, reboot_down, solve
from envs.scripted import random_action


def at(task: SysAdmin, up: list[bool], copies: int = 1):
    return replace(task.initial(torch.Generator(), copies), modules=Machines(torch.tensor([up]).repeat(copies, 1)))


def test_everything_is_up_at_first():
    task = SysAdmin(num_agents=5)
    state = task.initial(torch.Generator(), 2)
    assert (task.view(state).obs == 1).all()
    assert task.info(state)["up"].tolist() == [1.0, 1.0]


def test_chances_by_hand():
    """A path up, up, down, up, the last one rebooted: .45 + .5 (1 + 1) / 2 · (1 + 1) / 3 · down .05 · certain."""
    task, copies = SysAdmin(num_agents=4, topology="path"), 40_000
    state = at(task, [True, True, False, True], copies)
    action = torch.tensor([0, 0, 0, 1]).view(1, 4, 1).repeat(copies, 1, 1)
    after, reward, terminated = task.advance(state, action, torch.Generator().manual_seed(0))
    assert reward[0].tolist() == [1.0, 1.0, 0.0, 0.25]
    share = after.modules.up.float().mean(0).tolist()
    assert share == pytest.approx([0.95, 0.45 + 1 / 3, 0.05, 1.0], abs=4 * 0.5 / copies**0.5)
    assert task.view(state).obs[0].tolist() == [[1, 1], [1, 0.5], [0, 1], [1, 0]]
    assert float(task.info(state)["up"][0]) == 0.75
    assert not terminated.any()


def test_a_machine_alone_depends_on_itself():
    task = SysAdmin(num_agents=3, topology="empty")
    state = at(task, [True, False, True], 20_000)
    after, _, _ = task.advance(state, torch.zeros(20_000, 3, 1, dtype=torch.int64), torch.Generator().manual_seed(1))
    assert after.modules.up.float().mean(0).tolist() == pytest.approx([0.95, 0.05, 0.95], abs=0.01)
    assert task.view(state).obs[0, :, 1].tolist() == [1, 1, 1]


def test_failure_comes_over_links_that_are_up_only():
    task = SysAdmin(num_agents=2, dynamics={"drop": 0.5, "leave": 0.5})
    state = at(task, [True, False], 20_000)
    live = torch.zeros(20_000, 2, dtype=torch.bool)
    live[10_000:] = True
    state = replace(state, graph=replace(state.graph, live=live))
    idle = torch.zeros(20_000, 2, 1, dtype=torch.int64)
    up = task.advance(state, idle, torch.Generator().manual_seed(2))[0].modules.up[:, 0].float()
    assert float(up[:10_000].mean()) == pytest.approx(0.95, abs=0.01)
    assert float(up[10_000:].mean()) == pytest.approx(0.70, abs=0.02)
    gone = torch.zeros(20_000, 2, dtype=torch.bool)
    gone[:, 1] = True  # an empty slot is nobody's neighbour
    alone = replace(state, conditions=replace(state.conditions, absent=gone))
    up = task.advance(alone, idle, torch.Generator().manual_seed(2))[0].modules.up[:, 0].float()
    assert float(up.mean()) == pytest.approx(0.95, abs=0.01)
    assert task.info(alone)["up"].unique().tolist() == [1.0]


def test_the_reward_is_a_sum_of_factors_of_one_machine_each():
    task = SysAdmin(num_agents=6)
    assert task.agents.factor_scopes == tuple((i,) for i in range(6))
    env, generator = NativeEnv(task, 5), torch.Generator().manual_seed(0)
    view = env.reset(seed=0)
    for _ in range(60):
        action = random_action(view, env.agents, generator)
        step = env.step(action)
        expected = view.obs[..., 0] - 0.75 * action[..., 0]
        assert torch.equal(step.reward, expected)
        assert torch.equal(step.factors, expected)
        view = step.view


@pytest.mark.parametrize("dynamics", [None, {"fail": 0.1, "repair": 0.5, "leave": 0.1, "join": 0.5, "drop": 0.1}])
def test_keeps_the_rules(dynamics):
    check(NativeParallel(SysAdmin(num_agents=4, dynamics=dynamics))).raise_if_failed()


# -- the optimum --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "value"), [(4, 71.140), (6, 106.697)])
def test_the_published_optima(n, value):
    assert solve(SysAdmin(num_agents=n)).value[-1] == pytest.approx(value, abs=5e-4)


def test_a_pair_solved_by_hand():
    """Discount near 0: reboot nobody, since it pays only later; value of all up is 2 + d 2 (.95) + O(d^2)."""
    found = solve(SysAdmin(num_agents=2), discount=1e-3)
    assert (found.action == 0).all()
    assert found.value[3] == pytest.approx(2 + 1e-3 * 1.9, abs=1e-5)
    assert found.value[0] == pytest.approx(1e-3 * 0.1, abs=1e-5)
    assert found.value[1] == pytest.approx(1 + 1e-3 * (0.7 + 0.05), abs=1e-5)  # bit 0 is up, its neighbour is not


def test_free_reboots_keep_everything_up():
    assert solve(SysAdmin(num_agents=3, reboot_cost=0.0)).value[-1] == pytest.approx(3 / 0.05)


def simulated(task: SysAdmin, policy, copies: int, steps: int = 150, discount: float = 0.95) -> tuple[float, float]:
    """Mean discounted team return from all up, and its standard error."""
    generator = torch.Generator().manual_seed(3)
    state, total = task.initial(generator, copies), torch.zeros(copies)
    for t in range(steps):
        state, reward, _ = task.advance(state, policy(task.view(state)), generator)
        total += discount**t * reward.sum(-1)
    return float(total.mean()), float(total.std()) / copies**0.5


def test_the_environment_attains_the_optimum():
    task = SysAdmin(num_agents=4)
    found = solve(task)
    table = torch.from_numpy((found.action[:, None] >> np.arange(4)) & 1)

    def best(view):
        return table[(view.obs[..., 0].long() << torch.arange(4)).sum(-1)].unsqueeze(-1)

    mean, error = simulated(task, best, 20_000)
    assert mean == pytest.approx(found.value[-1], abs=4 * error + 4 * 0.95**150 / 0.05)
    assert error < 0.03
    idle, _ = simulated(task, lambda view: torch.zeros(20_000, 4, 1, dtype=torch.int64), 20_000)
    assert idle < mean - 10


def test_rebooting_whatever_is_down_is_not_optimal():
    action = solve(SysAdmin(num_agents=4)).action
    assert action[0b0011] == 0b1100
    assert action[0b0001] == 0b1111  # a machine that is up alone is likely to fail, so it is rebooted too


def test_reboot_down():
    view = (task := SysAdmin(num_agents=3)).view(at(task, [True, False, False]))
    assert reboot_down(view, task.agents).tolist() == [[[0], [1], [1]]]


def test_refusals():
    with pytest.raises(ValueError, match="reboot_cost: must not be negative, got -1"):
        SysAdmin(reboot_cost=-1)
    with pytest.raises(ValueError, match="solve: at most 8 machines, got 16"):
        solve(SysAdmin())
    with pytest.raises(ValueError, match=r"discount: must be in \(0, 1\), got 1"):
        solve(SysAdmin(num_agents=2), discount=1)
