"""The lever game draws and pays as its paper says, and what can be reached without communication is exact."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.checks import check
from envs.matrix.lever import Lever, best_without_communication
from envs.matrix.scripted import lever_by_rank
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel


def test_pays_the_share_of_levers_pulled_and_ends():
    env = NativeEnv(Lever(), 4)
    env.reset(seed=0)
    pulled = torch.tensor([[0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [1, 1, 1, 1, 1], [0, 0, 3, 3, 4]])
    step = env.step(pulled.unsqueeze(-1))
    torch.testing.assert_close(step.reward, torch.tensor([1, 1, 0.2, 0.6]).unsqueeze(-1).expand(4, 5))
    assert step.info["optimal"].tolist() == [1, 1, 0, 0]
    assert step.terminated.all()
    assert step.over.all()
    assert not step.truncated.any()


@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 1_000))
@settings(max_examples=20, deadline=None)
def test_agents_see_identities_that_are_all_different(num_agents, others, seed):
    pool = num_agents + others
    view = NativeEnv(Lever(num_agents=num_agents, pool=pool), 7).reset(seed=seed)
    assert view.obs.shape == (7, num_agents, pool)
    assert view.obs.sum(-1).eq(1).all()
    assert view.obs.sum(1).max() == 1
    assert view.obs.sum((1, 2)).eq(num_agents).all()


def test_identities_are_drawn_evenly_to_every_place():
    """Each of 6 identities stands on each of 3 places in 1/6 of 20,000 draws, standard error 0.0026."""
    share = NativeEnv(Lever(num_agents=3, pool=6), 20_000).reset(seed=1).obs.mean(0)
    torch.testing.assert_close(share, torch.full((3, 6), 1 / 6), atol=0.012, rtol=0)


def test_every_round_calls_others():
    env = NativeEnv(Lever(), 3)
    first = env.reset(seed=0)
    second = env.step(torch.zeros(3, 5, 1, dtype=torch.int64))
    assert not torch.equal(first.obs, second.view.obs)
    assert torch.equal(first.obs, second.next_view.obs)


@pytest.mark.parametrize(("num_agents", "pool"), [(2, 5), (3, 6), (3, 7)])
def test_best_without_communication_is_the_best_of_all_maps_from_identities_to_levers(num_agents, pool):
    calls = list(combinations(range(pool), num_agents))

    def value(levers: tuple[int, ...]) -> Fraction:
        return Fraction(sum(len({levers[i] for i in called}) for called in calls), len(calls) * num_agents)

    best = max(map(value, product(range(num_agents), repeat=pool)))
    assert best_without_communication(num_agents, pool) == pytest.approx(float(best), abs=1e-12)


def test_known_values_of_the_paper_size():
    """5 of 500: 1 - C(400, 5) / C(500, 5); a pool without end leaves what random agents get, 1 - 0.8^5."""
    assert best_without_communication(5, 500) == pytest.approx(307_189_442 / 455_794_085, abs=1e-12)
    assert best_without_communication(5, 10**7) == pytest.approx(0.67232, abs=1e-6)
    assert best_without_communication(5, 5) == 1


def test_returns_with_and_without_communication():
    """3 of 6, 10,000 rounds, standard errors below 0.002: by rank, by a fixed even share of identities, at random.

    By hand: a lever of two identities is missed by C(4, 3) of C(6, 3) calls, a random one by 2/3 to the third.
    """
    env = NativeEnv(Lever(num_agents=3, pool=6), 10_000)
    view = env.reset(seed=0)
    assert env.step(lever_by_rank(view, env.agents)).reward.eq(1).all()
    view = env.reset(seed=0)
    assert env.step(view.obs.argmax(-1, keepdim=True) % 3).reward.mean() == pytest.approx(1 - 4 / 20, abs=0.008)
    env.reset(seed=0)
    random = torch.randint(3, (10_000, 3, 1), generator=torch.Generator().manual_seed(0))
    assert env.step(random).reward.mean() == pytest.approx(1 - 8 / 27, abs=0.008)


def test_by_rank_needs_the_links():
    env = NativeEnv(Lever(num_agents=12, pool=30), 50)
    view = env.reset(seed=0)
    chosen = lever_by_rank(view, env.agents)
    assert torch.equal(chosen[..., 0].sort(-1).values, torch.arange(12).expand(50, -1))
    assert not lever_by_rank(replace(view, graph=view.graph.without_links()), env.agents).any()


def test_keeps_the_rules():
    report = check(NativeParallel(Lever(pool=20)))
    report.raise_if_failed()
    assert report.replayable
    assert report.episode_length == 1


def test_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="num_agents: must be at least 1, got 0"):
        Lever(num_agents=0)
    with pytest.raises(ValueError, match="pool: must hold at least the num_agents = 5 that are called, got 4"):
        Lever(pool=4)
    with pytest.raises(ValueError, match="pool: must hold at least"):
        best_without_communication(5, 4)
