"""Heads against torch.distributions, masks, and groups of different kinds on one axis."""

from __future__ import annotations

import torch
from torch import distributions

from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.networks.distributions import START_LOG_STD
from marl.networks.heads import Head


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def single(action: ActionSpec, n: int = 2) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(1), action)


def test_categorical_agrees_with_torch_and_samples_its_distribution() -> None:
    head = Head(single(ActionSpec.discrete(4)))
    raw = torch.randn(2, 4, generator=seeded()).expand(20_000, 2, 4)
    action, log_prob = head.sample(raw, generator=seeded(1))
    reference = distributions.Categorical(logits=raw)
    torch.testing.assert_close(log_prob, reference.log_prob(action.squeeze(-1)))
    again, entropy = head.evaluate(raw, action)
    torch.testing.assert_close(again, log_prob)
    torch.testing.assert_close(entropy, reference.entropy())
    frequencies = torch.nn.functional.one_hot(action.squeeze(-1), 4).float().mean(0)
    torch.testing.assert_close(frequencies, reference.probs[0], atol=0.015, rtol=0)
    greedy, _ = head.sample(raw)
    assert torch.equal(greedy.squeeze(-1), raw.argmax(-1))


def test_components_of_a_multidiscrete_action_are_independent() -> None:
    head = Head(single(ActionSpec.discrete(2, 3)))
    raw = torch.randn(5, 2, 5, generator=seeded())
    action, log_prob = head.sample(raw, generator=seeded(1))
    parts = [distributions.Categorical(logits=x) for x in raw.split([2, 3], -1)]
    expected = sum(p.log_prob(action[..., i]) for i, p in enumerate(parts))
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(head.evaluate(raw, action)[1], sum(p.entropy() for p in parts))


def test_masked_choices_are_never_drawn_and_change_nothing() -> None:
    head = Head(single(ActionSpec.discrete(4)))
    mask = torch.tensor([[True, False, True, False], [False, True, False, False]])
    raw = torch.randn(500, 2, 4, generator=seeded())
    action, log_prob = head.sample(raw, mask.expand_as(raw), seeded(1))
    assert mask.expand_as(raw).gather(-1, action).all()
    loud = torch.where(mask, raw, 1e6)
    for other in (raw, loud):
        again, entropy = head.evaluate(other, action, mask.expand_as(raw))
        torch.testing.assert_close(again, log_prob)
    reference = distributions.Categorical(logits=raw[:, 0, [0, 2]])
    torch.testing.assert_close(entropy[:, 0], reference.entropy())
    assert entropy[:, 1].abs().max() == 0


def test_gaussian_agrees_with_torch_and_env_actions_keep_the_bounds() -> None:
    head = Head(single(ActionSpec.box(-1.0, 3.0, 2)))
    raw = torch.randn(1000, 2, 4, generator=seeded())
    action, log_prob = head.sample(raw, generator=seeded(1))
    reference = distributions.Normal(1 + 2 * raw[..., :2], 2 * (raw[..., 2:] + START_LOG_STD).clamp(-5, 1).exp())
    torch.testing.assert_close(log_prob, reference.log_prob(action).sum(-1), atol=1e-4, rtol=1e-4)
    again, entropy = head.evaluate(raw, action)
    torch.testing.assert_close(again, log_prob, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(entropy, reference.entropy().sum(-1))
    assert action.min() < -1
    assert head.env_action(action).min() == -1
    assert head.env_action(action).max() == 3
    torch.testing.assert_close(head.sample(raw)[0], reference.mean)


def test_groups_of_different_kinds_share_one_axis() -> None:
    flat = ObservationSpec.flat(1)
    groups = (
        Group("walker", 0, 2, flat, ActionSpec.box(-1, 1, 3)),
        Group("talker", 2, 1, flat, ActionSpec.discrete(5)),
        Group("rock", 3, 2, flat, None),
    )
    head = Head(AgentSpec(groups, tuple("abcde")))
    raw = torch.randn(7, 5, 6, generator=seeded())
    action, log_prob = head.sample(raw, generator=seeded(1))
    assert action.shape == (7, 5, 3)
    assert action.dtype == torch.float32
    assert action[:, 2, 1:].abs().max() == 0
    assert action[:, 3:].abs().max() == 0
    assert log_prob[:, 3:].abs().max() == 0
    torch.testing.assert_close(head.evaluate(raw, action)[0], log_prob)
    talker = Head(single(ActionSpec.discrete(5), 1)).evaluate(raw[:, 2:3, :5], action[:, 2:3].long())
    torch.testing.assert_close(log_prob[:, 2:3], talker[0])
    assert head.env_action(action)[:, :2].abs().max() <= 1
