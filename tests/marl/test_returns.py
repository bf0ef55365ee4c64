from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marl.returns import gae, n_step, td_lambda, vtrace

GAMMA, LAM = 0.9, 0.8


@dataclass
class Rollout:
    """Random steps ``[T, N]`` with random ends; ``cut`` also where a copy restarts for no reason of the agent's own."""

    reward: Tensor
    value: Tensor
    next_value: Tensor
    terminated: Tensor
    cut: Tensor
    log_ratio: Tensor
    acts: Tensor

    @property
    def turns(self) -> tuple[Tensor, Tensor]:
        """Who acts, and who acts in the true successors: as in the next state inside an episode, anything after it."""
        after = torch.cat([self.acts[1:], ~self.acts[:1]])
        return self.acts, torch.where(self.cut, self.log_ratio > 0, after)

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self.terminated, self.cut


@st.composite
def rollouts(draw: st.DrawFn, agents: int = 3) -> Rollout:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 100_000)))
    steps, density = draw(st.integers(1, 12)), draw(st.sampled_from([0.0, 0.2, 0.6]))

    def normal() -> Tensor:
        return torch.randn(steps, agents, generator=generator, dtype=torch.float64)

    def often(p: float) -> Tensor:
        return torch.rand(steps, agents, generator=generator) < p

    terminated, truncated, restarted = often(density), often(density), often(density / 2)
    value, next_value = normal(), normal()
    cut = terminated | truncated | restarted
    going_on = ~cut[:-1]
    next_value[:-1] = torch.where(going_on, value[1:], next_value[:-1])  # the true successor is the next state
    return Rollout(normal(), value, next_value, terminated, cut, 0.5 * normal(), often(0.5))


def estimates(r: Rollout) -> dict[str, Tensor]:
    """Every estimator on one rollout."""
    target, advantage = vtrace(r.reward, r.value, r.next_value, *r.ends, r.log_ratio, GAMMA, LAM)
    return {
        "gae": gae(r.reward, r.value, r.next_value, *r.ends, GAMMA, LAM),
        "gae in turns": gae(r.reward, r.value, r.next_value, *r.ends, GAMMA, LAM, *r.turns),
        "td_lambda": td_lambda(r.reward, r.next_value, *r.ends, GAMMA, LAM),
        "n_step": n_step(r.reward, r.next_value, *r.ends, GAMMA, 3),
        "vtrace target": target,
        "vtrace advantage": advantage,
    }


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool).unsqueeze(-1)


# -- by hand -----------------------------------------------------------------------------------------------------------

THREE = {
    "reward": column(1, 2, 3),
    "value": column(0.5, 1, 1.5),
    "next_value": column(1, 1.5, 2),
}
NEVER = flags(0, 0, 0)


def test_gae_by_hand():
    # gamma = 1/2, lam = 1/2: deltas 1 + .5 - .5, 2 + .75 - 1, 3 + 1 - 1.5; each estimate adds 1/4 of the next
    advantage = gae(**THREE, terminated=NEVER, cut=NEVER, gamma=0.5, lam=0.5)
    assert advantage.flatten().tolist() == [1 + 0.25 * (1.75 + 0.25 * 2.5), 1.75 + 0.25 * 2.5, 2.5]


def test_a_termination_is_worth_nothing_and_a_truncation_its_successor():
    second = flags(0, 1, 0)
    over = gae(**THREE, terminated=second, cut=second, gamma=0.5, lam=0.5)
    assert over.flatten().tolist() == [1 + 0.25 * (2 - 1), 2 - 1, 2.5]
    cut_off = gae(**THREE, terminated=NEVER, cut=second, gamma=0.5, lam=0.5)
    assert cut_off.flatten().tolist() == [1 + 0.25 * 1.75, 2 + 0.5 * 1.5 - 1, 2.5]


def test_n_step_by_hand():
    ends = {"terminated": NEVER, "cut": NEVER}
    given_ = {"reward": THREE["reward"], "next_value": THREE["next_value"], "gamma": 0.5}
    assert n_step(**given_, **ends, n=1).flatten().tolist() == [1.5, 2.75, 4]
    assert n_step(**given_, **ends, n=2).flatten().tolist() == [1 + 1 + 0.25 * 1.5, 2 + 1.5 + 0.25 * 2, 4]
    assert n_step(**given_, **ends, n=9).flatten().tolist() == [1 + 1 + 0.75 + 0.125 * 2, 4, 4]
    second = flags(0, 1, 0)
    assert n_step(**given_, terminated=second, cut=second, n=3).flatten().tolist() == [2, 2, 4]
    assert n_step(**given_, terminated=NEVER, cut=second, n=3).flatten().tolist() == [1 + 0.5 * 2.75, 2.75, 4]
    with pytest.raises(ValueError, match="n: must be at least 1, got 0"):
        n_step(**given_, **ends, n=0)


