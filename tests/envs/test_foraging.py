"""Foraging is lbforaging 2.0.0, transition for transition, and spawns as it does."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency
from torch.testing import assert_close

from coordination import tree
from envs.checks import check
from envs.grid.foraging import Foraging, ForagingState
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.scripted import random_action

TRANSITIONS, COPIES = 2_000, 40
NORTH, SOUTH, WEST, EAST, LOAD = range(1, 6)
SETTINGS = {
    "coop": {"setting": "8x8-2p-2f-coop"},
    "three foods": {"setting": "8x8-2p-3f"},
    "coop, short sight": {"setting": "2s-8x8-2p-2f-coop"},
    "three players": {"setting": "10x10-3p-3f"},
    "three players, short sight": {"setting": "2s-10x10-3p-3f"},
    "five foods": {"setting": "15x15-4p-5f"},
    "penalty, not square": {"setting": "3s-5x8-4p-3f", "penalty": 0.1},
    "crowded, levels, no shares": {
        "setting": "1s-5x5-6p-2f",
        "player_levels": (1, 3),
        "food_levels": (2, 5),
        "normalize_reward": False,
        "penalty": 0.5,
    },
}


def source(task: Foraging):
    """lbforaging's environment of the same setting."""
    foraging = pytest.importorskip("lbforaging.foraging")
    theirs = foraging.ForagingEnv(
        players=task.num_agents,
        min_player_level=task.player_levels[0],
        max_player_level=task.player_levels[1],
        min_food_level=task.food_levels[0],
        max_food_level=task.food_levels[1],
        field_size=(task.rows, task.columns),
        max_num_food=task.num_food,
        sight=task.sight,
        max_episode_steps=task.horizon,
        force_coop=task.force_coop,
        normalize_reward=task.normalize_reward,
        penalty=task.penalty,
    )
    wide = spaces.Box(-1, 100, theirs.observation_space[0].shape)  # theirs mixes up rows and columns of oblong fields
    theirs.observation_space = spaces.Tuple([wide] * task.num_agents)
    return theirs


def place(theirs, state: ForagingState, copy: int) -> None:
    """Put lbforaging's players and food where copy ``copy`` of ours has them."""
    for player, position, level in zip(theirs.players, state.position[copy], state.level[copy], strict=True):
        player.setup(tuple(map(int, position)), int(level), theirs.field_size)
    theirs.field[:] = 0
    for (row, column), level in zip(state.food[copy].int().tolist(), state.food_level[copy], strict=True):
        if level > 0:
            theirs.field[row, column] = int(level)
    theirs._food_spawned = float(state.spawned[copy])
    theirs._gen_valid_moves()


def eager(view, task: Foraging, generator: torch.Generator) -> torch.Tensor:
    """Random choices, loads wherever there is something to load mostly: else food is seldom loaded."""
    action = torch.randint(6, (*view.alive.shape, 1), generator=generator)
    loads = view.action_mask[..., LOAD:] & (torch.rand(action.shape, generator=generator) < 0.8)
    return torch.where(loads, LOAD, action)


@pytest.mark.parametrize("arguments", SETTINGS.values(), ids=SETTINGS.keys())
def test_equals_lbforaging(arguments):
    task = Foraging(**arguments, action_mask=True)
    theirs, generator = source(task), torch.Generator().manual_seed(1)
    theirs.reset(seed=0)
    ours = NativeEnv(task, COPIES)
    view, like = ours.reset(seed=2), task.initial(generator, COPIES)
    compared = paid = ended = 0
    while compared < TRANSITIONS:
        before = tree.unpack(like, ours.state_dict()["state"])
        clock, action = ours.state_dict()["clock"].tolist(), eager(view, task, generator)
        masks, step = view.action_mask, ours.step(action)
        for b in range(COPIES):
            place(theirs, before, b)
            theirs.current_step = clock[b]
            possible = [[a.value for a in theirs._valid_actions[p]] for p in theirs.players]
            assert [mask.nonzero().squeeze(-1).tolist() for mask in masks[b]] == possible
            obs, reward, over, _, _ = theirs.step(action[b].squeeze(-1).tolist())
            assert torch.equal(torch.tensor([o.tolist() for o in obs]), step.next_view.obs[b])
            assert_close(torch.tensor(reward, dtype=torch.float32), step.reward[b])
            assert over == bool(step.over[b])
            assert step.terminated[b].tolist() == [float(theirs.field.sum()) == 0] * task.num_agents
            assert bool(step.info["success"][b]) == bool(step.terminated[b].all())
            paid, ended = paid + any(r > 0 for r in reward), ended + over
        view, compared = step.view, compared + COPIES
    assert min(paid, ended) > 5


