import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.graph import Graph
from coordination.metrics import total_correlation
from coordination.metrics.influence import (
    by_influencer,
    causal_influence,
    communication_efficiency,
    information_per_bit,
    instantaneous_coordination,
    mutual_information,
    positive_listening,
    social_influence,
    speaker_consistency,
    value_of_communication,
)
from coordination.topology import Topology

EVEN = torch.zeros(4)


def listener(copy):
    """Logits of a listener that repeats the message with probability ``copy``, else picks evenly among four."""
    return (torch.eye(4) * copy + (1 - copy) / 4).log()


def common_cause(states=4):
    """Speaker and listener both name the state; the listener ignores the message."""
    names = torch.eye(states).log()  # 0 and -inf
    message = names.unsqueeze(1)  # [S, E=1, M]
    return message, names[:, None, None, :].expand(states, 1, states, states)  # [S, 1, M, A]


@pytest.mark.parametrize(("copy", "nats"), [(1.0, 1.3863), (0.8, 0.7988), (0.0, 0.0)])
def test_causal_influence_of_a_copying_listener(copy, nats):
    """ln 4 for a perfect copy; 0.7988 nats = 1.1524 bits for copying with probability 0.8."""
    influence = causal_influence(EVEN, listener(copy))
    assert influence.item() == pytest.approx(nats, abs=1e-4)
    assert mutual_information(listener(copy).exp() / 4).item() == pytest.approx(nats, abs=1e-4)
    assert information_per_bit(influence, 2).item() == pytest.approx(nats / math.log(4), abs=1e-4)


def test_a_common_cause_coordinates_without_influence():
    message, action = common_cause()
    assert instantaneous_coordination(message, action).item() == pytest.approx(math.log(4), abs=1e-5)
    assert causal_influence(torch.zeros(4, 1, 4), action).abs().max() < 1e-6
    assert causal_influence(message, action).abs().max() < 1e-6


def test_coordination_that_listens_has_influence_too():
    message = torch.zeros(7, 1, 4)
    action = listener(0.8).expand(7, 1, 4, 4)
    assert instantaneous_coordination(message, action).item() == pytest.approx(0.7988, abs=1e-4)


def test_speaker_consistency_counts_masked_samples_only():
    names = 60 * torch.eye(4).unsqueeze(1)  # [S=4, N=1, M=4]
    assert speaker_consistency(names, names).item() == pytest.approx(math.log(4), abs=1e-4)
    assert speaker_consistency(names, torch.zeros(4, 1, 3)).item() == pytest.approx(0, abs=1e-6)
    half = torch.tensor([True, True, False, False]).unsqueeze(1)
    torn = names.clone()
    torn[2:] = torch.nan
    assert speaker_consistency(torn, torn, half).item() == pytest.approx(math.log(2), abs=1e-4)
    assert speaker_consistency(torn, torn, torch.zeros(4, 1, dtype=torch.bool)).isnan().all()
    own = listener(0.8).expand(4, 1, 4, 4)  # acts on its own message, whatever the state
    assert speaker_consistency(torch.zeros(4, 1, 4), own).item() == pytest.approx(0.7988, abs=1e-4)


@given(seed=st.integers(0, 300))
def test_influence_is_the_mean_of_social_influence_over_own_choices(seed):
    draw = torch.Generator().manual_seed(seed)
    policy, heard = torch.randn(5, 3, generator=draw), torch.randn(5, 3, 4, generator=draw)
    each = torch.stack([social_influence(torch.full((5,), m), policy, heard) for m in range(3)], -1)
    torch.testing.assert_close((policy.softmax(-1) * each).sum(-1), causal_influence(policy, heard))
    assert (each >= -1e-6).all()
    assert (causal_influence(policy, heard) <= math.log(3)).all()


def test_social_influence_of_a_copied_action_is_its_surprise():
    policy = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    for action, p in enumerate(policy.exp().tolist()):
        influence = social_influence(torch.tensor(action), policy, torch.eye(4).log())
        assert influence.item() == pytest.approx(-math.log(p), abs=1e-5)