def test_vtrace_by_hand():
    # gamma = 1, ratios 2 and 1/2: rho = (1, 1/2), c = (1, 1/2)
    log_ratio = column(2.0, 0.5).log()
    target, advantage = vtrace(column(1, 1), column(0, 2), column(2, 4), flags(0, 0), flags(0, 0), log_ratio, gamma=1.0)
    # deltas: 1 (1 + 2 - 0) = 3 and 1/2 (1 + 4 - 2) = 1.5; v_1 = 2 + 1.5, v_0 = 0 + 3 + 1 (3.5 - 2)
    torch.testing.assert_close(target, column(4.5, 3.5))
    torch.testing.assert_close(advantage, column(1 + 3.5 - 0, 0.5 * (1 + 4 - 2)))


# -- identities --------------------------------------------------------------------------------------------------------


@given(rollouts())
def test_gae_plus_value_is_the_lambda_return(r):
    advantage = gae(r.reward, r.value, r.next_value, *r.ends, GAMMA, LAM)
    torch.testing.assert_close(advantage + r.value, td_lambda(r.reward, r.next_value, *r.ends, GAMMA, LAM))


@given(rollouts())
def test_lambda_zero_is_one_step(r):
    one_step = r.reward + GAMMA * torch.where(r.terminated, 0.0, r.next_value)
    torch.testing.assert_close(td_lambda(r.reward, r.next_value, *r.ends, GAMMA, 0.0), one_step)
    torch.testing.assert_close(n_step(r.reward, r.next_value, *r.ends, GAMMA, 1), one_step)
    torch.testing.assert_close(gae(r.reward, r.value, r.next_value, *r.ends, GAMMA, 0.0), one_step - r.value)


@given(rollouts())
def test_lambda_one_is_monte_carlo(r):
    expected = monte_carlo(r)
    torch.testing.assert_close(td_lambda(r.reward, r.next_value, *r.ends, GAMMA, 1.0), expected)
    torch.testing.assert_close(n_step(r.reward, r.next_value, *r.ends, GAMMA, 100), expected)


def monte_carlo(r: Rollout) -> Tensor:
    """Discounted rewards to the end of the episode or the rollout, added forwards, then what the last step leads to."""
    target = torch.zeros_like(r.reward)
    steps, agents = r.reward.shape
    for i in range(agents):
        for t in range(steps):
            total, discount, u = 0.0, 1.0, t
            while True:
                total += discount * r.reward[u, i].item()
                discount *= GAMMA
                if r.cut[u, i] or u == steps - 1:
                    break
                u += 1
            target[t, i] = total + (0.0 if r.terminated[u, i] else discount * r.next_value[u, i].item())
    return target


@given(rollouts(), st.integers(1, 5))
def test_n_step_is_monte_carlo_of_pieces(r, n):
    """Cutting the rollout n steps after t (a truncation) leaves the target of step t as it is."""
    target = n_step(r.reward, r.next_value, *r.ends, GAMMA, n)
    for t in range(r.reward.shape[0]):
        piece = [x[t : t + n] for x in (r.reward, r.value, r.next_value, r.terminated, r.cut, r.log_ratio, r.acts)]
        torch.testing.assert_close(target[t], monte_carlo(Rollout(*piece))[0])


@given(rollouts())
def test_vtrace_on_policy_is_the_lambda_return(r):
    same = torch.zeros_like(r.reward)
    target, advantage = vtrace(r.reward, r.value, r.next_value, *r.ends, same, GAMMA, LAM)
    torch.testing.assert_close(target, td_lambda(r.reward, r.next_value, *r.ends, GAMMA, LAM))
    target, advantage = vtrace(r.reward, r.value, r.next_value, *r.ends, same, GAMMA)
    torch.testing.assert_close(target, monte_carlo(r))
    torch.testing.assert_close(advantage, target - r.value)


