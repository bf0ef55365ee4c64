import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination import tree
from coordination.channel import Budget, Channel, Delay, Drop, Noise, Partition, Quantise
from coordination.graph import Graph
from coordination.topology import Topology

RING = Topology([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]], 4)
SHARED = Graph(topology=RING)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def messages(steps, *shape, seed=0):
    return torch.randn(steps, *shape, generator=generator(seed))


def run(channel, graph, message, seed=0, **kwargs):
    """Everything a channel does to ``message [T, ...]``: inboxes, states and step ledgers, lists of T."""
    state, draws, seen = None, generator(seed), []
    for now in message:
        inbox, state, flow = channel.send(now, graph, state, generator=draws, **kwargs)
        seen.append((inbox, state, flow))
    return [list(x) for x in zip(*seen, strict=True)]


# -- single stages ---------------------------------------------------------------------------------


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


# -- composition, ledger, laws ---------------------------------------------------------------------

SPLIT = Partition([0, 0, 1, 1], start=3, stop=6)
EVERYTHING = Quantise(4) | Budget(20, 40) | Noise(0.1) | Delay(2, 1) | Drop(0.2, burst=2.0) | SPLIT


@given(
    gates=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=12),
    deaths=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_the_ledger_balances_on_every_edge_at_every_step(gates, deaths, seed):
    state, draws, graph = None, generator(seed), SHARED
    for t, gate in enumerate(gates):
        alive = torch.tensor([[t < d for d in deaths]])
        message = torch.where(alive.unsqueeze(-1), torch.rand(1, 4, 3, generator=draws), torch.nan)
        before = torch.zeros(1, 8, 2, dtype=torch.long) if state is None else state.ledger.in_flight
        inbox, state, flow = EVERYTHING.send(message, graph, state, torch.tensor([gate]), draws, alive=alive)
        assert not state.ledger.imbalance().any()
        assert torch.equal(before + flow.sent, flow.delivered + flow.dropped + flow.in_flight)
        assert torch.equal(flow.sent[..., 1], 12 * flow.sent[..., 0])
        assert torch.equal(flow.delivered[..., 0], inbox.arrived.long())
        assert inbox.value.isfinite().all()
        assert not inbox.value[~inbox.arrived].any()
        held = state.stages["3_delay"]["present"].sum(-2)
        assert torch.equal(state.ledger.in_flight[..., 0], held)
        assert (flow.sent >= 0).all()
        by_sender, by_receiver = state.ledger.per_agent(graph), state.ledger.per_agent(graph, "receiver")
        assert not by_sender.imbalance().any()
        assert torch.equal(by_sender.sent.sum(-2), by_receiver.sent.sum(-2))


def test_dead_agents_and_closed_gates_send_and_hear_nothing():
    alive = torch.tensor([True, True, False, True])
    gate = torch.tensor([False, True, True, True])
    message = torch.tensor([[1.0], [2.0], [math.nan], [4.0]])
    inbox, state, _ = Channel().send(message, SHARED, gate=gate, alive=alive)
    assert inbox.sum(SHARED).flatten().tolist() == [6.0, 0.0, 0.0, 0.0]  # 1 and 3 speak to 0; 2 is dead, 0 silent
    assert state.ledger.per_agent(SHARED).sent[:, 0].tolist() == [0, 1, 0, 1]
    silent, _, _ = Channel().send(message, SHARED, gate=torch.zeros(4, dtype=torch.bool))
    assert not silent.value.any()
    assert not silent.arrived.any()


def test_what_arrives_at_an_agent_that_died_meanwhile_is_dropped():
    channel, alive = Channel(Delay(1)), torch.ones(4, dtype=torch.bool)
    _, state, _ = channel.send(torch.ones(4, 1), SHARED, alive=alive)
    alive[2] = False
    inbox, state, flow = channel.send(torch.ones(4, 1), SHARED, state, alive=alive)
    dead = RING.edges[1] == 2
    assert torch.equal(inbox.arrived, ~dead)
    assert torch.equal(flow.dropped[:, 0], dead.long())
    assert not state.ledger.imbalance().any()


def test_a_symbol_takes_the_bits_the_caller_says():
    symbol = torch.nn.functional.one_hot(torch.tensor([0, 3, 1, 2]), 4).float()
    _, _, flow = Channel().send(symbol, SHARED, bits=2)
    assert (flow.sent[..., 1] == 2).all()
    assert flow.cost(per_message=0.5, per_bit=0.25).tolist() == [1.0] * 8


def test_one_message_per_edge():
    message = messages(1, 8, 2)[0]
    inbox, _, _ = Channel().send(message, SHARED, per_edge=True)
    assert torch.equal(inbox.value, message)


def test_a_batch_equals_a_loop_over_its_samples():
    channel = Quantise(4) | Delay(2) | Partition([0, 1, 1, 0], 2, 4)
    message = messages(6, 3, 4, 2)
    together, states, _ = run(channel, SHARED, message)
    for b in range(3):
        alone, single, _ = run(channel, SHARED, message[:, b])
        for x, y in zip(together, alone, strict=True):
            assert torch.equal(x.value[b], y.value)
        assert torch.equal(states[-1].ledger.sent[b], single[-1].ledger.sent)


