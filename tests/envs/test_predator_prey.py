"""Predator-prey: its two settings against a plain simulator that walks through everyone in turn, and by hand."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from envs.checks import check
from envs.grid.predator_prey import PredatorPrey, PredatorPreyState
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.scripted import random_action

CHOICES = {
    "dicg": {"down": 0, "left": 1, "up": 2, "right": 3, "stay": 4},
    "wqmix": {"right": 0, "down": 1, "left": 2, "up": 3, "stay": 4, "catch": 5},
}
WAYS = {"down": (1, 0), "left": (0, -1), "up": (-1, 0), "right": (0, 1), "stay": (0, 0), "catch": (0, 0)}
Place = tuple[int, int] | None


def make(setting: str, predators: list[Place], prey: list[Place], size: int = 6, copies: int = 1, **arguments):
    """A task and a state with everyone at (row, column), None for off the board."""
    task = PredatorPrey(setting=setting, num_agents=len(predators), num_prey=len(prey), size=size, **arguments)
    cells = [[0 if p is None else (p[0] + 2) * (size + 4) + p[1] + 2 for p in who] for who in (predators, prey)]
    where = (torch.tensor(c).repeat(copies, 1) for c in cells)
    nothing = torch.zeros(copies)
    return task, PredatorPreyState(*where, nothing.long(), nothing, nothing)


def places(cells: torch.Tensor, size: int) -> list[Place]:
    return [None if c == 0 else (c // (size + 4) - 2, c % (size + 4) - 2) for c in cells.tolist()]


def act(setting: str, *names: str) -> torch.Tensor:
    return torch.tensor([[[CHOICES[setting][name]] for name in names]])


def step(task: PredatorPrey, state: PredatorPreyState, *names: str, seed: int = 0):
    setting = "wqmix" if task.rules.catches else "dicg"
    action = act(setting, *names).expand(len(state.clock), -1, -1)
    return task.advance(state, action, torch.Generator().manual_seed(seed))


def beside(place: Place, others) -> list[int]:
    assert place is not None
    return [i for i, o in enumerate(others) if o is not None and abs(o[0] - place[0]) + abs(o[1] - place[1]) == 1]


def free(place, size: int, *who) -> bool:
    return 0 <= place[0] < size and 0 <= place[1] < size and all(place not in group for group in who)


def go(place, name: str):
    return place[0] + WAYS[name][0], place[1] + WAYS[name][1]


def successors(setting: str, size: int, predators, prey, names) -> dict:
    """Probability of every (predators, prey, captured, missed) after a step: walks through all that can happen."""
    found: Counter = Counter()
    orders = list(permutations(range(len(predators)))) if setting == "wqmix" else [range(len(predators))]
    for order in orders:
        moved = list(predators)
        for i in order:
            if moved[i] is not None and free(go(moved[i], names[i]), size, moved, prey):
                moved[i] = go(moved[i], names[i])
        if setting == "dicg":
            flee(found, size, moved, list(prey), 0, 1 / len(orders), 0, 0)
        else:
            turns = list(permutations(range(len(prey))))
            for turn in turns:
                scatter(found, size, moved, list(prey), names, turn, 1 / len(orders) / len(turns), 0, 0)
    return found


def flee(found, size, predators, prey, i, chance, captured, missed):
    if i == len(prey):
        found[tuple(predators), tuple(prey), captured, missed] += chance
        return
    after, hunters = list(prey), 0 if prey[i] is None else len(beside(prey[i], predators))
    if prey[i] is None or hunters >= 2:
        after[i] = None
        flee(found, size, predators, after, i + 1, chance, captured + (prey[i] is not None), missed)
        return
    odds, left = Counter(), 1.0
    for _ in range(5):
        safe = [w for w in ("down", "left", "up", "right", "stay") if not beside(go(prey[i], w), predators)]
        for way in safe:
            odds[way] += left * (0.3 if way == "stay" else 0.175)
        left *= 1 - sum(0.3 if way == "stay" else 0.175 for way in safe)
    odds["stay"] += left
    for way, odd in odds.items():
        goal = go(prey[i], way)
        after[i] = goal if free(goal, size, predators, prey) else prey[i]
        flee(found, size, predators, list(after), i + 1, chance * odd, captured, missed + (hunters == 1))


def scatter(found, size, predators, prey, names, turns, chance, captured, missed):
    if not turns:
        found[tuple(predators), tuple(prey), captured, missed] += chance
        return None
    i, rest = turns[0], turns[1:]
    if prey[i] is None:
        return scatter(found, size, predators, prey, names, rest, chance, captured, missed)
    hunters = [k for k in beside(prey[i], predators) if names[k] == "catch"]
    if len(hunters) >= 2:
        left = [None if k in hunters else p for k, p in enumerate(predators)]
        gone = [None if k == i else p for k, p in enumerate(prey)]
        return scatter(found, size, left, gone, names, rest, chance, captured + 1, missed)
    ways = [go(prey[i], w) for w in ("down", "left", "up", "right") if free(go(prey[i], w), size, predators, prey)]
    for goal in ways or [prey[i]]:
        after = [goal if k == i else p for k, p in enumerate(prey)]
        odd = chance / max(len(ways), 1)
        scatter(found, size, predators, after, names, rest, odd, captured, missed + len(hunters))
    return None


CROWDS = {  # predators, prey, what predators choose by setting; most get in each other's way
    "a queue and a gap": (
        [(0, 0), (0, 1), (0, 2)],
        [(2, 2), (4, 4)],
        {"dicg": ("right", "right", "right"), "wqmix": ("right", "right", "down")},
    ),
    "one cell for two": (
        [(1, 0), (1, 2), (4, 4)],
        [(3, 1), (5, 5)],
        {"dicg": ("right", "left", "stay"), "wqmix": ("right", "left", "catch")},
    ),
    "two prey between three": (
        [(1, 1), (1, 3), (1, 5)],
        [(1, 2), (1, 4)],
        {"dicg": ("stay", "stay", "up"), "wqmix": ("catch", "catch", "catch")},
    ),
    "prey in a row": (
        [(0, 0), (5, 5), (3, 0)],
        [(2, 2), (2, 3), (2, 4)],
        {"dicg": ("down", "up", "right"), "wqmix": ("down", "catch", "up")},
    ),
    "prey in the corner, one off the board": (
        [(0, 2), (2, 1), (3, 3)],
        [(0, 0), (0, 1), None],
        {"dicg": ("stay", "up", "left"), "wqmix": ("catch", "up", "left")},
    ),
}


@pytest.mark.parametrize("setting", ["dicg", "wqmix"])
@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS.keys())
def test_steps_are_those_of_the_plain_simulator(setting, crowd):
    """All that happens can happen, as often as it should."""
    predators, prey, names = crowd
    copies = 10_000
    task, state = make(setting, predators, prey, copies=copies)
    after, reward, _ = step(task, state, *names[setting])
    expected = successors(setting, 6, predators, prey, names[setting])
    assert sum(expected.values()) == pytest.approx(1)
    seen = Counter(
        (tuple(places(p, 6)), tuple(places(q, 6)), int(c), int(m))
        for p, q, c, m in zip(after.predator, after.prey, after.captured, after.missed, strict=True)
    )
    assert set(seen) <= set(expected)
    likely = [outcome for outcome, chance in expected.items() if chance * copies >= 5]
    counts, chances = ([x[outcome] for outcome in likely] for x in (seen, expected))
    counts.append(copies - sum(counts) + 5)  # all others together, and five so that they are never too few
    chances = [c * copies for c in chances]
    chances.append(copies - sum(chances) + 5)
    assert chisquare(counts, chances).pvalue > 1e-4
    paid = 10 * after.captured + task.rules.punishment * after.missed + task.rules.time_cost
    assert torch.equal(reward, paid.unsqueeze(1).expand(-1, 3))


def test_rewards_of_dicg_by_hand():
    """Two beside a prey catch it, one beside another is punished, and the step costs a tenth."""
    task, state = make("dicg", [(0, 1), (1, 0), (4, 4)], [(1, 1), (4, 5)], punishment=-1.25)
    after, reward, terminated = step(task, state, "stay", "stay", "stay")
    assert reward.tolist() == [[pytest.approx(10 - 1.25 - 0.1)] * 3]
    assert places(after.prey[0], 6)[0] is None
    assert not terminated.any()
    assert task.info(after)["captured"].tolist() == task.info(after)["missed"].tolist() == [1.0]
    last, state = make("dicg", [(0, 1), (3, 3)], [(1, 1)], size=6)
    _, reward, terminated = step(last, state, "stay", "stay")
    assert reward.tolist() == [[pytest.approx(-1.1)] * 2]
    assert not terminated.any()
    last, state = make("dicg", [(0, 1), (2, 1)], [(1, 1)], size=6)
    _, reward, terminated = step(last, state, "stay", "stay")
    assert reward.tolist() == [[pytest.approx(9.9)] * 2]
    assert terminated.all()


def test_catching_in_wqmix_by_hand():
    """Standing beside is not enough; who catches is gone, yet paid to the end; the hunt ends with nobody left."""
    predators: list[Place] = [(0, 1), (1, 0), (4, 4), (5, 3)]
    task, state = make("wqmix", predators, [(1, 1), (5, 4), (3, 0)])
    after, reward, _ = step(task, state, "stay", "stay", "stay", "stay")
    assert reward.eq(0).all()
    assert (after.prey > 0).all()
    after, reward, _ = step(task, state, "catch", "stay", "stay", "stay")
    assert reward.eq(-2).all()
    after, reward, terminated = step(task, state, "catch", "catch", "catch", "stay")
    assert reward.eq(10 - 2).all()
    assert not terminated.any()
    assert places(after.predator[0], 6) == [None, None, (4, 4), (5, 3)]
    view = task.view(after)
    assert view.alive.all()
    assert view.acting.tolist() == [[False, False, True, True]]
    assert view.obs[0, :2].eq(0).all()
    assert view.action_mask is not None
    assert view.action_mask[0, 0].tolist() == [False, False, False, False, True, False]
    task, state = make("wqmix", [None, None, (4, 4), (5, 3)], [None, (5, 4), (3, 0)])
    after, reward, terminated = step(task, state, "stay", "stay", "catch", "catch")
    assert reward.eq(10).all()
    assert terminated.all()
    assert places(after.prey[0], 6)[2] is not None


def test_observations_by_hand():
    task, state = make("dicg", [(0, 1), (2, 2), (5, 5)], [(1, 2), (4, 4), None], max_steps=50)
    later, _, _ = step(task, state, "stay", "stay", "stay")
    view = task.view(state)
    assert view.obs.shape == (1, 3, 53)
    assert view.obs[0, :, :3].tolist() == [[0, pytest.approx(0.2), 0], [pytest.approx(0.4)] * 2 + [0], [1, 1, 0]]
    assert task.view(later).obs[0, :, 2].tolist() == [pytest.approx(1 / 50)] * 3
    prey, predators = view.obs[0, :, 3:28].view(3, 5, 5), view.obs[0, :, 28:].view(3, 5, 5)
    assert prey[0].nonzero().tolist() == [[3, 3]]  # one down and one right of the middle, which is [2, 2]
    assert prey[1].nonzero().tolist() == [[1, 2], [4, 4]]
    assert predators[0].nonzero().tolist() == [[2, 2], [4, 3]]
    assert predators[2].nonzero().tolist() == [[2, 2]]
    assert view.state is not None
    field = view.state.view(2, 6, 6)
    assert [field[0].nonzero().tolist(), field[1].nonzero().tolist()] == [[[1, 2], [4, 4]], [[0, 1], [2, 2], [5, 5]]]
    assert (view.action_mask, view.acts) == (None, None)


def test_masks_by_hand():
    """Right, down, left, up, stay, catch: walls bar moves, others do not; catch wants prey beside."""
    task, state = make("wqmix", [(0, 0), (0, 1), (5, 5)], [(1, 1), (3, 3)])
    assert task.view(state).action_mask.int().tolist() == [[[1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 0]]]


def test_links():
    places: list[Place] = [(0, 0), (2, 2), (2, 3), (5, 5), None]
    complete, state = make("wqmix", places, [(4, 0)])
    graph = complete.view(state).graph
    up = graph.topology.edges[:, graph.live[0]].T.tolist()
    assert len(up) == 4 * 3
    assert all(4 not in edge for edge in up)
    window, _ = make("wqmix", places, [(4, 0)], links="window")
    graph = window.view(state).graph
    up = graph.edges[0][:, graph.up()[0]].T.tolist()
    assert sorted(up) == [[0, 1], [1, 0], [1, 2], [2, 1]]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    setting=st.sampled_from(["dicg", "wqmix"]),
    n=st.integers(2, 9),
    prey=st.integers(1, 9),
    size=st.integers(8, 11),
)
def test_laws_of_play(seed, setting, n, prey, size):
    """Nobody shares a cell, goes far or comes back; the team is never paid more than the bound says."""
    task = PredatorPrey(setting=setting, num_agents=n, num_prey=prey, size=size)
    generator = torch.Generator().manual_seed(seed)
    state, caught = task.initial(generator, 12), torch.zeros(12)
    for _ in range(40):
        action = random_action(task.view(state), task.agents, generator)
        before, (state, reward, _) = state, task.advance(state, action, generator)
        everyone = torch.cat([state.predator, state.prey], 1)
        there = everyone > 0
        same = (everyone.unsqueeze(1) == everyone.unsqueeze(2)) & there.unsqueeze(1)
        assert torch.equal(same.sum(-1), there.long())
        was = torch.cat([before.predator, before.prey], 1)
        assert not (there & (was == 0)).any()
        moved = (everyone - was).abs()[there]
        assert torch.isin(moved, torch.tensor([0, 1, size + 4])).all()
        assert torch.isfinite(reward).all()
        caught += state.captured
        assert torch.equal(caught, (state.prey == 0).sum(1))
    assert (caught <= (min(prey, n // 2) if setting == "wqmix" else prey)).all()
    if setting == "dicg":
        assert (state.predator > 0).all()


@pytest.mark.parametrize("setting", ["dicg", "wqmix"])
def test_starts_everywhere(setting):
    """Every cell is as likely as any other for predators; in dicg no prey starts beside one."""
    task = PredatorPrey(setting=setting)
    state = task.initial(torch.Generator().manual_seed(0), 5_000)
    counts = torch.bincount(state.predator.flatten(), minlength=14 * 14)
    assert int((counts > 0).sum()) == 100
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-4
    prey, predator = state.prey.unsqueeze(2), state.predator.unsqueeze(1)
    close = torch.isin((prey - predator).abs(), torch.tensor([1, 14])).any()
    assert bool(close) == (setting == "wqmix")


def test_episodes_are_cut_at_the_limit():
    env = NativeEnv(PredatorPrey(max_steps=3), 16)
    env.reset(seed=0)
    stay = torch.full((16, 8, 1), 4)
    steps = [env.step(stay) for _ in range(3)]
    assert not (steps[0].over | steps[1].over).any()
    assert (steps[2].truncated.all(1) | steps[2].terminated.all(1)).all()
    assert steps[2].truncated.any()


@pytest.mark.parametrize("arguments", [{}, {"setting": "wqmix"}, {"setting": "wqmix", "links": "window"}])
def test_keeps_the_rules_of_pettingzoo(arguments):
    report = check(NativeParallel(PredatorPrey(**arguments, max_steps=60)))
    report.raise_if_failed()
    assert report.replayable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"setting": "wqmx"}, "unknown setting 'wqmx'; did you mean 'wqmix'"),
        ({"links": "all"}, "unknown links 'all'"),
        ({"num_agents": 1}, "num_agents: must be at least 2, got 1"),
        ({"num_prey": 0}, "num_prey: must be at least 1, got 0"),
        ({"size": 1}, "size: must be at least 2, got 1"),
        ({"size": 6}, "size: too small for 8 predators and 8 prey apart, got 6"),
        ({"punishment": 1.0}, "punishment: must not be positive, got 1.0"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PredatorPrey(**arguments)
