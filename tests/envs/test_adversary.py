"""Adversary is mpe2's simple_adversary_v3, transition for transition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mpe2 import simple_adversary_v3
from mpe_states import compare, play, random_returns
from torch.testing import assert_close

from envs.particle.adversary import Adversary, AdversaryState
from envs.particle.scripted import adversary_cover
from envs.scripted import random_action

SETTINGS = {
    "defaults": {},
    "one good agent": {"num_good": 1, "max_cycles": 50},
    "continuous": {"num_good": 4, "continuous_actions": True},
    "neighbours": {"num_good": 4, "num_agent_neighbors": 2, "num_landmark_neighbors": 5},
    "padded": {"num_good": 1, "num_agent_neighbors": 3, "num_landmark_neighbors": 2},
}


def dress(world, state: AdversaryState, copy: int) -> None:
    for agent in world.agents:
        agent.goal_a = world.landmarks[int(state.goal[copy])]


@pytest.mark.parametrize("arguments", SETTINGS.values(), ids=SETTINGS.keys())
def test_equals_mpe2(arguments):
    others = {k: v for k, v in arguments.items() if k != "num_good"}
    theirs = simple_adversary_v3.parallel_env(N=arguments.get("num_good", 2), **others)
    compare(Adversary(**arguments), theirs, dress)


def state() -> AdversaryState:
    """The adversary 3 left of the goal, good agents 1 above and 2 below it; the other landmark far right."""
    position = torch.tensor([[[-3.0, 0.0], [0.0, 1.0], [0.0, -2.0]]])
    landmark = torch.tensor([[[9.0, 0.0], [0.0, 0.0]]])
    return AdversaryState(position, torch.zeros_like(position), landmark, torch.tensor([1]))


def test_one_step_by_hand():
    task = Adversary()
    after, reward, _ = task.advance(state(), torch.tensor([[[2], [0], [0]]]), torch.Generator())
    assert_close(reward, torch.tensor([[-3.0, 2.0, 2.0]]))
    assert_close(after.velocity[0], torch.tensor([[0.5, 0], [0, 0], [0, 0]]))
    info = task.info(after)
    assert (info["adversary_distance"].tolist(), info["good_distance"].tolist()) == ([3.0], [1.0])


def test_only_good_agents_see_the_goal():
    task = Adversary()
    before = task.view(state()).obs[0]
    other = task.view(replace(state(), goal=torch.tensor([0]))).obs[0]
    assert_close(before[0], other[0])
    assert_close(before[0], torch.tensor([12.0, 0, 3, 0, 3, 1, 3, -2, 0, 0]))
    assert_close(before[1], torch.tensor([0.0, -1, 9, -1, 0, -1, -3, -1, 0, -3]))
    assert_close(other[1, :2], torch.tensor([9.0, -1]))


def test_bodies_pass_through_each_other():
    heap = AdversaryState(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2), torch.zeros(1, 2, 2), torch.tensor([0]))
    after, _, _ = Adversary().advance(heap, torch.zeros(1, 3, 1, dtype=torch.int64), torch.Generator())
    assert not after.velocity.any()


def test_two_teams():
    agents = Adversary(num_good=3).agents
    assert agents.team == (0, 1, 1, 1)
    assert [(g.name, g.start, g.size, g.observation.dim) for g in agents.groups] == [
        ("adversary", 0, 1, 12),
        ("agent", 1, 3, 14),
    ]


@pytest.mark.parametrize(
    ("continuous", "theirs", "errors"),
    [(False, [-28.99, 8.22, 8.22], [0.34, 0.42, 0.42]), (True, [-27.61, 7.59, 7.59], [0.33, 0.40, 0.40])],
)
def test_random_returns(continuous, theirs, errors):
    """Means and standard errors of 1,500 random episodes of mpe2 1.1.1."""
    mean, own = random_returns(Adversary(continuous_actions=continuous))
    assert (np.abs(mean - theirs) < 4 * np.hypot(errors, own)).all()


@pytest.mark.parametrize("continuous", [False, True])
def test_scripted_play_is_better_than_chance(continuous):
    """Against random opponents, standard errors below 0.5: good agents earn 12 more, the adversary 9 more."""
    task, generator = Adversary(continuous_actions=continuous), torch.Generator().manual_seed(0)

    def mixed(view, scripted):
        chosen = random_action(view, task.agents, generator)
        chosen[:, scripted] = adversary_cover(view, task.agents)[:, scripted]
        return chosen

    adversary = play(task, lambda view: mixed(view, slice(0, 1)), 1_000).mean(0)
    good = play(task, lambda view: mixed(view, slice(1, 3)), 1_000).mean(0)
    assert adversary[0] == pytest.approx(-18.0, abs=1.5)
    assert good[1] == pytest.approx(19.5, abs=2)


@pytest.mark.parametrize("name", ["num_good", "max_cycles", "num_agent_neighbors", "num_landmark_neighbors"])
def test_refuses_bad_arguments(name):
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name}: must be at least 1, got 0"):
        Adversary(**arguments)


def test_the_scripted_policy_needs_everything_in_sight():
    task = Adversary(num_agent_neighbors=1)
    view = task.view(task.initial(torch.Generator(), 2))
    with pytest.raises(ValueError, match=r"expected groups observing \(8, 10\) columns, got \(6, 8\)"):
        adversary_cover(view, task.agents)
