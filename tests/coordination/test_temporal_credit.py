from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.credit import potential_shaping, redistribute, return_differences

seeds = st.integers(0, 10_000)


def rollout(seed: int, shape: tuple[int, ...] = (12, 3)):
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(shape, generator=generator, dtype=torch.float64)
    score = torch.randn(shape, generator=generator, dtype=torch.float64)
    over = torch.rand(shape, generator=generator) < 0.3
    return reward, score, over


def episodes(over: torch.Tensor, b: int) -> list[slice]:
    ends = [t + 1 for t in range(len(over)) if over[t, b]]
    cuts = [0, *ends] if ends and ends[-1] == len(over) else [0, *ends, len(over)]
    return [slice(a, c) for a, c in pairwise(cuts)]


@given(seeds)
def test_every_episode_keeps_its_return(seed):
    reward, score, over = rollout(seed)
    spread = redistribute(reward, score, over)
    change = return_differences(reward, score, over)
    shared = torch.stack([score, score.flip(0), score.roll(1, 0)], -1)  # [T, B, N]
    among = redistribute(reward, shared, over)
    for b in range(3):
        for part in episodes(over, b):
            total = reward[part, b].sum()
            assert torch.allclose(spread[part, b].sum(), total)
            assert torch.allclose(spread[part, b], total * score[part, b].softmax(0))
            assert torch.allclose(change[part, b].sum(), total)
            assert torch.allclose(among[part, b], total * shared[part, b].flatten().softmax(0).reshape(-1, 3))


@given(seeds)
def test_changing_one_episode_changes_no_other(seed):
    reward, score, over = rollout(seed)
    part = episodes(over, 1)[0]
    other = reward.clone(), score.clone()
    for x in other:
        x[part, 1] += 5.0
    outside = torch.ones_like(over)
    outside[part, 1] = False
    for rule in (redistribute, return_differences):
        before, after = rule(reward, score, over), rule(*other, over)
        assert torch.equal(before[outside], after[outside])


def test_delayed_reward_goes_to_the_key_step():
    # the reward of 6 at the end was decided at step 2: a predictor that knows moves all of it there
    reward = torch.tensor([0.0, 0, 0, 0, 6, 1])
    prediction = torch.tensor([0.0, 0, 6, 6, 6, 0.5])
    over = torch.tensor([False, False, False, False, True, False])
    assert return_differences(reward, prediction, over).tolist() == [0, 0, 6, 0, 0, 1]


def test_what_a_prediction_misses_is_spread_evenly():
    over = torch.tensor([False, True])
    assert return_differences(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 2.0]), over).tolist() == [2.0, 2.0]


def test_steps_and_agents_can_be_left_out():
    reward, over = torch.tensor([1.0, 3.0]), torch.tensor([False, True])
    score = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]])
    assert redistribute(reward, score, over).tolist() == [[4.0, 0.0], [0.0, 0.0]]


def test_large_scores_do_not_overflow_and_gradients_flow():
    reward, over = torch.tensor([1.0, 1.0]), torch.tensor([False, True])
    assert redistribute(reward, torch.tensor([1e4, -1e4]), over).tolist() == [2.0, 0.0]
    reward, score, over = rollout(0, (6, 2))
    score.requires_grad_()
    reward.requires_grad_()
    assert torch.autograd.gradcheck(lambda r, s: redistribute(r, s, over), (reward, score))
    assert torch.autograd.gradcheck(lambda r, s: return_differences(r, s, over), (reward, score))
    shared = torch.randn(6, 2, 3, dtype=torch.float64)
    shared[2, 0], shared[3, 1, 0] = -torch.inf, -torch.inf
    redistribute(reward, shared.requires_grad_(), over).square().sum().backward()
    assert torch.isfinite(shared.grad).all()
    shared = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, s: redistribute(r, s, over), (reward, shared))


def optimal_q(reward: np.ndarray, chance: np.ndarray, over: np.ndarray, gamma: float) -> np.ndarray:
    """Q* [S, A] of an MDP with rewards [S, A, S], transitions [S, A, S] and terminal states [S], by iteration."""
    q = np.zeros(reward.shape[:2])
    for _ in range(3000):
        q = (chance * (reward + gamma * np.where(over, 0.0, q.max(1)))).sum(-1)
    return q


@given(seeds)
def test_shaped_optimal_values_are_the_old_ones_less_the_potential(seed):
    rng = np.random.default_rng(seed)
    gamma, states, actions = 0.9, 6, 3
    chance = rng.dirichlet(np.ones(states), (states, actions))
    reward, potential = rng.normal(size=(states, actions, states)), rng.normal(size=states)
    over = np.arange(states) == states - 1
    here, there, ends = (np.broadcast_to(x, (states, states)).copy() for x in (potential[:, None], potential, over))
    shaping = potential_shaping(*(torch.from_numpy(x) for x in (here, there, ends)), gamma).numpy()
    before = optimal_q(reward, chance, over, gamma)[:-1]
    after = optimal_q(reward + shaping[:, None], chance, over, gamma)[:-1]
    assert np.allclose(after, before - potential[:-1, None], atol=1e-9)
    assert (after.argmax(1) == before.argmax(1)).all()


def test_a_wrong_discount_in_the_potential_changes_optimal_actions():
    changed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        chance, reward = rng.dirichlet(np.ones(6), (6, 3)), 0.3 * rng.normal(size=(6, 3, 6))
        potential, over = 3 * rng.normal(size=6), np.zeros(6, dtype=bool)
        wrong = potential[None, None] - potential[:, None, None]
        before, after = optimal_q(reward, chance, over, 0.5), optimal_q(reward + wrong, chance, over, 0.5)
        changed += int((before.argmax(1) != after.argmax(1)).sum())
    assert changed > 0


def test_shaping_telescopes_over_an_episode():
    potential = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
    terminated = torch.tensor([False, False, True])
    shaped = potential_shaping(potential, torch.tensor([-1.0, 2.0, 99.0]).double(), terminated, 0.9)
    assert (shaped * 0.9 ** torch.arange(3)).sum().item() == pytest.approx(-3.0)


def test_numpy_arrays_are_taken():
    reward, score, over = rollout(3)
    arrays = reward.numpy(), score.numpy(), over.numpy()
    assert torch.equal(redistribute(*arrays), redistribute(reward, score, over))
    assert torch.equal(return_differences(*arrays), return_differences(reward, score, over))
    shaped = potential_shaping(reward.numpy(), score.numpy(), over.numpy(), 0.9)
    assert torch.equal(shaped, potential_shaping(reward, score, over, 0.9))


def test_bad_input_is_refused():
    zeros, over = torch.zeros(4, 2), torch.zeros(4, 2).bool()
    with pytest.raises(ValueError, match="expected reward and over"):
        redistribute(zeros, torch.zeros(4, 3), over)
    with pytest.raises(ValueError, match="expected reward and over"):
        redistribute(zeros, zeros, over[:3])
    with pytest.raises(ValueError, match="must not be NaN"):
        redistribute(zeros, torch.full((4, 2), torch.nan), over)
    with pytest.raises(ValueError, match="no step above -inf"):
        redistribute(zeros + 1, torch.full((4, 2), -torch.inf), over)
    assert redistribute(zeros, torch.full((4, 2), -torch.inf), over).tolist() == zeros.tolist()  # nothing to give
    with pytest.raises(ValueError, match="expected three tensors"):
        return_differences(zeros, zeros[:3], over)