@given(rollouts())
def test_vtrace_of_a_policy_that_never_acts_so_is_the_value(r):
    target, advantage = vtrace(r.reward, r.value, r.next_value, *r.ends, r.log_ratio - 1000, GAMMA)
    torch.testing.assert_close(target, r.value)
    assert (advantage == 0).all()


@given(rollouts())
def test_everyone_acting_in_turns_is_plain_gae(r):
    everyone = torch.ones_like(r.acts)
    torch.testing.assert_close(
        gae(r.reward, r.value, r.next_value, *r.ends, GAMMA, LAM, everyone, everyone),
        gae(r.reward, r.value, r.next_value, *r.ends, GAMMA, LAM),
    )


@given(rollouts())
def test_turns_equal_explicit_transitions_between_own_turns(r):
    advantage = gae(r.reward, r.value, r.next_value, *r.ends, GAMMA, LAM, *r.turns)
    acts, next_acts = r.turns
    steps, agents = r.reward.shape
    for i in range(agents):
        turns = [t for t in range(steps) if acts[t, i]]
        own: dict[int, float] = {}  # advantage at each own turn
        for t in reversed(range(steps)):
            last = next(u for u in range(t, steps) if r.cut[u, i] or u + 1 in turns or u == steps - 1)
            reward = r.reward[t : last + 1, i].sum()
            if not r.cut[last, i] and last + 1 in turns:  # the step ends with the next own turn
                expected = reward + GAMMA * r.value[last + 1, i] + GAMMA * LAM * own[last + 1]
            else:
                discount = GAMMA if next_acts[last, i] else 1.0
                expected = reward + (0.0 if r.terminated[last, i] else discount * r.next_value[last, i])
            torch.testing.assert_close(advantage[t, i], expected - r.value[t, i])
            if t in turns:
                own[t] = advantage[t, i]


# -- laws of every estimator -------------------------------------------------------------------------------------------


@given(rollouts(), st.integers(0, 11), st.integers(0, 2))
def test_episodes_are_isolated(r, step, agent):
    """Whatever happens in one episode of one agent changes no estimate of any other episode or agent."""
    steps = r.reward.shape[0]
    step %= steps
    first = max((u + 1 for u in range(step) if r.cut[u, agent]), default=0)
    last = next((u for u in range(step, steps) if r.cut[u, agent]), steps - 1)
    before = estimates(r)
    for x in (r.reward, r.value, r.next_value, r.log_ratio):
        x[first : last + 1, agent] += 100
    inside = torch.zeros_like(r.cut)
    inside[first : last + 1, agent] = True
    for name, after in estimates(r).items():
        assert torch.equal(after[~inside], before[name][~inside]), name
        assert not torch.equal(after[inside], before[name][inside]) or "turns" in name or "vtrace" in name


@given(rollouts())
def test_what_stands_in_slots_of_the_dead_is_not_read(r):
    """Steps after an agent's end hold NaN until it comes back; the estimates before are as they were."""
    before = estimates(r)
    gone = torch.zeros_like(r.cut)
    for t in range(1, r.reward.shape[0]):  # dead from a cut up to and including the next one
        gone[t] = torch.where(gone[t - 1], ~r.cut[t - 1], r.cut[t - 1])
    for x in (r.reward, r.value, r.next_value, r.log_ratio):
        x[gone] = torch.nan
    r.acts = r.acts & ~gone
    for name, after in estimates(r).items():
        if name != "gae in turns":
            torch.testing.assert_close(after[~gone], before[name][~gone], msg=name)
        assert after[~gone].isfinite().all(), name


@given(rollouts())
def test_batched_equals_looped(r):
    whole = estimates(r)
    for i in range(r.reward.shape[1]):
        fields = (r.reward, r.value, r.next_value, r.terminated, r.cut, r.log_ratio, r.acts)
        for name, alone in estimates(Rollout(*(x[:, i : i + 1] for x in fields))).items():
            assert torch.equal(alone, whole[name][:, i : i + 1]), name


@pytest.mark.parametrize("name", ["reward", "next_value"])
def test_gradients_flow_into_what_should_be_learned(name):
    inputs = {k: v.clone() for k, v in THREE.items()}
    inputs[name].requires_grad_()
    estimate: Callable[..., Tensor] = td_lambda
    estimate(inputs["reward"], inputs["next_value"], NEVER, NEVER, 0.5, 0.5)[0].sum().backward()
    expected = {"reward": [1, 0.25, 0.0625], "next_value": [0.25, 0.0625, 0.03125]}[name]
    assert inputs[name].grad.flatten().tolist() == expected
