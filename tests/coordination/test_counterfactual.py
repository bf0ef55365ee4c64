from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.credit import aristocrat, counterfactual, difference, unilateral_values
from coordination.games import CriticGame

seeds = st.integers(0, 10_000)
CLIMBING = torch.tensor([[11.0, -30, 0], [-30, 7, 6], [0, 0, 5]], dtype=torch.float64)


def climb(joint: torch.Tensor) -> torch.Tensor:
    return CLIMBING[joint[..., 0], joint[..., 1]]


def random_team(seed: int, n: int = 3, k: int = 4):
    payoff = torch.from_numpy(np.random.default_rng(seed).normal(size=(k,) * n))
    return lambda joint: payoff[tuple(joint.unbind(-1))]


def test_unilateral_values_by_hand_and_batched():
    action = torch.tensor([[0, 1], [2, 2]])
    values = unilateral_values(climb, action, 3)
    assert values[0].tolist() == [[-30.0, 7.0, 0.0], [11.0, -30.0, 0.0]]  # row 1 of others; column 0 of others
    assert values[1].tolist() == [[0.0, 6.0, 5.0], [0.0, 0.0, 5.0]]
    assert torch.equal(unilateral_values(climb, action[1], 3), values[1])


@given(seeds)
def test_advantages_have_mean_zero_under_the_policy(seed):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    policy = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64).softmax(-1)
    advantage = torch.stack([counterfactual(q, policy, torch.full((2, 5), a)) for a in range(4)], -1)
    assert (policy * advantage).sum(-1).abs().max() < 1e-14


@given(seeds)
def test_the_aristocrat_is_the_counterfactual_advantage_of_exact_values(seed):
    team = random_team(seed)
    generator = torch.Generator().manual_seed(seed)
    action = torch.randint(4, (6, 3), generator=generator)
    policy = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64).softmax(-1)
    result = aristocrat(team, action, policy)
    for b in range(6):
        for i in range(3):
            expected = 0.0
            for a in range(4):
                changed = action[b].clone()
                changed[i] = a
                expected += float(policy[b, i, a] * team(changed))
            assert result[b, i].item() == pytest.approx(float(team(action[b])) - expected)


def test_the_gradient_with_counterfactual_credit_is_the_gradient_of_the_expected_outcome():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    policy = logits.softmax(-1)
    joint = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    chance = policy[0, joint[:, 0]] * policy[1, joint[:, 1]]
    (exact,) = torch.autograd.grad((chance * climb(joint)).sum(), logits, retain_graph=True)
    q = unilateral_values(climb, joint, 3)
    advantage = counterfactual(q, policy.detach().expand(9, 2, 3), joint)
    log_prob = policy.log()[torch.arange(2), joint]  # [9, 2]
    (estimate,) = torch.autograd.grad((chance.detach().unsqueeze(1) * log_prob * advantage).sum(), logits)
    assert torch.allclose(estimate, exact, atol=1e-12)


def test_difference_rewards_are_factored():
    # an agent's own change moves its difference reward by as much as the team's outcome
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.normal(size=(4, 4, 3, 3)))

    def team(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...ia,ijab,...jb->...", x, weight, x)

    for _ in range(50):
        before = torch.nn.functional.one_hot(torch.from_numpy(rng.integers(0, 3, 4)), 3).double()
        i = int(rng.integers(4))
        after = before.clone()
        after[i] = torch.eye(3, dtype=torch.float64)[int(rng.integers(3))]
        default = torch.eye(3, dtype=torch.float64)[torch.zeros(4, dtype=torch.long)]
        first, second = (difference(CriticGame(team, x, default))[i] for x in (before, after))
        assert (second - first).item() == pytest.approx((team(after) - team(before)).item(), abs=1e-12)


def test_masked_actions_may_hold_anything():
    q = torch.tensor([[1.0, -torch.inf, 3.0], [1.0, torch.nan, 3.0]])
    policy = torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.0, 0.5]])
    assert counterfactual(q, policy, torch.tensor([2, 0])).tolist() == [1.0, -1.0]


def test_gradients_reach_critic_and_policy():
    q = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    action = torch.tensor([[0, 1, 2], [3, 0, 1]])
    assert torch.autograd.gradcheck(lambda v, x: counterfactual(v, x.softmax(-1), action), (q, logits))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected q and policy"):
        counterfactual(torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(2).long())
    with pytest.raises(ValueError, match="team: expected"):
        unilateral_values(lambda a: a, torch.tensor([0, 1]), 2)
