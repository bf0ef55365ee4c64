"""Replay: what is drawn is what happened, however episodes end and the ring wraps; priorities and the sum tree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import envs
from coordination import rng, tree
from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import Step, View
from envs.native import NativeEnv, Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.batch import Batch
from marl.collector import Collector
from marl.networks.build import build_policy
from marl.networks.config import CriticConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.replay.samplers import Prioritised, Uniform
from marl.replay.sumtree import SumTree

COPIES = 3


@tree.struct
class Counted:
    """A number that tells every state of every episode apart, and steps left."""

    number: torch.Tensor = tree.axes("")
    left: torch.Tensor = tree.axes("")


class Counting(Task[Counted]):
    """One agent sees a number that grows by 1; episodes of 1 to 4 steps terminate or, at the horizon, are truncated."""

    def __init__(self, horizon: int | None = 3) -> None:
        self.horizon = horizon
        self.agents = AgentSpec.single(2, ObservationSpec.flat(1), ActionSpec.discrete(3), info={"left": "last"})
        self._graph = Graph(topology=Topology([[0, 1], [1, 0]], 2))

    def initial(self, generator: torch.Generator, n: int) -> Counted:
        number = 1000.0 * torch.randint(1_000, (n,), generator=generator)
        return Counted(number, torch.randint(1, 5, (n,), generator=generator))

    def advance(self, state: Counted, action: torch.Tensor, generator: torch.Generator):
        after = Counted(state.number + 1, state.left - 1)
        over = (after.left == 0).unsqueeze(-1).expand(-1, 2)
        return after, after.number.unsqueeze(-1) + action.squeeze(-1), over

    def view(self, state: Counted) -> View:
        obs = state.number.reshape(-1, 1, 1).expand(-1, 2, 1)
        alive = (state.left > 0).unsqueeze(-1).expand(-1, 2)
        return View(obs, alive, self._graph)

    def info(self, state: Counted) -> dict[str, torch.Tensor]:
        return {"left": state.left}


class Recorder:
    """Passes steps on and keeps all that happened, in the plainest way."""

    def __init__(self, env: NativeEnv) -> None:
        self.env, self.agents, self.num_envs, self.device = env, env.agents, env.num_envs, env.device
        self.steps: list[dict[str, Any]] = []

    def reset(self, seed: int | None = None) -> View:
        self.view = self.env.reset(seed)
        return self.view

    def step(self, action: torch.Tensor) -> Step:
        step = self.env.step(action)
        kept = {name: getattr(step, name) for name in ("reward", "terminated", "truncated", "over")}
        self.steps.append({"obs": self.view.obs, "next_obs": step.next_view.obs, "action": action, **kept})
        self.view = step.view
        return step


def collector(memory: bool = False, horizon: int | None = 3) -> Collector:
    env = Recorder(NativeEnv(Counting(horizon), COPIES))
    network = NetworkConfig(
        policy=MLPConfig(hidden=(4,)),
        critic=CriticConfig(name="local"),
        memory=MemoryConfig(hidden=4) if memory else None,
    )
    made = Collector(env, build_policy(network, env.agents, rng.generator(0)), rng.generator(0, "act"))  # type: ignore[arg-type]
    made.reset(0)
    return made


def equals_record(batch: Batch, steps: list[dict[str, Any]], first: torch.Tensor, copy: torch.Tensor) -> None:
    """A drawn batch against the record: ``first [M]`` is the number of each sequence's first step."""
    following = batch.view.obs[1:]
    if batch.final is not None:
        following = batch.successor(batch.view.obs, batch.final.obs)
    for m, (f, c) in enumerate(zip(first.tolist(), copy.tolist(), strict=True)):
        for t in range(batch.steps):
            step = steps[f + t]
            assert torch.equal(batch.view.obs[t, m], step["obs"][c])
            for name in ("action", "reward", "terminated", "truncated"):
                assert torch.equal(getattr(batch, name)[t, m], step[name][c]), name
            assert bool(batch.start[t + 1, m]) == bool(step["over"][c])
            if not bool(step["terminated"][c].all()):
                assert torch.equal(following[t, m], step["next_obs"][c])


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("rollout", [1, 3, 5])
@pytest.mark.parametrize("horizon", [None, 1, 3])
def test_what_is_drawn_is_what_happened(length: int, rollout: int, horizon: int | None) -> None:
    source, replay = collector(horizon=horizon), Uniform(capacity=17 * COPIES, length=length)
    record = source.env.steps  # type: ignore[attr-defined]
    for _ in range(40 // rollout):
        replay.add(source.collect(rollout))
        ring = replay.ring
        assert ring.count == min(len(record), 17)
        if not replay.ready:
            continue
        starts = ring.count - length + 1
        row = (ring.oldest + torch.arange(starts).repeat_interleave(COPIES)) % (ring.rows + 1)
        copy = torch.arange(COPIES).repeat(starts)
        first = len(record) - ring.count + torch.arange(starts).repeat_interleave(COPIES)
        batch = ring.draw(row, copy, length)
        equals_record(batch, record, first, copy)
        if length == 1:
            assert batch.final is None


def test_uniform_draws_every_transition_alike() -> None:
    source, replay = collector(), Uniform(capacity=5 * COPIES)
    for _ in range(4):
        replay.add(source.collect(3))
    place = replay.sample(60_000, rng.generator(0)).place
    counts = torch.bincount(place, minlength=6 * COPIES)
    assert (counts[counts > 0] - 4_000).abs().max() < 5 * 4_000**0.5
    assert (counts > 0).sum() == 15


def test_memories_are_those_before_each_step() -> None:
    source, replay = collector(memory=True), Uniform(capacity=12 * COPIES, length=3)
    rollouts = []
    for _ in range(3):
        rollout = source.collect(4)
        rollouts.append(tree.map(torch.clone, rollout))
        replay.add(rollout)
    batch = replay.ring.draw(torch.tensor([2, 3]), torch.tensor([0, 1]), 3)
    assert batch.hidden is not None
    hidden = torch.cat([r.hidden[:4] for r in rollouts])
    assert torch.equal(batch.hidden[:, 0], hidden[2:5, 0])
    assert torch.equal(batch.hidden[:, 1], hidden[3:6, 1])


@pytest.mark.parametrize("kind", [Uniform, Prioritised])
def test_a_restored_replay_draws_the_same(kind: type[Uniform]) -> None:
    source, replay, other = collector(), kind(9 * COPIES, 2), kind(9 * COPIES, 2)
    for _ in range(4):
        replay.add(source.collect(3))
        sample = replay.sample(8, rng.generator(1))
        replay.update(sample.place, sample.batch.reward[0, :, 0])
    other.load_state_dict(replay.state_dict())
    assert tree.pack(other.state_dict()).keys() == replay.state_dict().keys()
    for _ in range(5):
        rollout = source.collect(3)
        for one in (replay, other):
            one.add(rollout)
        a, b = (one.sample(16, rng.generator(2)) for one in (replay, other))
        assert torch.equal(a.weight, b.weight)
        for x, y in zip(tree.leaves(a.batch), tree.leaves(b.batch), strict=True):
            assert torch.equal(x, y)


@given(st.lists(st.tuples(st.integers(0, 12), st.floats(0, 10)), min_size=1, max_size=40), st.integers(1, 13))
def test_the_sum_tree_holds_sums_and_draws_in_proportion(changes: list[tuple[int, float]], size: int) -> None:
    sums, weights = SumTree(size), torch.zeros(size, dtype=torch.float64)
    for place, weight in changes:
        sums.update(torch.tensor([place % size]), torch.tensor([weight], dtype=torch.float64))
        weights[place % size] = weight
    torch.testing.assert_close(sums.total, weights.sum())
    assert torch.equal(sums.value(torch.arange(size)), weights)
    if weights.sum() > 0.1:
        drawn = torch.bincount(sums.sample(4_000, rng.generator(0)), minlength=size)
        expected = 4_000 * weights / weights.sum()
        assert (drawn[:size] - expected).abs().max() <= 2 * (1 + sums.levels)  # stratified: shares, not chances
        assert (drawn[:size][weights == 0] == 0).all()


def test_priorities_decide_and_weights_make_up_for_them() -> None:
    source, replay = collector(), Prioritised(6 * COPIES, alpha=0.5, epsilon=0.0)
    replay.add(source.collect(6))
    places = torch.cat([replay.sample(64, rng.generator(i)).place for i in range(20)]).unique()
    assert len(places) == 6 * COPIES
    error = torch.zeros(len(places))
    error[0], error[1] = 4.0, 1.0
    replay.update(places, error)
    sample = replay.sample(3_000, rng.generator(0), beta=1.0)
    counts = torch.bincount(sample.place, minlength=22)[places]
    assert counts[:2].tolist() == [2_000, 1_000]  # 4^.5 against 1^.5, stratified
    assert counts[2:].sum() == 0
    assert sample.weight.unique().tolist() == [0.5, 1.0]  # 1 / P over the largest
    assert (sample.weight[sample.place == places[0]] == 0.5).all()


def test_sequences_that_would_leave_the_ring_are_never_drawn_by_priority() -> None:
    source, replay = collector(), Prioritised(7 * COPIES, length=3)
    record = source.env.steps  # type: ignore[attr-defined]
    for _ in range(9):
        replay.add(source.collect(2))
        if not replay.ready:
            continue
        ring = replay.ring
        sample = replay.sample(200, rng.generator(0))
        age = (sample.place // COPIES - ring.oldest) % (ring.rows + 1)
        assert set(age.tolist()) == set(range(ring.count - 2))
        equals_record(sample.batch, record, len(record) - ring.count + age, sample.place % COPIES)


def test_too_small_a_capacity_is_refused() -> None:
    source = collector()
    with pytest.raises(ValueError, match="capacity: must hold at least 2 steps of 3 copies, got 5"):
        Uniform(5).add(source.collect(1))
    with pytest.raises(ValueError, match="capacity: must hold a whole rollout of 4 steps, holds 3"):
        Uniform(9).add(source.collect(4))


def test_spread_through_the_ring_keeps_its_shared_links() -> None:
    env = envs.make("spread", 2)
    view = env.reset(0)
    network = NetworkConfig(policy=MLPConfig(hidden=(4,)), critic=CriticConfig(name="local"))
    source = Collector(env, build_policy(network, env.agents, rng.generator(0)), rng.generator(0))
    source.reset(0)
    replay = Uniform(60)
    replay.add(source.collect(30))
    sample = replay.sample(5, rng.generator(0))
    assert sample.batch.view.graph.topology is view.graph.topology
