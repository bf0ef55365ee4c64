"""Stages of a channel one by one, against theory and by hand; and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from channels import RING, SHARED, generator, messages, run

from coordination.channel import Budget, Channel, Delay, Drop, Noise, Partition, Quantise
from coordination.graph import Graph
from coordination.topology import Topology


def test_a_channel_without_stages_hands_every_sender_to_every_out_neighbour():
    message = messages(1, 3, 4, 2)[0]
    inbox, state, flow = Channel().send(message, SHARED)
    assert torch.equal(inbox.value, message[:, RING.edges[0]])
    assert inbox.arrived.all()
    assert (flow.sent[..., 0] == 1).all()
    assert (flow.sent[..., 1] == 2 * 32).all()
    assert torch.equal(state.ledger.delivered, flow.sent)


@pytest.mark.parametrize(("bits", "error"), [(2, 0.020833), (4, 0.0013021), (8, 5.086e-6)])
def test_quantiser_error_is_step_squared_over_twelve(bits, error):
    x = torch.rand(400_000, generator=generator()) * 2 - 1
    measured = (Quantise(bits)(x) - x).square().mean().item()
    assert measured == pytest.approx(error, rel=0.02)


def test_dither_makes_the_error_of_every_single_number_unbiased():
    quantise, x = Quantise(2, dither=True), torch.full((200_000,), 0.13)
    error = quantise(x, generator()) - x
    assert abs(error.mean().item()) < 4 * quantise.step / math.sqrt(12 * 200_000)
    assert error.square().mean().item() == pytest.approx(quantise.step**2 / 12, rel=0.02)
    assert abs((Quantise(2)(x) - x).mean().item()) > 0.1  # without dither it is a constant


def test_quantiser_gradient_is_one_inside_and_zero_where_clipped():
    x = torch.tensor([-1.5, -0.3, 0.2, 0.99, 1.01], requires_grad=True)
    (Quantise(3)(x) * torch.arange(1.0, 6.0)).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 0]
    assert Quantise(3)(x).tolist() == pytest.approx([-0.875, -0.375, 0.125, 0.875, 0.875])


def test_the_straight_through_gradient_is_the_slope_of_the_staircase():
    """Over whole steps the staircase rises as its gradient says: one inside the range, nothing where it is clipped."""
    quantise = Quantise(5, dither=False)
    x = torch.tensor([-0.61, -0.2, 0.03, 0.48, 1.9, -2.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantise, x, eps=3 * quantise.step)
    channel, graph = quantise | Delay(0), Graph(RING)
    message = torch.linspace(-0.7, 0.7, RING.num_agents, dtype=torch.float64).unsqueeze(-1).requires_grad_()

    def heard(m: torch.Tensor) -> torch.Tensor:
        return channel.send(m, graph)[0].sum(graph)

    assert torch.autograd.gradcheck(heard, message, eps=2 * quantise.step)


def test_noise_has_its_standard_deviation_and_capacity():
    message = torch.zeros(1, 500, 4, 50)
    (inbox,), _, _ = run(Channel(Noise(0.5)), SHARED, message)
    assert inbox.value.std().item() == pytest.approx(0.5, rel=0.01)
    assert Noise(1.0).capacity(15.0) == pytest.approx(2.0)
    assert Noise(0.0).capacity(1.0) == math.inf


def test_independent_loss_is_binomial():
    inboxes, _, _ = run(Channel(Drop(0.3)), SHARED, torch.ones(200, 50, 4, 1))
    arrived = torch.stack([inbox.arrived for inbox in inboxes]).double()
    assert arrived.mean().item() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / arrived.numel()))
    follows = (arrived[1:] * arrived[:-1]).mean() - arrived.mean() ** 2
    assert abs(follows.item()) < 0.005  # no memory


def test_bursty_loss_has_its_stationary_loss_and_mean_burst():
    """Gilbert-Elliott: loss = pi_bad, mean run of losses = 1 / P(bad -> good)."""
    inboxes, _, _ = run(Channel(Drop(0.2, burst=4.0)), SHARED, torch.ones(600, 200, 4, 1))
    lost = ~torch.stack([inbox.arrived for inbox in inboxes])
    assert lost.double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert lost[0].double().mean().item() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / lost[0].numel()))
    starts = (lost[1:] & ~lost[:-1]).sum()
    assert (lost[1:].sum() / starts).item() == pytest.approx(4.0, rel=0.05)


def test_bursty_loss_with_a_leaky_bad_state_keeps_the_stationary_loss():
    inboxes, _, _ = run(Channel(Drop(0.1, burst=5.0, loss_bad=0.5)), SHARED, torch.ones(500, 200, 4, 1))
    lost = ~torch.stack([inbox.arrived for inbox in inboxes])
    assert lost.double().mean().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_delay_is_exact_and_zero_before(steps):
    message = messages(8, 2, 4, 3)
    inboxes, states, _ = run(Channel(Delay(steps)), SHARED, message)
    assert (states[-1].ledger.latency == steps).all()
    for t, inbox in enumerate(inboxes):
        expected = message[t - steps][:, RING.edges[0]] if t >= steps else torch.zeros(2, 8, 3)
        assert torch.equal(inbox.value, expected)
        assert inbox.arrived.all() if t >= steps else not inbox.arrived.any()
        assert (inbox.age == (steps if t >= steps else 0)).all()


@pytest.mark.parametrize(("share", "settles"), [(0.95, True), (1.05, False)])
def test_averaging_over_a_delay_settles_exactly_within_its_margin(share, settles):
    """x(t+1) = x(t) - q x(t-d) is stable iff q < 2 cos(d pi / (2 d + 1)) (Levin and May 1976); q = lambda * step."""
    n, d = 5, 3
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    graph = Graph(topology=Topology(torch.tensor(pairs).T, n))
    step = share * 2 * math.cos(d * math.pi / (2 * d + 1)) / n  # all other Laplacian eigenvalues of K5 are 5
    channel, state = Channel(Delay(d)), None
    start = torch.tensor([[1.0], [-2.0], [0.5], [3.0], [-2.5]], dtype=torch.float64)
    past = [start] * (d + 1)
    for t in range(400):
        inbox, state, _ = channel.send(past[-1], graph, state)
        heard = inbox.sum(graph) if t >= d else start.sum(0) - start
        past = [*past[1:], past[-1] + step * (heard - (n - 1) * past[0])]
    assert (past[-1].norm() < 0.1 * start.norm()) == settles
    assert (past[-1].norm() > 10 * start.norm()) != settles


def test_jitter_in_order_loses_nothing_and_keeps_the_order():
    steps, total = 3, 40
    message = torch.arange(float(total)).reshape(total, 1, 1, 1).expand(total, 16, 4, 1).contiguous() + 1
    inboxes, states, flows = run(Channel(Delay(steps, jitter=3)), SHARED, message)
    value = torch.stack([inbox.value[..., 0] for inbox in inboxes])
    for edge in value.reshape(total, -1).T:
        arrived = edge[edge > 0]
        assert torch.equal(arrived, torch.arange(1.0, len(arrived) + 1))  # every message, in order
    late = torch.stack([inbox.age for inbox in inboxes])
    assert late.max() == 6
    assert len(late.unique()) == 7
    assert sum(int(flow.dropped.sum()) for flow in flows) == 0
    assert int(states[-1].ledger.in_flight[..., 0].max()) <= 6


def test_jitter_with_reordering_overtakes_and_counts_what_was_overtaken():
    total = 60
    message = torch.arange(float(total)).reshape(total, 1, 1, 1).expand(total, 16, 4, 1).contiguous() + 1
    inboxes, states, _ = run(Channel(Delay(2, jitter=2, reorder=True)), SHARED, message)
    value = torch.stack([inbox.value[..., 0] for inbox in inboxes]).reshape(total, -1)
    overtaking = [(edge[edge > 0].diff() < 0).any() for edge in value.T]
    assert any(overtaking)
    ledger = states[-1].ledger
    assert (ledger.dropped[..., 0] > 0).any()
    assert not ledger.imbalance().any()
    delays = torch.stack([inbox.age[inbox.arrived] for inbox in inboxes[20:21]])
    assert delays.max() <= 4


@pytest.mark.parametrize("per", ["edge", "agent", "sample"])
@pytest.mark.parametrize("unit", ["bits", "messages"])
def test_a_budget_is_never_exceeded_and_is_used(per, unit):
    rate, burst = (4.1, 20.0) if unit == "bits" else (0.7, 2.5)
    channel = Quantise(3) | Budget(rate, burst, unit, per)
    total, message = torch.zeros(5, 8, dtype=torch.long), messages(50, 5, 4, 2)
    _, states, flows = run(channel, SHARED, message)
    for t, flow in enumerate(flows):
        total = total + flow.sent[..., 1 if unit == "bits" else 0]
        if per == "agent":
            spent = torch.zeros(5, 4, dtype=torch.long).index_add(1, RING.edges[0], total)
        else:
            spent = total if per == "edge" else total.sum(-1)
        assert (spent <= rate * (t + 1) + burst).all()
    price = 6 if unit == "bits" else 1
    assert (spent > rate * 50 - price).all()  # the rate is used up but for one message
    ledger = states[-1].ledger
    assert torch.equal(ledger.sent + ledger.withheld, torch.full_like(ledger.sent, 50) * torch.tensor([1, 6]))


def test_a_shared_bucket_serves_its_edges_fairly():
    _, states, _ = run(Budget(1, 1, "messages", "agent") | Channel(), SHARED, torch.ones(200, 40, 4, 1))
    sent = states[-1].ledger.sent[..., 0].double().mean(0)
    assert (sent - 100).abs().max() < 4 * math.sqrt(0.25 * 200 / 40)


def test_a_partition_cuts_the_links_between_groups_while_it_lasts():
    channel = Channel(Partition([0, 0, 1, 1], start=1, stop=3))
    inboxes, states, _ = run(channel, SHARED, torch.ones(4, 1, 4, 1))
    sender, receiver = RING.edges
    across = (sender < 2) != (receiver < 2)
    for t, inbox in enumerate(inboxes):
        assert torch.equal(~inbox.arrived[0], across if 1 <= t < 3 else torch.zeros_like(across))
    assert torch.equal(states[-1].ledger.dropped[0, :, 0], 2 * across.long())


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantise(0), "bits: expected an integer from 1 to 24, got 0"),
        (lambda: Quantise(4, 1.0, 1.0), "expected low < high"),
        (lambda: Noise(-1), "std: must not be negative"),
        (lambda: Drop(1.5), r"loss: must be in \[0, 1\], got 1.5"),
        (lambda: Drop(0.9, burst=2.0), "a loss of 0.9 needs bursts longer than 2.0 steps"),
        (lambda: Drop(0.5, burst=9.0, loss_bad=0.5), "loss: must be below loss_bad"),
        (lambda: Drop(0.1, loss_bad=0.5), "give burst too"),
        (lambda: Delay(1, jitter=2), "jitter: expected an integer from 0 to steps = 1"),
        (lambda: Delay(1, reorder=True), "only overtake each other with jitter"),
        (lambda: Budget(5, 2), "burst: must be at least rate"),
        (lambda: Budget(1, per="link"), "per: expected edge, agent or sample"),
        (lambda: Partition([0, 1], 3, 3), "expected 0 <= start < stop"),
        (lambda: Delay(1) | Budget(1), "Budget acts at the sender, put it before Delay"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_messages_and_states_are_refused():
    with pytest.raises(ValueError, match=r"message: expected float \[\*, 4 agents, D\], got torch.float32 \(3, 1\)"):
        Channel().send(torch.ones(3, 1), SHARED)
    with pytest.raises(TypeError, match="gate: expected bool, got"):
        Channel().send(torch.ones(4, 1), SHARED, gate=torch.ones(4))
    with pytest.raises(ValueError, match=r"gate: expected \(4,\), got \(8,\)"):
        Channel().send(torch.ones(4, 1), SHARED, gate=torch.ones(8, dtype=torch.bool))
    with pytest.raises(ValueError, match="Drop draws at random"):
        Channel(Drop(0.5)).send(torch.ones(4, 1), SHARED)
    with pytest.raises(ValueError, match="takes 32 bits and the bucket holds 8"):
        Channel(Budget(8)).send(torch.ones(4, 1), SHARED)
    with pytest.raises(ValueError, match="bits: must not be negative, got -1"):
        Channel().send(torch.ones(4, 1), SHARED, bits=-1)
    own = Graph.from_edges(RING.edges.expand(3, 2, 8), 4)
    with pytest.raises(ValueError, match=r"edges with the leading axes of message \(2,\), got \(3, 2, 8\)"):
        Channel().send(torch.ones(2, 4, 1), own)
    with pytest.raises(TypeError, match="expected stages such as Drop"):
        Channel(0.1)
    _, state, _ = Channel().send(torch.ones(4, 1), SHARED)
    with pytest.raises(ValueError, match="state: made for another batch or number of edges"):
        Channel().send(torch.ones(2, 4, 1), SHARED, state)
    with pytest.raises(ValueError, match="state: made for another channel"):
        Channel(Delay(1)).send(torch.ones(4, 1), SHARED, state)
    with pytest.raises(ValueError, match="state: made for another topology"):
        Channel().send(torch.ones(4, 1), Graph(topology=RING.reverse), state)
    with pytest.raises(ValueError, match="group: expected 4 agents, got 2"):
        Channel(Partition([0, 1])).send(torch.ones(4, 1), SHARED)
