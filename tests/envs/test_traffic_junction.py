"""Traffic junction: roads and routes, crashes by hand and car by car, exact success rates, slots, curriculum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test, parallel_seed_test
from torch.testing import assert_close

from coordination import tree
from envs.checks import check
from envs.grid.traffic_junction import TrafficJunction, TrafficState
from envs.grid.traffic_junction.routes import junction
from envs.grid.traffic_junction.scripted import traffic_yield
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.scripted import random_action

LEVELS = ("easy", "medium", "hard")


def places(level: str, route: int) -> list[tuple[int, int]]:
    roads = junction(level)
    return [divmod(int(cell), roads.size) for cell in roads.cells[route, : roads.length[route]]]


def traffic(task: TrafficJunction, cars: dict[int, tuple[int, int]], copies: int = 1) -> TrafficState:
    """Cars by slot, each on a route at a place."""
    state, roads = task.initial(torch.Generator(), copies), task.roads
    present, route, place, cell = (x.clone() for x in (state.present, state.route, state.place, state.cell))
    for slot, (r, k) in cars.items():
        present[:, slot], route[:, slot], place[:, slot], cell[:, slot] = True, r, k, int(roads.cells[r, k])
    return replace(state, present=present, route=route, place=place, cell=cell)


def drive(task: TrafficJunction, state: TrafficState, *choices: int):
    action = torch.tensor(choices).view(1, -1, 1).expand(state.present.shape[0], -1, -1)
    return task.advance(state, action, torch.Generator().manual_seed(0))


# ---- roads -------------------------------------------------------------------------------------------------------


def test_entries_routes_and_their_lengths():
    """n (n - 1) routes for n arms of 4 and 8; lengths counted on paper for the first entry of each."""
    shapes = {level: (junction(level).size, junction(level).entries, junction(level).options) for level in LEVELS}
    assert shapes == {"easy": (7, 2, 1), "medium": (14, 4, 3), "hard": (18, 8, 7)}
    assert junction("easy").length.tolist() == [7, 7]
    assert junction("medium").length[:3].tolist() == [14, 13, 15]  # straight on, right, left
    # straight twice; straight and right; straight and left; right; left and straight; left and right; left twice
    assert junction("hard").length[:7].tolist() == [18, 17, 27, 9, 19, 26, 20]


def test_routes_by_hand():
    assert places("easy", 0) == [(y, 3) for y in range(7)]
    assert places("easy", 1) == [(3, x) for x in range(7)]
    from_top = [(y, 6) for y in range(7)]
    assert places("medium", 1) == [*from_top, *((6, x) for x in range(5, -1, -1))]
    assert places("medium", 2) == [*from_top, (7, 6), *((7, x) for x in range(7, 14))]
    left_twice = [*((y, 4) for y in range(6)), *((5, x) for x in range(5, 14)), *((y, 13) for y in range(4, -1, -1))]
    assert places("hard", 6) == left_twice


@pytest.mark.parametrize("level", LEVELS)
def test_routes_lead_from_border_to_border_and_nobody_drives_against_the_traffic(level):
    roads = junction(level)
    routes = [places(level, r) for r in range(roads.entries * roads.options)]
    assert len({tuple(route) for route in routes}) == len(routes)
    assert len({route[0] for route in routes}) == roads.entries
    assert not {route[0] for route in routes} & {route[-1] for route in routes}
    moves = set()
    for route in routes:
        assert all(min(cell) == 0 or max(cell) == roads.size - 1 for cell in (route[0], route[-1]))
        assert all(roads.classes[cell] != roads.outside or level == "easy" for cell in route)
        steps = list(pairwise(route))
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in steps)
        moves |= set(steps)
    assert not moves & {(b, a) for a, b in moves}


# ---- rules -------------------------------------------------------------------------------------------------------


def test_two_cars_crash_at_the_crossing_and_go_on():
    """Easy, no arrivals: both at the cell before (3, 3); third step since arrival, so -.01 t - 10, t = 1, 2."""
    task = TrafficJunction(num_agents=3, arrival=0.0)
    state = traffic(task, {0: (0, 2), 2: (1, 2)})
    after, reward, terminated = drive(task, state, 0, 0, 0)
    assert_close(reward, torch.tensor([[-10.01, 0.0, -10.01]]))
    assert after.crashed.tolist() == [[True, False, True]]
    info = task.info(after)
    assert (info["success"].item(), info["collisions"].item(), info["finished"].item()) == (0, 2, 0)
    later, reward, _ = drive(task, after, 0, 0, 0)
    assert_close(reward, torch.tensor([[-0.02, 0.0, -0.02]]))
    assert task.info(later)["success"].item() == 0  # of the episode, not of the step
    assert not terminated.any()


def test_one_brake_prevents_the_crash():
    task = TrafficJunction(num_agents=2, arrival=0.0)
    state = traffic(task, {0: (0, 2), 1: (1, 2)})
    one, reward, _ = drive(task, state, 1, 0)
    assert_close(reward, torch.full((1, 2), -0.01))
    assert one.braked.tolist() == [[1, 0]]
    two, reward, _ = drive(task, one, 0, 0)
    assert_close(reward, torch.full((1, 2), -0.02))
    assert two.place.tolist() == [[3, 4]]
    assert task.info(two)["success"].item() == 1


def test_a_car_leaves_after_its_last_cell():
    task = TrafficJunction(num_agents=2, arrival=0.0)
    after, reward, terminated = drive(task, traffic(task, {0: (0, 6), 1: (1, 6)}), 0, 1)
    assert terminated.tolist() == [[True, False]]
    assert after.present.tolist() == [[False, True]]
    assert_close(reward, torch.tensor([[0.0, -0.01]]))
    assert task.info(after)["finished"].item() == 1


def test_a_slot_stays_empty_for_one_view():
    """With certain arrivals and one slot: the car leaves in step 7, the next comes in step 8."""
    task = TrafficJunction(num_agents=1, arrival=1.0)
    env = NativeEnv(task, 1)
    view = env.reset(seed=0)
    gas, seen, ended = torch.zeros(1, 1, 1, dtype=torch.int64), [bool(view.alive)], []
    for _ in range(19):
        step = env.step(gas)
        seen.append(bool(step.view.alive))
        ended.append(bool(step.terminated))
    assert seen == [False, *[True] * 7, False, *[True] * 7, False, *[True] * 3]
    assert [t for t, over in enumerate(ended) if over] == [7, 15]


def test_a_car_that_arrives_on_another_is_not_to_blame():
    """Certain arrivals at both entries; slot 0 waits at the first, and is hit."""
    task = TrafficJunction(num_agents=3, arrival=1.0)
    after, reward, _ = drive(task, traffic(task, {0: (0, 0)}), 1, 0, 0)
    assert after.present.all()
    assert_close(reward, torch.tensor([[-10.01, 0.0, 0.0]]))
    assert task.info(after)["collisions"].item() == 2


def one_step_later(cars: dict, choices: list[int], level: str) -> tuple[dict, list[float], list[bool]]:
    """The rules for cars ``{slot: [route, place, waited]}`` one at a time, arrivals left out."""
    roads, after = junction(level), {}
    left = [False] * len(choices)
    for slot, (route, before, waited) in cars.items():
        place = before + (choices[slot] == 0)
        if place == roads.length[route]:
            left[slot] = True
        else:
            after[slot] = (route, place, waited + 1)
    return after, [-0.01 * after[s][2] if s in after else 0.0 for s in range(len(choices))], left


def read(state: TrafficState, b: int) -> dict:
    table = torch.stack([state.route, state.place, state.waited], -1)[b].tolist()
    return {slot: tuple(table[slot]) for slot in range(len(table)) if state.present[b, slot]}


@pytest.mark.parametrize("level", LEVELS)
def test_equals_cars_simulated_one_by_one(level):
    task = TrafficJunction(difficulty=level, arrival=0.4, num_agents=12)
    roads, generator = task.roads, torch.Generator().manual_seed(1)
    state = task.initial(generator, 4)
    for _ in range(60):
        action = (torch.rand(4, 12, 1, generator=generator) < 0.3).long()
        after, reward, terminated = task.advance(state, action, generator)
        for b in range(4):
            expected, paid, left = one_step_later(read(state, b), action[b, :, 0].tolist(), level)
            found = read(after, b)
            new = {slot: car for slot, car in found.items() if slot not in expected}
            assert found == expected | new
            assert all(place == waited == 0 and not state.present[b, slot] for slot, (_, place, waited) in new.items())
            entries = [car[0] // roads.options for car in new.values()]
            assert len(set(entries)) == len(entries)
            cells = {slot: places(level, car[0])[car[1]] for slot, car in found.items()}
            crashed = [s for s, cell in cells.items() if list(cells.values()).count(cell) > 1]
            paid = [p - 10 * (s in crashed and s in expected) for s, p in enumerate(paid)]
            assert_close(reward[b], torch.tensor(paid))
            assert terminated[b].tolist() == left
            assert after.crashed[b].nonzero().flatten().tolist() == crashed
            assert bool(after.safe[b]) == (bool(state.safe[b]) and not crashed)
        state = after


# ---- chances -----------------------------------------------------------------------------------------------------


def success(task: TrafficJunction, choice: int, copies: int) -> tuple[float, float]:
    """Share of successful episodes, and its standard error at the worst."""
    env, horizon = NativeEnv(task, copies), task.horizon
    env.reset(seed=3)
    action = torch.full((copies, task.num_agents, 1), choice)
    steps = [env.step(action) for _ in range(horizon or 0)]
    assert bool(steps[-1].over.all())
    return float(steps[-1].info["success"].mean()), 0.5 / copies**0.5


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_gas_alone_crashes_where_two_arrive_at_once(rate):
    """Cars that arrive together in one of the first 17 steps meet at the crossing; 16 slots turn nobody away."""
    share, error = success(TrafficJunction(arrival=rate, num_agents=16), 0, 4_000)
    assert abs(share - (1 - rate**2) ** 17) < 4 * error


def test_brakes_alone_crash_with_the_second_arrival():
    """Each entry may see at most one arrival in T steps: ((1-p)^T + T p (1-p)^(T-1))^2."""
    p, T = 0.1, 8
    share, error = success(TrafficJunction(arrival=p, max_steps=T), 1, 4_000)
    assert abs(share - ((1 - p) ** T + T * p * (1 - p) ** (T - 1)) ** 2) < 4 * error


def test_arrivals_are_fair():
    """One step of the hard junction from empty roads: binomial numbers, all routes and all slots alike."""
    task, copies = TrafficJunction(difficulty="hard", arrival=0.25), 4_000
    state, _, _ = drive(task, task.initial(torch.Generator(), copies), *[0] * 20)
    count = state.present.sum(-1).float()
    assert abs(float(count.mean()) - 8 * 0.25) < 4 * (8 * 0.25 * 0.75 / copies) ** 0.5
    assert abs(float(count.var()) - 8 * 0.25 * 0.75) < 0.15
    total = float(count.sum())
    for counts in (torch.bincount(state.route[state.present], minlength=56), state.present.sum(0)):
        share = 1 / len(counts)
        assert (counts - total * share).abs().max() < 4.5 * (total * share * (1 - share)) ** 0.5


def test_no_more_cars_than_slots_and_earlier_entries_first():
    task = TrafficJunction(difficulty="hard", arrival=1.0, num_agents=3)
    after, _, _ = drive(task, task.initial(torch.Generator(), 50), 0, 0, 0)
    assert after.present.all()
    assert torch.equal(after.route.div(7, rounding_mode="floor").sort(-1).values, torch.arange(3).expand(50, 3))


def test_the_arrival_rate_ramps_up_over_episodes_and_checkpoints():
    """Two copies and 3 steps an episode: 10 steps over all copies are half of the ramp from 0 to 20."""
    task = TrafficJunction(arrival=(0.1, 0.3), ramp=(0, 20), max_steps=3)
    env = NativeEnv(task, 2)
    view = env.reset(seed=0)
    rates = [env.step(random_action(view, env.agents, torch.Generator())).info["arrival"] for _ in range(12)]
    assert_close(torch.stack(rates)[:, 0], (0.1 + 0.02 * torch.arange(1, 13.0)).clamp(max=0.3))
    saved = {**env.state_dict(), "state": {**env.state_dict()["state"], "steps": torch.tensor([5, 5])}}
    other = NativeEnv(task, 2)
    other.load_state_dict(saved)
    assert_close(other.step(torch.zeros(2, 5, 1, dtype=torch.int64)).info["arrival"], torch.full((2,), 0.22))
    assert TrafficJunction(arrival=(0.1, 0.3)).info(traffic(task, {}))["arrival"].item() == pytest.approx(0.3)


# ---- what is seen ------------------------------------------------------------------------------------------------


def test_published_settings():
    widths = {
        (level, setting): TrafficJunction(difficulty=level, setting=setting).agents.obs_dim
        for level in LEVELS
        for setting in ("ic3net", "magic")
    }
    classes = {"easy": 15, "medium": 59, "hard": 147}
    assert widths == {(k, s): 2 + side * n for k, n in classes.items() for s, side in (("ic3net", 1), ("magic", 9))}
    tasks = [TrafficJunction(difficulty=level) for level in LEVELS]
    assert [(t.num_agents, t.horizon, t.arrival[1]) for t in tasks] == [(5, 20, 0.3), (10, 40, 0.2), (20, 80, 0.05)]


def test_a_car_sees_its_cell_and_the_cars_on_it():
    """Easy, vision 0: cell (3, 3) has class 10, its number on the second road; two cars there."""
    task = TrafficJunction(num_agents=3, arrival=0.0)
    after, _, _ = drive(task, traffic(task, {0: (0, 2), 1: (1, 2), 2: (1, 5)}), 0, 0, 1)
    obs = task.view(after).obs[0]
    crossing = [*np.eye(15)[10][:-1], 2.0]
    assert obs.tolist() == [[0, 0, *crossing], [0, 1, *crossing], [1, 1, *np.eye(15)[5][:-1], 1.0]]


def test_a_car_sees_the_cells_around_it():
    """Medium, vision 1, at (0, 6) with a car at (1, 7): columns 6 and 7 are numbered 28 + 2 row + lane."""
    task = TrafficJunction(difficulty="medium", setting="magic", num_agents=3, arrival=0.0)
    up = next(k for k, cell in enumerate(places("medium", 3)) if cell == (1, 7))
    state = traffic(task, {0: (1, 0), 2: (3, up)})
    view = task.view(state)
    window = view.obs[0, 0, 2:].view(3, 3, 59)
    assert view.obs[0, 0, :2].tolist() == pytest.approx([0, 1 / 11])
    assert window[..., :-1].argmax(-1).tolist() == [[56, 56, 56], [56, 28, 29], [56, 30, 31]]
    assert window[..., -1].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert (window[..., :-1].sum(-1) == 1).all()
    assert not view.obs[0, 1].any()
    assert view.alive.tolist() == [[True, False, True]]


@given(seed=st.integers(0, 1000))
def test_empty_slots_change_nothing(seed):
    """Law: whatever their action says, cars, rewards and views are the same."""
    task, generator = TrafficJunction(difficulty="medium", arrival=0.3), torch.Generator()
    state = traffic(task, {1: (0, 3), 4: (5, 6), 8: (9, 1)}, copies=2)
    action = torch.randint(2, (2, 10, 1), generator=generator.manual_seed(seed))
    other = torch.where(state.present.unsqueeze(-1), action, 1 - action)
    one = task.advance(state, action, generator.manual_seed(seed))
    two = task.advance(state, other, generator.manual_seed(seed))
    leaves = [[*tree.leaves(list(x)), task.view(x[0]).obs] for x in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*leaves, strict=True))
    assert not one[1][~state.present].any()


# ---- as an environment -------------------------------------------------------------------------------------------


def test_empty_roads_do_not_end_an_episode():
    env = NativeEnv(TrafficJunction(arrival=0.02), 64)
    view, gas = env.reset(seed=0), torch.zeros(64, 5, 1, dtype=torch.int64)
    assert not view.alive.any()
    steps = [env.step(gas) for _ in range(40)]
    assert [t for t, step in enumerate(steps) if step.over.any()] == [19, 39]
    assert any(step.terminated.any() for step in steps[:19])
    last = steps[19]
    assert torch.equal(last.truncated, last.next_view.alive & ~last.terminated)
    assert last.truncated.any()
    assert not last.view.alive.any()


@pytest.mark.parametrize("level", LEVELS)
def test_keeps_the_rules_of_pettingzoo(level):
    env = NativeParallel(TrafficJunction(difficulty=level))
    report = check(env)
    assert report.passed, report.problems
    assert report.replayable
    parallel_api_test(NativeParallel(TrafficJunction(difficulty=level)), num_cycles=100)
    parallel_seed_test(lambda: NativeParallel(TrafficJunction(difficulty=level)), num_cycles=30)


def test_the_pettingzoo_face_lists_every_slot_to_the_end():
    env = NativeParallel(TrafficJunction(arrival=0.5))
    obs, _ = env.reset(seed=0)
    assert env.agents == [f"car_{i}" for i in range(5)]
    assert not any(x.any() for x in obs.values())
    for t in range(20):
        obs, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 0))
        assert not any(terminated.values())
        assert set(truncated.values()) == {t == 19}
    assert any(x.any() for x in obs.values())
    assert env.agents == []


@pytest.mark.parametrize(("level", "least"), [("easy", 0.98), ("medium", 0.99), ("hard", 0.99)])
def test_cars_that_know_everything_need_not_crash(level, least):
    """Of 4,000 episodes 99.7%, 100% and 99.98% succeed; nearly as many cars get through as with gas alone."""
    task, copies = TrafficJunction(difficulty=level, setting="magic" if level == "medium" else "ic3net"), 200
    env = NativeEnv(task, copies)
    view, finished = env.reset(seed=0), 0.0
    for _ in range(task.horizon or 0):
        step = env.step(traffic_yield(view, env.agents))
        view, finished = step.view, finished + float(step.info["finished"].mean())
    assert float(step.info["success"].mean()) >= least
    assert finished > {"easy": 6, "medium": 13, "hard": 23}[level]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"difficulty": "hrad"}, "unknown difficulty 'hrad'; did you mean 'hard'"),
        ({"setting": "magik"}, "unknown setting 'magik'; did you mean 'magic'"),
        ({"num_agents": 0}, "num_agents: must be at least 1, got 0"),
        ({"vision": -1}, "vision: must be at least 0, got -1"),
        ({"max_steps": 0}, "max_steps: must be at least 1, got 0"),
        ({"arrival": 1.5}, r"arrival: expected a rate in \[0, 1\]"),
        ({"arrival": (0.1, 0.2, 0.3)}, "arrival: expected a rate"),
        ({"ramp": (5, 5)}, "ramp: expected two numbers of steps, the second one larger, got"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrafficJunction(**arguments)


def test_the_scripted_policy_refuses_other_observations():
    env = NativeEnv(TrafficJunction(), 1)
    view = env.reset()
    with pytest.raises(ValueError, match="expected observations of traffic junction, got 16 columns"):
        traffic_yield(replace(view, obs=view.obs[..., 1:]), env.agents)
