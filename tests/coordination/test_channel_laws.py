"""Channels of many stages: the ledger, who hears what, laws; shared graphs and graphs of each sample."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from channels import RING, SHARED, generator, messages, run
from hypothesis import given
from hypothesis import strategies as st

from coordination import tree
from coordination.channel import Budget, Channel, Delay, Drop, Noise, Partition, Quantise
from coordination.graph import Graph
from coordination.topology import Topology

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