def test_influence_is_summed_by_speaker_over_living_links():
    topology = Topology([[0, 0, 2], [1, 2, 1]], 3)  # stored by receiver: 0->1, 2->1, 0->2
    influence = torch.tensor([[1.0, 2.0, 4.0]])
    assert by_influencer(influence, Graph(topology=topology)).tolist() == [[5, 0, 2]]
    live = torch.tensor([[True, True, False]])
    assert by_influencer(influence, Graph(topology=topology, live=live)).tolist() == [[1, 0, 2]]


def test_forbidden_choices_leave_everything_finite_with_gradients():
    policy = torch.tensor([0.0, -torch.inf, 1.0]).requires_grad_()
    heard = torch.tensor([[0.0, -torch.inf], [3.0, -torch.inf], [0.5, -torch.inf]]).requires_grad_()
    causal_influence(policy, heard).backward()
    assert heard.grad.isfinite().all()
    assert policy.grad.isfinite().all()
    (gradient,) = torch.autograd.grad(social_influence(torch.tensor(0), policy, heard), heard)
    assert gradient.isfinite().all()


def test_influence_gradients_are_exact():
    draw = torch.Generator().manual_seed(0)
    policy = torch.randn(2, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    heard = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(causal_influence, (policy, heard))
    assert torch.autograd.gradcheck(lambda p, h: social_influence(torch.tensor([1, 2]), p, h), (policy, heard))


def test_dit_agrees_on_random_tables():
    dit = pytest.importorskip("dit")
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(0, 4, (2, 3, 2)) + (np.indices((2, 3, 2)).sum(0) == 0)
        outcomes = list(np.ndindex(2, 3, 2))
        reference = dit.Distribution(outcomes, (counts / counts.sum()).ravel())
        samples = np.repeat(np.array(outcomes), counts.ravel(), axis=0)
        bits = dit.multivariate.total_correlation(reference)
        assert total_correlation(samples).item() == pytest.approx(bits * math.log(2), abs=1e-6)
        table = counts.sum(2) / counts.sum()
        bits = dit.shannon.mutual_information(reference, [0], [1])
        assert mutual_information(table).item() == pytest.approx(bits * math.log(2), abs=1e-6)
        message, action = np.log(table.sum(1)), np.log(np.maximum(table, 1e-300) / table.sum(1, keepdims=True))
        assert causal_influence(message, action).item() == pytest.approx(bits * math.log(2), abs=1e-6)


def test_positive_listening_ranges_from_deaf_to_obedient():
    heard = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    assert positive_listening(heard, torch.tensor([[0.6, 0.4], [0.5, 0.5]]).log()).tolist() == pytest.approx([0.6, 0])
    assert positive_listening(np.array([0.0, -np.inf]), np.array([-np.inf, 0.0])).item() == 2


def test_value_of_communication_and_reward_per_bit():
    assert value_of_communication(1.0, 0.5, 1.0) == 1
    assert value_of_communication(0.25, 0.5, 1.0) == -0.5
    assert communication_efficiency(10, 6, 16) == 0.25
    with pytest.raises(ValueError, match="oracle: must return more"):
        value_of_communication(1, 1, 1)
    with pytest.raises(ValueError, match="bits: must be positive, got 0"):
        communication_efficiency(1, 0, 0)
    with pytest.raises(ValueError, match="bits: must be positive"):
        information_per_bit(torch.ones(2), torch.tensor([1, 0]))


def test_tables_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="tables that sum to one"):
        mutual_information(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"action_logits: expected \(4,\) and \[A\], got \(3, 4\)"):
        causal_influence(EVEN, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"mask: expected \(2, 1\), got \(2,\)"):
        speaker_consistency(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected message_logits \[\*, X, M\]"):
        instantaneous_coordination(torch.zeros(2, 1, 3), torch.zeros(2, 1, 4, 3))
    with pytest.raises(ValueError, match="expected action"):
        social_influence(torch.tensor(0), torch.zeros(2, 3), torch.zeros(2, 3, 4))
