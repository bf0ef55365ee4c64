"""Laws of every public function of tensors, from one table: names of agents, batches, dead agents, numpy arrays.

Protocols of consensus, channels, aggregation rules and reward stages have the same laws in files of their own.
"""

from __future__ import annotations

import inspect

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from public_functions import AGENTS, GRAPH, B, D, N, axes_of, inputs, renamed
from small_graphs import relabelled, topology
from torch import Tensor

from coordination import coalition, consensus, credit, games, metrics, voting
from coordination.channel import Channel, Quantise
from coordination.topology import Topology

PERMUTED = {
    name: entry
    for name, entry in AGENTS.items()
    if "N" in entry.result + "".join(entry.arguments) or "G" in "".join(entry.arguments) or not entry.arguments
}
BATCHED = {n: e for n, e in AGENTS.items() if "B" in "".join(e.arguments) and "batch" not in e.skip}
MASKED = {n: e for n, e in AGENTS.items() if e.masked and "dead" not in e.skip}
seeds = st.integers(0, 10_000)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", PERMUTED)
@settings(max_examples=5)
@given(seed=seeds)
def test_names_of_agents_do_not_matter(name, seed):
    entry, order = AGENTS[name], np.random.default_rng(seed).permutation(N)
    given_names = inputs(entry, seed)
    expected = renamed(entry.call(*given_names, graph=GRAPH), entry.result, order)
    moved = [renamed(x, axes_of(a), order) for x, a in zip(given_names, entry.arguments, strict=True)]
    close(entry.call(*moved, graph=relabelled(GRAPH, order)), expected)


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_is_a_loop(name):
    entry = AGENTS[name]
    batch = inputs(entry, 0)
    whole = entry.call(*batch, graph=GRAPH)
    for b in range(B):
        one = [
            x.select(axes_of(a).index("B"), b) if "B" in a else x for x, a in zip(batch, entry.arguments, strict=True)
        ]
        close(entry.call(*one, graph=GRAPH), whole.select(entry.result.index("B"), b))


@pytest.mark.parametrize("name", [n for n, e in AGENTS.items() if e.arguments])
def test_numpy_arrays_are_taken(name):
    entry = AGENTS[name]
    tensors = inputs(entry, 1)
    close(entry.call(*(x.numpy() for x in tensors), graph=GRAPH), entry.call(*tensors, graph=GRAPH))
    if entry.masked:
        alive = np.array([[True, True, False, True, True]] * B)
        close(
            entry.call(*(x.numpy() for x in tensors), graph=GRAPH, alive=alive),
            entry.call(*tensors, graph=GRAPH, alive=torch.from_numpy(alive)),
        )


@pytest.mark.parametrize("name", MASKED)
@settings(max_examples=5)
@given(seed=seeds)
def test_dead_agents_change_nothing(name, seed):
    """NaN in dead slots, against the same function without these agents."""
    entry = AGENTS[name]
    lives = torch.from_numpy(np.random.default_rng(seed).random(N) < 0.6)
    lives[:2] = True
    clean, torn, left = inputs(entry, seed), [], []
    for x, argument in zip(clean, entry.arguments, strict=True):
        axis = axes_of(argument).index("N")
        shape = [1] * x.ndim
        shape[axis] = N
        dead = ~lives.reshape(shape)
        torn.append(x.masked_fill(dead, torch.nan if x.is_floating_point() else 10**6))
        left.append(x[(slice(None),) * axis + (lives,)])
    found = entry.call(*torn, graph=GRAPH, alive=lives.expand(B, N))
    if "N" in entry.result:
        found = found[..., lives]
    close(found, entry.call(*left, graph=GRAPH))


ON_GRAPHS = {
    "consensus.mix": (lambda x, graph: consensus.mix(x, graph, "mh"), True),
    "consensus.push_matrix": (lambda x, graph: consensus.push_matrix(graph)(x, feature_dims=1), True),
    "consensus.run push-sum": (
        lambda x, graph: consensus.run(consensus.PushSum(), x, graph, rounds=3, feature_dims=1).value,
        True,
    ),
    "consensus.run maximum": (
        lambda x, graph: consensus.run(consensus.Extremum(), x, graph, rounds=2, feature_dims=1).value,
        True,
    ),
    "consensus.run resilient": (
        lambda x, graph: consensus.run(consensus.Resilient("wmsr", 1), x, graph, rounds=3, feature_dims=1).value,
        True,
    ),
    "channel.send": (lambda x, graph: Channel(Quantise(6, -4, 4)).send(x, graph)[0].mean(graph), True),
    "credit.hop_credit": (
        lambda x, graph: credit.hop_credit(x[..., 0], graph, 2, normalisation="conserve").unsqueeze(-1),
        True,
    ),
    "credit.smooth": (lambda x, graph: credit.smooth(x[..., 0], graph, 3).unsqueeze(-1), True),
    "metrics.disagreement_energy": (metrics.disagreement_energy, False),
}


@pytest.mark.parametrize("name", ON_GRAPHS)
@settings(max_examples=5)
@given(seed=seeds)
def test_a_disjoint_union_is_a_loop(name, seed):
    call, by_agent = ON_GRAPHS[name]
    first, second = GRAPH, topology(nx.path_graph(4))
    x, y = (torch.from_numpy(np.random.default_rng(seed).normal(size=(n, D))) for n in (N, 4))
    union = Topology(torch.cat([first.edges, second.edges + N], 1), N + 4)
    together = call(torch.cat([x, y]), union)
    apart = [call(x, first), call(y, second)]
    close(together, torch.cat(apart) if by_agent else torch.stack(apart).sum())


def test_every_public_function_is_in_the_table():
    """Those that are not draw at random, act on edges or structs, or take no tensors; each has laws of its own."""
    elsewhere = {
        *("run", "both_ways", "leja_order", "one_peer_exponential", "robust_topology", "rounds_to"),
        *("quorum_size", "quorum_overlap", "as_mask", "coalition_masks", "pack_bits", "unpack_bits"),
        *("form_batch", "k_means", "truncation_bound", "permutation_shapley", "stratified_shapley"),
        *("by_influencer", "communication_efficiency", "evaluate", "interval", "pair_sample", "sampled_silhouette"),
        *(
            "sampled_categorical_diversity",
            "sampled_gaussian_diversity",
            "sampled_silhouette",
            "value_of_communication",
        ),
    }
    listed = {name.split()[0].split(".")[1] for name in AGENTS}
    for package in (consensus, voting, games, coalition, credit, metrics):
        public = {name for name in package.__all__ if inspect.isfunction(getattr(package, name))}
        assert public <= listed | elsewhere, public - listed - elsewhere
