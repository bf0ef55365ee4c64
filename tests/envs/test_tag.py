"""Tag is mpe2's simple_tag_v3, transition for transition, contacts and all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mpe2 import simple_tag_v3
from mpe_states import compare, play, random_returns
from torch.testing import assert_close

from envs.particle.scripted import tag_chase
from envs.particle.tag import Tag, TagState
from envs.scripted import random_action

SETTINGS = {
    "defaults": {},
    "continuous": {"continuous_actions": True, "max_cycles": 50},
    "no obstacles": {"num_good": 2, "num_adversaries": 1, "num_obstacles": 0, "max_cycles": 40},
    "two each": {"num_good": 2, "num_adversaries": 2, "num_obstacles": 1, "continuous_actions": True},
    "neighbours": {"num_good": 3, "num_adversaries": 2, "num_agent_neighbors": 2, "num_landmark_neighbors": 1},
    "nearest obstacle": {"num_good": 2, "num_adversaries": 1, "num_landmark_neighbors": 1},
    "padded": {
        "num_adversaries": 1,
        "num_obstacles": 0,
        "num_agent_neighbors": 3,
        "num_landmark_neighbors": 2,
        "continuous_actions": True,
    },
}


@pytest.mark.parametrize("arguments", SETTINGS.values(), ids=SETTINGS.keys())
def test_equals_mpe2(arguments):
    compare(Tag(**arguments), simple_tag_v3.parallel_env(**arguments), every_step=True)


def test_nothing_is_hidden_between_steps():
    """The world of mpe2 is put in place once; ten steps are too few for rounding errors to grow."""
    task = Tag(max_cycles=10, num_good=1, num_adversaries=1, num_obstacles=0)
    compare(task, simple_tag_v3.parallel_env(max_cycles=10, num_good=1, num_adversaries=1, num_obstacles=0))


def still(position: list, landmark: list) -> TagState:
    place = torch.tensor([position], dtype=torch.float32)
    return TagState(place, torch.zeros_like(place), torch.tensor([landmark], dtype=torch.float32).view(1, -1, 2))


def test_one_step_by_hand():
    """Two adversaries far apart and one prey: pushes of 3 and 4 for 0.1; one touches from 0.1 away, radii 0.125.

    The overlap of 0.025 pushes both with a force of 2.5, a change of velocity of 0.25.
    """
    task = Tag(num_adversaries=2, num_obstacles=0)
    start = still([[0.5, 0.0], [-0.5, 0.0], [0.6, 0.0]], [])
    after, reward, terminated = task.advance(start, torch.tensor([[[3], [2], [4]]]), torch.Generator())
    assert_close(after.position, start.position)
    assert_close(after.velocity, torch.tensor([[[-0.25, -0.3], [0.3, 0.0], [0.25, 0.4]]]))
    assert reward.tolist() == [[10.0, 10.0, -10.0]]
    assert task.info(after)["captures"].tolist() == [1.0]
    assert not terminated.any()


def test_nobody_is_faster_than_allowed():
    """Velocity (3, 4) shrinks by damping to length 3.75, then to the top speeds 1 and 1.3 in the same direction."""
    task = Tag(num_adversaries=1, num_obstacles=0)
    start = still([[0.0, 0.0], [5.0, 5.0]], [])
    start = TagState(start.position, torch.tensor([[[3.0, 4.0], [3.0, 4.0]]]), start.landmark)
    after, _, _ = task.advance(start, torch.zeros(1, 2, 1, dtype=torch.int64), torch.Generator())
    assert_close(after.velocity, torch.tensor([[[0.6, 0.8], [0.78, 1.04]]]))
    assert_close(after.position, start.position + 0.1 * start.velocity)


@pytest.mark.parametrize(
    ("place", "penalty"),
    [([0.9, -0.3], 0), ([-0.95, 0], 0.5), ([1.0, 0.95], 1.5), ([0, -1.5], 2.718282), ([9, 9], 20)],
)
def test_prey_pay_for_leaving_and_adversaries_do_not(place, penalty):
    task = Tag(num_adversaries=1, num_obstacles=0)
    _, reward, _ = task.advance(still([[5, -5], place], []), torch.zeros(1, 2, 1, dtype=torch.int64), torch.Generator())
    assert_close(reward, torch.tensor([[0.0, -penalty]]), atol=1e-5, rtol=1e-5)


def test_every_adversary_is_paid_for_every_capture():
    """Both adversaries touch both prey (heap): 4 pairs, 40 for each adversary; each prey pays 20."""
    task = Tag(num_good=2, num_adversaries=2)
    heap = still([[0, 0.01], [0.01, 0], [0, 0], [0.01, 0.01]], [[5, 5], [-5, 5]])
    after, reward, _ = task.advance(heap, torch.zeros(1, 4, 1, dtype=torch.int64), torch.Generator())
    assert reward.tolist() == [[40, 40, -20, -20]]
    assert task.info(after)["captures"].tolist() == [4]


def test_bodies_on_one_point_stay_finite():
    task = Tag()
    after, reward, _ = task.advance(
        still([[0, 0]] * 4, [[0, 0], [1, 1]]), torch.zeros(1, 4, 1, dtype=torch.int64), torch.Generator()
    )
    assert torch.isfinite(after.velocity).all()
    assert torch.isfinite(reward).all()


def test_two_teams_with_their_own_views():
    agents = Tag(num_good=2, num_adversaries=3, num_obstacles=1).agents
    assert agents.team == (0, 0, 0, 1, 1)
    assert agents.names == ("adversary_0", "adversary_1", "adversary_2", "agent_0", "agent_1")
    assert [(g.name, g.start, g.size, g.observation.dim) for g in agents.groups] == [
        ("adversary", 0, 3, 18),
        ("agent", 3, 2, 16),
    ]


def test_where_episodes_begin():
    start = Tag(num_obstacles=4).initial(torch.Generator().manual_seed(0), 2_000)
    assert 0.99 < float(start.position.abs().max()) <= 1
    assert 0.89 < float(start.landmark.abs().max()) <= 0.9
    assert not start.velocity.any()


@pytest.mark.parametrize(
    ("continuous", "theirs", "errors"),
    [(False, [4.60, 4.60, 4.60, -16.79], [0.28] * 3 + [0.53]), (True, [3.69, 3.69, 3.69, -11.46], [0.26] * 3 + [0.42])],
)
def test_random_returns(continuous, theirs, errors):
    """Means and standard errors of 1,500 random episodes of mpe2 1.1.1."""
    mean, own = random_returns(Tag(continuous_actions=continuous))
    assert (np.abs(mean - theirs) < 4 * np.hypot(errors, own)).all()


@pytest.mark.parametrize(("continuous", "chase", "flight"), [(False, 42.5, -3.7), (True, 66.0, -3.0)])
def test_scripted_play_is_better_than_chance(continuous, chase, flight):
    """Against random opponents, as 10,000 episodes gave, with standard errors of about 1 and 0.3 for 1,000."""
    task, generator = Tag(continuous_actions=continuous), torch.Generator().manual_seed(0)

    def mixed(view, scripted):
        chosen = random_action(view, task.agents, generator)
        chosen[:, scripted] = tag_chase(view, task.agents)[:, scripted]
        return chosen

    assert play(task, lambda view: mixed(view, slice(0, 3)), 1_000).mean(0)[0] == pytest.approx(chase, abs=6)
    assert play(task, lambda view: mixed(view, slice(3, 4)), 1_000).mean(0)[3] == pytest.approx(flight, abs=1.5)


def test_refuses_bad_arguments():
    for name in ("num_good", "num_adversaries", "max_cycles", "num_agent_neighbors", "num_landmark_neighbors"):
        arguments: dict[str, Any] = {name: 0}
        with pytest.raises(ValueError, match=f"{name}: must be at least 1, got 0"):
            Tag(**arguments)
    with pytest.raises(ValueError, match="num_obstacles: must be at least 0, got -1"):
        Tag(num_obstacles=-1)


def test_the_scripted_policy_needs_everything_in_sight():
    task = Tag(num_agent_neighbors=1)
    view = task.view(task.initial(torch.Generator(), 2))
    with pytest.raises(ValueError, match="tag_chase: expected groups observing"):
        tag_chase(view, task.agents)
