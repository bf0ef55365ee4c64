"""Scripted policies: random actions are what they say, and the assignment policy attains its published return."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from toy_tasks import Fading

from envs.base import View
from envs.native import NativeEnv, Task
from envs.particle.scripted import assign, spread_assignment
from envs.particle.spread import Spread
from envs.scripted import random_action
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec


def team_return(task: Task, policy, episodes: int) -> torch.Tensor:
    """``[episodes]`` sums over agents and steps."""
    env = NativeEnv(task, episodes)
    view, total = env.reset(seed=0), torch.zeros(episodes)
    assert task.horizon is not None
    for _ in range(task.horizon):
        step = env.step(policy(view))
        view, total = step.view, total + step.reward.sum(-1)
    return total


@pytest.mark.parametrize(("continuous", "published"), [(False, -27.3), (True, -21.2)])
def test_assignment_attains_its_published_return(continuous, published):
    """Another greedy script played 400 episodes of mpe2 1.1.1 with an interval of 1, to which ours adds 1."""
    task = Spread(continuous_actions=continuous)
    found = team_return(task, lambda view: spread_assignment(view, task.agents), 400)
    assert found.mean() == pytest.approx(published, abs=2)


def test_random_return():
    """1,000 random episodes of mpe2 1.1.1 gave -80.1 with a standard error of 0.8."""
    task, generator = Spread(), torch.Generator().manual_seed(0)
    found = team_return(task, lambda view: random_action(view, task.agents, generator), 1_000)
    assert found.mean() == pytest.approx(-80.1, abs=3.3)


def test_assignment_needs_no_names():
    """The same observations as one unnamed vector, as they come from mpe2, and any leading axes."""
    task = Spread()
    view = task.view(task.initial(torch.Generator().manual_seed(3), 6))
    plain = AgentSpec.single(3, ObservationSpec.flat(18), ActionSpec.discrete(5))
    chosen = spread_assignment(view, task.agents)
    assert chosen.shape == (6, 3, 1)
    assert torch.equal(spread_assignment(view, plain), chosen)
    folded = View(view.obs.view(2, 3, 3, 18), view.alive.view(2, 3, 3), view.graph)
    assert torch.equal(spread_assignment(folded, plain), chosen.view(2, 3, 3, 1))
    one = View(view.obs[0], view.alive[0], view.graph)
    assert torch.equal(spread_assignment(one, plain), chosen[0])


def test_assignment_drives_and_stops():
    """By hand: a landmark 0.6 to the right is three full pushes of 0.2 away; a velocity of 1.5 carries that far too."""
    task = Spread(num_agents=1)
    obs = torch.zeros(3, 1, 6)
    obs[0, 0, 4], obs[1, 0, 4], obs[2, 0, 5] = 0.6, 0.6, -0.05
    obs[1, 0, 0] = 1.5
    view = View(obs, torch.ones(3, 1, dtype=torch.bool), task.view(task.initial(torch.Generator(), 1)).graph)
    assert spread_assignment(view, task.agents).tolist() == [[[2]], [[0]], [[0]]]
    pushes = spread_assignment(view, Spread(num_agents=1, continuous_actions=True).agents)
    expected = [[[0, 0, 1, 0, 0]], [[0, 0, 0, 0, 0]], [[0, 0, 0, 0.25, 0]]]
    torch.testing.assert_close(pushes, torch.tensor(expected))


@pytest.mark.parametrize("n", [1, 4, 6])
def test_assignment_is_cheapest(n):
    cost = torch.rand(20, n, n, generator=torch.Generator().manual_seed(n))
    expected = [linear_sum_assignment(sample)[1].tolist() for sample in cost.numpy()]
    assert assign(cost).tolist() == expected


def test_assignment_of_many():
    """A cost that is zero on a known permutation only."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    cost = torch.ones(2, 12, 12)
    cost[:, torch.arange(12), order] = 0
    assert assign(cost).tolist() == [order.tolist()] * 2


def test_assignment_refuses_what_it_cannot_see():
    task = Spread(num_landmark_neighbors=1)
    view = task.view(task.initial(torch.Generator(), 2))
    with pytest.raises(ValueError, match=r"expected observations of 18 columns .* got 14"):
        spread_assignment(view, task.agents)


def test_random_actions_of_mixed_groups():
    task = Fading()
    view = task.view(task.initial(torch.Generator().manual_seed(0), 4_000))
    action = random_action(view, task.agents, torch.Generator().manual_seed(1))
    again = random_action(view, task.agents, torch.Generator().manual_seed(1))
    assert torch.equal(action, again)
    assert action.shape == (4_000, 4, 2)
    assert action.dtype == torch.float32
    assert view.action_mask is not None
    walkers = action[:, :2, 0].long()
    assert view.action_mask[:, :2].gather(-1, walkers.unsqueeze(-1)).all()
    barred = ~view.action_mask[:, :2, 2]
    for mask, choices in ((barred, 2), (~barred, 3)):
        share = torch.bincount(walkers[mask], minlength=3) / mask.sum()
        torch.testing.assert_close(share[:choices], torch.full((choices,), 1 / choices), atol=0.03, rtol=0)
    flyer = action[:, 2]
    assert flyer.abs().max() <= 1
    torch.testing.assert_close(flyer.var(0), torch.full((2,), 1 / 3), atol=0.03, rtol=0)
    assert not action[:, 3].any()
    assert not action[:, :2, 1].any()


def test_random_choices_without_a_mask():
    spec = AgentSpec.single(2, ObservationSpec.flat(1), ActionSpec.discrete(2, 3))
    task = Spread(num_agents=2)
    view = task.view(task.initial(torch.Generator(), 3_000))
    action = random_action(view, spec, torch.Generator().manual_seed(0))
    assert action.dtype == torch.int64
    for component, size in enumerate((2, 3)):
        share = torch.bincount(action[..., component].flatten(), minlength=3) / 6_000
        torch.testing.assert_close(share[:size], torch.full((size,), 1 / size), atol=0.03, rtol=0)


def test_random_reals_without_bounds_are_normal():
    infinite = float("inf")
    spec = ActionSpec("box", low=(-infinite, 0.0, 2.0), high=(infinite, infinite, 4.0))
    agents = AgentSpec.single(1, ObservationSpec.flat(1), spec)
    task = Spread(num_agents=1)
    view = task.view(task.initial(torch.Generator(), 5_000))
    action = random_action(view, agents, torch.Generator().manual_seed(0))[:, 0]
    torch.testing.assert_close(action[:, 0].std(), torch.tensor(1.0), atol=0.05, rtol=0)
    torch.testing.assert_close(action[:, 0].mean(), torch.tensor(0.0), atol=0.05, rtol=0)
    assert action[:, 1].min() == 0
    assert action[:, 2].min() >= 2
    assert action[:, 2].max() <= 4
    assert action[:, 2].mean() == pytest.approx(3, abs=0.05)
