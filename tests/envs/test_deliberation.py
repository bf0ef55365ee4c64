"""Deliberation: evidence is what it is said to be, pooling attains the Bayes score, and alone is only alone."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test
from scipy.integrate import quad
from scipy.stats import norm
from torch.testing import assert_close

import envs
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.population.base import PopulationState
from envs.population.deliberation import Beliefs, Deliberation, expected_score
from envs.population.scripted import pool_evidence

EPISODES = 20_000
POOLED, ALONE = -0.356316, -0.662836  # log scores at D = 2 (16 modules of .5) and .5, by scipy.integrate.quad
POOLED_BRIER, ALONE_BRIER = -0.112400, -0.235264


def play(task: Deliberation, policy, copies: int = EPISODES) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """``[B]`` mean over modules of the returns of one episode, and its last info."""
    env = NativeEnv(task, copies)
    view, total, last = env.reset(seed=3), torch.zeros(copies, task.num_agents), {}
    for t in range(task.steps):
        step = env.step(policy(view))
        assert bool(step.over.all()) == (t == task.steps - 1)
        view, total, last = step.view, total + step.reward, step.info
    return total.mean(-1), last


def close_to(found: torch.Tensor, expected: float) -> bool:
    """Whether the mean is within four standard errors."""
    return abs(float(found.mean()) - expected) < 4 * float(found.std()) / sqrt(len(found))


def alone(view):
    return view.obs[..., :1]


# -- closed forms ---------------------------------------------------------------------------------


def test_expected_score_at_known_points():
    """No evidence is worth nothing; the binary-input Gaussian channel carries half a bit at noise .97869.

    The latter is the Shannon limit of codes of rate 1/2 (Richardson and Urbanke 2001, IEEE IT 47, table I).
    """
    assert expected_score(0.0) == pytest.approx(-log(2))
    assert expected_score(0.0, "brier") == pytest.approx(-0.25)
    assert expected_score(2 / 0.97869) == pytest.approx(-log(2) / 2, abs=1e-5)
    assert expected_score(100.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("distance", "score", "number"), [
    (2, "log", POOLED), (0.5, "log", ALONE), (2, "brier", POOLED_BRIER), (0.5, "brier", ALONE_BRIER)
])  # fmt: skip
def test_expected_score_equals_quadrature(distance, score, number):
    def integrand(x):
        wrong = 1 / (1 + np.exp(x))
        return norm.pdf(x, distance**2 / 2, distance) * (np.log1p(-wrong) if score == "log" else -(wrong**2))

    integral = quad(integrand, -20, 25, epsabs=1e-12)[0]
    assert integral == pytest.approx(number, abs=1e-6)
    assert expected_score(distance, score) == pytest.approx(integral, abs=1e-9)


def test_bayes_score_counts_evidence_within_reach():
    """On a ring of six, 2 k + 1 modules stand within k links; kinds count by their squares."""
    ring = Deliberation(num_agents=6, evidence=1.0, topology="ring")
    for reach, modules in ((0, 1), (1, 3), (2, 5), (3, 6), (None, 6)):
        assert ring.bayes_score(reach) == pytest.approx(float(expected_score(sqrt(modules))))
    mixed = Deliberation(modules={"good": 2, "bad": 2}, evidence={"bad": 0.5, "good": 1.0}, topology="empty")
    assert mixed.bayes_score() == pytest.approx(float(expected_score(sqrt(2.5))))
    assert mixed.bayes_score(0) == pytest.approx(float(expected_score(1.0) + expected_score(0.5)) / 2)


def test_evidence_is_a_log_likelihood_ratio():
    """Given the truth, normal of mean +-d^2 / 2 and variance d^2, by kind."""
    task = Deliberation(modules={"good": 1, "bad": 1}, evidence={"good": 2.0, "bad": 0.5})
    state = task.initial(torch.Generator().manual_seed(0), 100_000).modules
    assert float(state.truth.mean()) == pytest.approx(0.5, abs=0.01)
    towards = state.evidence * (2 * state.truth.unsqueeze(-1) - 1)
    assert_close(towards.mean(0), torch.tensor([2.0, 0.125]), atol=0.03, rtol=0)
    assert_close(towards.var(0), torch.tensor([4.0, 0.25]), atol=0.03, rtol=0.01)


# -- policies that attain them --------------------------------------------------------------------


@pytest.mark.parametrize("setting", [
    {"topology": "complete", "horizon": 2},
    {"horizon": 20},
    {"topology": {"name": "random_regular", "degree": 4}, "horizon": 40},
])  # fmt: skip
@pytest.mark.parametrize(("score", "number"), [("log", POOLED), ("brier", POOLED_BRIER)])
def test_consensus_attains_the_bayes_score(setting, score, number):
    """One exchange is enough where all hear all; elsewhere Metropolis averaging settles in time."""
    task = Deliberation(score=score, **setting)
    assert task.bayes_score() == pytest.approx(number, abs=1e-6)
    found, info = play(task, lambda view: pool_evidence(view, task.agents))
    assert close_to(found, number)
    assert close_to(info["accuracy"], float(norm.cdf(1.0)))  # at D = 2
    assert close_to(info["calibration"], -POOLED_BRIER)
    assert info["agreement"].mean() > 0.999


@pytest.mark.parametrize(("score", "number"), [("log", ALONE), ("brier", ALONE_BRIER)])
def test_alone_attains_the_score_of_one(score, number):
    task = Deliberation(score=score, agreement=0)
    assert task.bayes_score(0) == pytest.approx(number, abs=1e-6)
    found, info = play(task, alone)
    assert close_to(found, number)
    assert close_to(info["accuracy"], float(norm.cdf(0.25)))
    charged, _ = play(Deliberation(score=score), alone)
    assert charged.mean() < found.mean() - 0.002  # the spread of the stated probabilities is no longer free


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("score", ["log", "brier"])
def test_too_little_and_too_much_confidence_cost(score, factor):
    """The score is proper: the pooled log-odds times anything but one scores less."""
    task = Deliberation(score=score, topology="complete", horizon=2)

    def policy(view):
        said = pool_evidence(view, task.agents)
        return torch.where(view.obs[..., 5:] == 1, factor * said, said)

    assert play(task, policy)[0].mean() < task.bayes_score() - 0.005


def test_bad_modules_are_pooled_by_their_worth():
    kinds = {"modules": {"good": 3, "bad": 13}, "evidence": {"good": 1.2, "bad": 0.1}}
    task = Deliberation(**kinds, topology="complete", horizon=2)
    assert [group.name for group in task.agents.groups] == ["good", "bad"]
    found, _ = play(task, lambda view: pool_evidence(view, task.agents))
    assert close_to(found, float(expected_score(sqrt(3 * 1.44 + 13 * 0.01))))


# -- rules ----------------------------------------------------------------------------------------


def state_of(task: Deliberation, truth: float, evidence: list[float], left: int = 1) -> PopulationState[Beliefs]:
    fresh = task.initial(torch.Generator(), 1)
    own = torch.tensor([evidence])
    modules = Beliefs(torch.tensor([truth]), own, torch.zeros_like(own), torch.tensor([left]))
    return PopulationState(modules, fresh.conditions, fresh.graph, fresh.reward)


def test_one_step_by_hand():
    """Odds of 3 : 1, 1 : 1 and 1 : 3 give 3/4, 1/2 and 1/4 to the hypothesis, which holds."""
    task = Deliberation(num_agents=3, topology="path", agreement=1.0, horizon=1)
    action = torch.tensor([[[log(3)], [0.0], [-log(3)]]])
    after, reward, _ = task.advance(state_of(task, 1.0, [0.1, 0.2, 0.3]), action, torch.Generator())
    assert_close(reward, torch.tensor([[log(3 / 4) - 1 / 16, log(1 / 2), log(1 / 4) - 1 / 16]]))
    info = {name: float(value) for name, value in task.info(after).items()}
    assert info == pytest.approx({"accuracy": 0.5, "calibration": (1 + 4 + 9) / 48, "agreement": 0.5})
    brier = Deliberation(num_agents=3, topology="path", agreement=0, horizon=1, score="brier")
    _, reward, _ = brier.advance(state_of(brier, 0.0, [0.1, 0.2, 0.3]), action, torch.Generator())
    assert_close(reward, torch.tensor([[-9 / 16, -1 / 4, -1 / 16]]))


def test_what_is_seen():
    """Own evidence, quality, report; mean report of the neighbours and their number; one over the reports left."""
    task = Deliberation(num_agents=3, topology="path", evidence=0.7, horizon=4)
    action = torch.tensor([[[2.0], [1.0], [-3.0]]])
    after, reward, _ = task.advance(state_of(task, 1.0, [0.1, 0.2, 0.3], left=4), action, torch.Generator())
    assert not reward.any()  # paid at the end alone
    expected = [[0.1, 0.7, 2, 1, 1, 1 / 3], [0.2, 0.7, 1, -0.5, 2, 1 / 3], [0.3, 0.7, -3, 1, 1, 1 / 3]]
    assert_close(task.view(after).obs, torch.tensor([expected]))


def test_every_step_can_be_paid():
    task = Deliberation(every_step=True, agreement=0, horizon=3)
    found, _ = play(task, alone)
    assert close_to(found, 3 * ALONE)


def test_levels_are_evenly_spaced_and_reports_limited():
    task = Deliberation(num_agents=2, continuous_actions=False, levels=5, limit=4.0)
    after, _, _ = task.advance(task.initial(torch.Generator(), 1), torch.tensor([[[0], [3]]]), torch.Generator())
    assert after.modules.report.tolist() == [[-4, 2]]
    env = NativeEnv(task, 1)
    env.reset()
    with pytest.raises(IndexError):
        env.step(torch.full((1, 2, 1), 5))
    free = Deliberation(num_agents=2, limit=4.0)
    after, _, _ = free.advance(free.initial(torch.Generator(), 1), torch.tensor([[[9.0], [-5.0]]]), torch.Generator())
    assert after.modules.report.tolist() == [[4, -4]]


@given(seed=st.integers(0, 1000), n=st.integers(2, 6))
def test_renaming_modules_changes_nothing(seed, n):
    """Law: rewards and observations are equivariant where all hear all."""
    generator = torch.Generator().manual_seed(seed)
    task = Deliberation(num_agents=n, topology="complete", horizon=1)
    order = torch.randperm(n, generator=generator)
    evidence, action = torch.randn(n, generator=generator), torch.randn(1, n, 1, generator=generator)
    after, reward, _ = task.advance(state_of(task, 1.0, evidence.tolist()), action, generator)
    mixed, mixed_reward, _ = task.advance(state_of(task, 1.0, evidence[order].tolist()), action[:, order], generator)
    assert_close(reward[:, order], mixed_reward)
    assert_close(task.view(after).obs[:, order], task.view(mixed).obs, atol=1e-5, rtol=1e-5)


# -- things that happen ---------------------------------------------------------------------------


def test_a_failed_module_stands_by_its_report():
    task = Deliberation(num_agents=4, dynamics={"fail": 1.0}, topology="complete")
    env = NativeEnv(task, 1)
    env.reset(seed=0)
    first = env.step(torch.full((1, 4, 1), 3.0))
    assert first.view.acts is not None
    assert not first.view.acts.any()
    second = env.step(torch.full((1, 4, 1), -3.0))
    assert (second.view.obs[..., 2] == 3).all()
    assert not second.view.obs[..., 3:5].any()  # and hears nobody


def test_nobody_is_heard_over_dropped_links():
    env = NativeEnv(Deliberation(dynamics={"drop": 1.0}), 2)
    env.reset(seed=0)
    assert not env.step(torch.ones(2, 16, 1)).view.obs[..., 3:5].any()


def test_who_comes_has_the_evidence_of_the_slot():
    """Then the pooled evidence of all slots stays the most that anybody can know."""
    task = Deliberation(num_agents=6, dynamics={"leave": 0.5, "join": 0.5}, horizon=50)
    generator = torch.Generator().manual_seed(0)
    state = task.initial(generator, 8)
    evidence, came = state.modules.evidence, 0
    for _ in range(6):
        absent = state.conditions.absent
        state, reward, _ = task.advance(state, torch.ones(8, 6, 1), generator)
        assert torch.equal(state.modules.evidence, evidence)
        assert absent is not None
        assert state.alive is not None
        joined = absent & state.alive
        came += int(joined.sum())
        assert not state.modules.report[joined].any()
        assert not reward[absent].any()
    assert came > 10


def test_pooling_survives_members_that_leave_and_links_that_drop():
    """Better than alone, if not as good as everybody: those that stay have heard some of those that left."""
    task = Deliberation(dynamics={"drop": 0.1, "leave": 0.01, "join": 0.1}, horizon=20)
    env, total, living = NativeEnv(task, 4_000), 0.0, 0.0
    view = env.reset(seed=1)
    for _ in range(20):
        step = env.step(pool_evidence(view, task.agents))
        view, total = step.view, total + step.reward.sum()
        living = view.alive.sum() if not step.over.all() else living
    assert ALONE < float(total / living) < POOLED


# -- contracts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    {"num_agents": 4, "horizon": 5},
    {"num_agents": 3, "continuous_actions": False, "horizon": 5, "every_step": True},
    {"num_agents": 4, "horizon": 8, "dynamics": {"fail": 0.2, "leave": 0.2, "drop": 0.2, "rewire": 0.2}},
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*observation")
def test_keeps_the_rules(arguments):
    parallel_api_test(NativeParallel(Deliberation(**arguments)), num_cycles=20)
    report = envs.check(NativeParallel(Deliberation(**arguments)))
    assert report.passed, report
    assert report.replayable


def test_dead_slots_may_hold_anything():
    """NaN in empty slots reaches nobody, neither by what is heard and paid nor by the scripted policy."""
    task = Deliberation(num_agents=4, topology="complete", dynamics={"leave": 0.5}, horizon=2)
    generator = torch.Generator().manual_seed(1)
    state = task.initial(generator, 16)
    state, _, _ = task.advance(state, pool_evidence(task.view(state), task.agents), generator)
    assert state.alive is not None
    empty = ~state.alive
    assert empty.any()
    dirty = torch.where(empty, torch.nan, state.modules.report)
    beliefs = Beliefs(state.modules.truth, state.modules.evidence, dirty, state.modules.left)
    state = PopulationState(beliefs, state.conditions, state.graph, state.reward)
    view = task.view(state)
    action = pool_evidence(view, task.agents)
    after, reward, _ = task.advance(state, action, generator)
    assert view.obs[view.alive].isfinite().all()
    assert action[view.alive].isfinite().all()
    assert reward.isfinite().all()
    assert all(value.isfinite().all() for value in task.info(after).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_agents": 1}, "num_agents: must be at least 2, got 1"),
        ({"score": "spherical"}, "score: one of log, brier; got 'spherical'"),
        ({"agreement": -1}, "agreement: must be at least 0, got -1"),
        ({"limit": 0}, "limit: must be positive and finite, got 0"),
        ({"levels": 1}, "levels: must be at least 2, got 1"),
        ({"evidence": -0.5}, "evidence: must be at least 0, got -0.5 for module"),
        ({"evidence": {"good": 1.0}}, "evidence: expected one value for each of module; got good"),
        ({"horizon": 0}, "horizon: must be at least 1, got 0"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Deliberation(**arguments)


def test_pooling_needs_reals_and_the_right_observations():
    task = Deliberation(num_agents=4, continuous_actions=False)
    view = task.view(task.initial(torch.Generator(), 1))
    with pytest.raises(ValueError, match="set continuous_actions"):
        pool_evidence(view, task.agents)
    other = envs.make("lq_consensus", num_agents=4)
    with pytest.raises(ValueError, match="observations: expected a part 'evidence'"):
        pool_evidence(other.reset(0), other.agents)