def test_spawns_as_lbforaging_does():
    """A crowded field: how often food stands in each cell, how much there is, and of which levels."""
    task = Foraging(setting="6x6-3p-4f", player_levels=(1, 3))
    theirs, state = source(task), task.initial(torch.Generator().manual_seed(0), 4_000)
    field = torch.zeros(4_000, 6, 6).index_put(
        (torch.arange(4_000).unsqueeze(1), *state.food.clamp(max=5).long().unbind(-1)), state.food_level
    )
    fields, levels = [], []
    for seed in range(400):
        theirs.reset(seed=seed)
        fields.append(torch.from_numpy(theirs.field.copy()))
        levels += [player.level for player in theirs.players]
    other = torch.stack(fields)
    places = torch.stack([(x > 0).sum(0)[1:-1, 1:-1].flatten() for x in (field, other)])
    amounts = torch.stack([(x > 0).sum((1, 2)).bincount(minlength=5) for x in (field, other)])
    strengths = torch.stack([x[x > 0].long().bincount(minlength=10)[1:] for x in (field, other)])
    players = torch.stack([x.flatten().long().bincount(minlength=4)[1:] for x in (state.level, torch.tensor(levels))])
    assert int((field > 0).sum()) == int(places[0].sum())  # none at the border
    for table in (places, amounts[:, amounts.sum(0) > 0], strengths[:, strengths.sum(0) > 0], players):
        assert chi2_contingency(table.numpy()).pvalue > 1e-4


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), n=st.integers(1, 9), food=st.integers(1, 9), rows=st.integers(3, 9))
def test_laws_of_spawning(seed, n, food, rows):
    """Players stand apart, off food; no cell touches two foods; the three weakest can load any, or must."""
    for coop in ("", "-coop"):
        task = Foraging(setting=f"{rows}x7-{n}p-{food}f{coop}")
        state = task.initial(torch.Generator().manual_seed(seed), 20)
        level, there = state.food_level, state.food_level > 0
        apart = (state.food.unsqueeze(1) - state.food.unsqueeze(2)).abs().sum(-1)
        both = there.unsqueeze(1) & there.unsqueeze(2) & ~torch.eye(food, dtype=torch.bool)
        assert (apart[both] >= 3).all()
        assert ((state.food[there] >= 1) & (state.food[there] <= torch.tensor([rows - 2, 5]))).all()
        everyone = torch.cat([state.position, state.food], 1)
        same = (everyone.unsqueeze(1) == everyone.unsqueeze(2)).all(-1)[:, :n].sum(-1)
        assert (same == 1).all()
        weakest = state.level.sort(1).values[:, :3].sum(1, keepdim=True).expand_as(level)
        assert (level[there] <= weakest[there]).all()
        assert not coop or torch.equal(level[there], weakest[there])
        assert torch.equal(state.spawned, level.sum(1))


@pytest.mark.parametrize(
    ("setting", "published"),
    [("8x8-2p-2f-coop", 0.005), ("8x8-2p-3f", 0.177), ("10x10-3p-3f", 0.071), ("15x15-4p-3f", 0.074)],
)
def test_random_return(setting, published):
    """What random players of lbforaging 2.0.0 earned together in an episode, without masks."""
    env, generator = NativeEnv(Foraging(setting=setting), 1_000), torch.Generator().manual_seed(1)
    view, total, running = env.reset(seed=0), torch.zeros(1_000), torch.ones(1_000, dtype=torch.bool)
    for _ in range(50):
        step = env.step(random_action(view, env.agents, generator))
        total += torch.where(running, step.reward.sum(-1), 0.0)
        view, running = step.view, running & ~step.over
    assert not running.any()
    assert total.mean() == pytest.approx(published, abs=4 * float(total.std()) / 1_000**0.5 + 0.004)