def test_relabelling_the_agents_relabels_what_they_hear():
    order = torch.tensor([2, 0, 3, 1])  # agent i becomes order[i]
    moved = Graph(topology=Topology(order[RING.edges], 4))
    channel, message = Quantise(4) | Delay(1), messages(4, 4, 3)
    relabelled = torch.empty_like(message)
    relabelled[:, order] = message
    heard = [inbox.sum(SHARED) for inbox in run(channel, SHARED, message)[0]]
    moved_heard = [inbox.sum(moved) for inbox in run(channel, moved, relabelled)[0]]
    for x, y in zip(heard, moved_heard, strict=True):
        torch.testing.assert_close(y[order], x)


def test_samples_can_be_started_anew_one_by_one():
    channel, message = Channel(Delay(2)), torch.ones(2, 4, 1)
    _, state, _ = channel.send(message, SHARED)
    state = tree.where(torch.tensor([True, False]), channel.initial(message, SHARED), state)
    assert state.step.tolist() == [0, 1]
    assert state.ledger.in_flight[..., 0].sum(-1).tolist() == [0, 8]
    for _ in range(2):
        inbox, state, _ = channel.send(message, SHARED, state)
    assert inbox.arrived.sum(-1).tolist() == [0, 8]


def test_same_generator_same_channel():
    message = messages(10, 2, 4, 3)
    first, second, other = (run(EVERYTHING, SHARED, message, seed=s)[0] for s in (1, 1, 2))
    assert all(torch.equal(x.value, y.value) for x, y in zip(first, second, strict=True))
    assert any(not torch.equal(x.value, y.value) for x, y in zip(first, other, strict=True))


def test_gradients_pass_noise_loss_and_delay_exactly():
    channel = Noise(0.1) | Drop(0.3) | Delay(1)

    def heard(message):
        inboxes, _, _ = run(channel, SHARED, message, seed=3)
        return torch.stack([inbox.mean(SHARED) for inbox in inboxes])

    message = messages(3, 2, 4, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(heard, message)
    (gradient,) = torch.autograd.grad(heard(message).sum(), message)
    assert not gradient[-1].any()  # what is still on its way has no influence yet
    assert gradient[0].any()


# -- graphs with edges of their own per sample -----------------------------------------------------


def test_per_sample_edges_equal_a_shared_topology_of_the_same_links():
    own = Graph.from_neighbours(torch.tensor([[3, 1, 4], [0, 2, 4], [1, 3, 4], [2, 0, 4]]).expand(3, 4, 3), 4)
    channel, message = Quantise(4) | Delay(2), messages(5, 3, 4, 2)
    shared_run, own_run = run(channel, SHARED, message), run(channel, own, message)
    for x, y in zip(shared_run[0], own_run[0], strict=True):
        torch.testing.assert_close(x.sum(SHARED), y.sum(own))
        torch.testing.assert_close(x.mean(SHARED), y.mean(own))
    expected, found = shared_run[1][-1].ledger.per_agent(SHARED), own_run[1][-1].ledger
    for (name, x), (_, y) in zip(tree.named(expected), tree.named(found), strict=True):
        assert torch.equal(x, y), name


def test_messages_follow_their_link_when_the_edge_list_changes():
    """0 -> 1 and 2 -> 1 swap places in the list while their messages are on the way; 3 -> 2 vanishes."""
    first = Graph.from_edges(torch.tensor([[0, 2, 3], [1, 1, 2]]), 4)
    second = Graph.from_edges(torch.tensor([[2, 0, 1, 9], [1, 1, 0, 9]]), 4)
    channel = Channel(Delay(1))
    _, state, _ = channel.send(torch.tensor([[10.0], [20.0], [30.0], [40.0]]), first)
    inbox, state, flow = channel.send(torch.zeros(4, 1), second, state)
    place = {tuple(pair): i for i, pair in enumerate(second.edges.T.tolist())}
    assert inbox.value[place[0, 1]] == 10
    assert inbox.value[place[2, 1]] == 30
    assert inbox.arrived.sum() == 2
    assert flow.dropped[:, 0].tolist() == [0, 0, 0, 1]  # by sender
    assert not state.ledger.imbalance().any()
    assert state.ledger.sent[:, 0].tolist() == [2, 1, 2, 1]


@given(seed=st.integers(0, 200))
def test_the_ledger_balances_on_moving_graphs(seed):
    draws = generator(seed)
    channel, state = Quantise(2) | Budget(4, 8, per="edge") | Delay(2, 2) | Drop(0.2, burst=2.0), None
    for _ in range(6):
        lists = torch.rand(2, 5, 5, generator=draws).argsort(-1)[..., :3]
        own = torch.arange(5).reshape(1, 5, 1)
        graph = Graph.from_neighbours(torch.where(lists == own, 5, lists), 5)
        _, state, _ = channel.send(torch.rand(2, 5, 2, generator=draws), graph, state, generator=draws)
        assert not state.ledger.imbalance().any()
        held = state.stages["2_delay"]["present"].sum((-1, -2))
        assert torch.equal(state.ledger.in_flight[..., 0].sum(-1), held)


def test_links_that_are_down_carry_nothing_and_count_nothing():
    live = torch.ones(8, dtype=torch.bool)
    live[3] = False
    _, state, _ = Channel().send(torch.ones(4, 1), replace(SHARED, live=live))
    assert torch.equal(state.ledger.sent[:, 0], live.long())


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
