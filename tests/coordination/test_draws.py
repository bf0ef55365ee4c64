"""Keyed draws: the published stream, replay, their distributions, and channels that do not depend on the batch."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from coordination.channel import Budget, Delay, Drop, Keyed, Noise, Quantise
from coordination.channel.draws import pair_key
from coordination.graph import Graph
from coordination.links import at_ends
from coordination.topology import Topology

SPLITMIX = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]  # of the seed 1234567


def test_the_calls_of_a_key_are_its_splitmix64_stream():
    draws = Keyed(torch.tensor([1234567]))
    for word in SPLITMIX:
        assert draws.uniform(torch.Size([1])).item() == ((word >> 41) + 0.5) / 2**23


def test_axes_behind_the_keys_are_a_stream_of_their_own():
    key = torch.tensor([5, 1234567])
    wide = Keyed(key).uniform(torch.Size([2, 3, 4]), torch.float64)
    first = Keyed(key).uniform(torch.Size([2]), torch.float64)
    assert wide.unique().numel() == 24
    assert not torch.isin(first, wide).any()
    assert torch.equal(wide[1:], Keyed(key[1:]).uniform(torch.Size([1, 3, 4]), torch.float64))


@pytest.mark.parametrize("keys", [torch.arange(20_000), torch.arange(20_000) << 24], ids=["low", "high"])
def test_neighbouring_keys_draw_independent_uniform_and_normal_numbers(keys):
    draws = Keyed(keys)
    x, y = draws.uniform(keys.shape), draws.uniform(keys.shape)
    assert stats.kstest(x.numpy(), "uniform").pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([x, y]))[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([x[1:], x[:-1]]))[0, 1]) < 0.03
    assert stats.kstest(draws.normal(keys.shape).numpy(), "norm").pvalue > 1e-3


def test_pairs_of_agents_are_ordered():
    a, b = torch.tensor([1, 2]), torch.tensor([2, 1])
    assert pair_key(a, b).unique().numel() == 2


def test_shapes_that_do_not_begin_with_the_keys_are_refused():
    with pytest.raises(ValueError, match=r"begins with that of the keys \(2,\)"):
        Keyed(torch.tensor([1, 2])).uniform(torch.Size([3, 2]))


def test_every_stage_draws_the_same_for_a_sample_whatever_batch_it_stands_in():
    graph = Graph(topology=Topology([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 1]], 4))
    budget = Budget(rate=9, burst=18, per="sample")
    channel = Quantise(3, dither=True) | budget | Noise(0.3) | Drop(0.3, burst=2.0) | Delay(2, jitter=1)
    message = torch.rand(5, 3, 4, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    key = torch.arange(12).reshape(3, 4) * 997

    def play(samples):
        state, heard = None, []
        for t in range(5):
            agents = key[samples] + t
            keys = pair_key(at_ends(agents, graph, "receiver"), at_ends(agents, graph, "sender"))
            inbox, state, _ = channel.send(message[t, samples], graph, state, generator=Keyed(keys))
            heard.append(inbox)
        return heard

    whole, part = play([0, 1, 2]), play([2, 0])
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a.value[[2, 0]], b.value)
        assert torch.equal(a.arrived[[2, 0]], b.arrived)
    assert any((a.arrived[0] != a.arrived[1]).any() for a in whole)