def stand(players: list, levels: list, food: list, food_levels: list) -> ForagingState:
    position, level, place, strength = (torch.tensor([x]).float() for x in (players, levels, food, food_levels))
    return ForagingState(position, level, place, strength, strength.sum(1))


def test_loading_by_hand():
    """Levels 1 and 2 load food of level 3 out of 4: 3 (1, 2) / (3 * 4); one more tries alone and pays."""
    task = Foraging(setting="8x8-3p-2f", penalty=0.1)
    state = stand([[1, 2], [2, 1], [5, 4]], [1, 2, 2], [[2, 2], [5, 5]], [3, 1])
    after, reward, terminated = task.advance(state, torch.tensor([[[LOAD], [LOAD], [NORTH]]]), torch.Generator())
    assert_close(reward, torch.tensor([[0.25, 0.5, 0.0]]))
    assert after.food_level.tolist() == [[0.0, 1.0]]
    assert not terminated.any()
    _, reward, _ = task.advance(state, torch.tensor([[[LOAD], [SOUTH], [LOAD]]]), torch.Generator())
    assert_close(reward, torch.tensor([[-0.1, 0.0, 1 / 4]]))
    last = stand([[1, 2], [2, 1], [5, 4]], [1, 2, 2], [[2, 2], [5, 5]], [0, 2])
    _, reward, terminated = task.advance(last, torch.tensor([[[0], [0], [LOAD]]]), torch.Generator())
    assert_close(reward, torch.tensor([[0.0, 0.0, 1.0]]))
    assert terminated.all()


def test_moving_by_hand():
    """Two who want one cell stay, whoever walks into one of them meets it there; two may change places."""
    task = Foraging(setting="8x8-3p-1f")
    state = stand([[3, 3], [3, 5], [4, 3]], [1, 1, 1], [[6, 6]], [1])
    after, _, _ = task.advance(state, torch.tensor([[[EAST], [WEST], [NORTH]]]), torch.Generator())
    assert after.position.tolist() == [[[3, 3], [3, 5], [3, 3]]]
    state = stand([[3, 3], [3, 4], [0, 0]], [1, 1, 1], [[6, 6]], [1])
    after, _, _ = task.advance(state, torch.tensor([[[EAST], [WEST], [NORTH]]]), torch.Generator())
    assert after.position.tolist() == [[[3, 4], [3, 3], [0, 0]]]


def test_settings_are_read():
    task = Foraging(setting="2s-8x9-2p-3f-coop", num_agents=4)
    assert (task.rows, task.columns, task.num_agents, task.num_food) == (8, 9, 4, 3)
    assert (task.sight, task.force_coop, Foraging().sight, Foraging().force_coop) == (2, True, 8, False)
    parts = task.agents.groups[0].observation.parts
    assert [(p.name, p.start, p.stop) for p in parts] == [("food", 0, 9), ("own", 9, 12), ("others", 12, 21)]


@pytest.mark.parametrize("arguments", [{}, {"action_mask": True}])
def test_keeps_the_rules_of_pettingzoo(arguments):
    report = check(NativeParallel(Foraging(**arguments)))
    report.raise_if_failed()
    assert report.replayable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"setting": "8x8"}, "setting: expected a form such as 8x8-2p-3f .* got '8x8'"),
        ({"setting": "2x8-2p-1f"}, "setting: expected at least 3 rows and columns .* got 2x8"),
        ({"setting": "3x3-10p-1f"}, "a cell for each of 10 players, got 3x3"),
        ({"num_agents": 0}, "num_agents: must be at least 1, got 0"),
        ({"setting": "0s-8x8-2p-1f"}, "sight: must be at least 1, got 0"),
        ({"setting": "8x8-2p-0f"}, "food: must be at least 1, got 0"),
        ({"penalty": -0.1}, "penalty: must not be negative, got -0.1"),
        ({"player_levels": (2, 1)}, r"player_levels: expected 1 <= least <= highest, got \(2, 1\)"),
        ({"food_levels": (3, None)}, "food_levels: expected 1 <= least <= highest, got 3 and 2"),
        ({"food_levels": (None, 2)}, r"food_levels: expected a least and a highest \(or None\)"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Foraging(**arguments)
