"""Who gets whose reward: sharing, hops, smoothing, coalitions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from trajectories import LINE, ONE_WAY, applied, random_context, trajectory

from coordination.graph import Graph
from coordination.signals import (
    CoalitionShare,
    ConsensusSmooth,
    KHop,
    Local,
    SharedReward,
    Team,
)
from coordination.topology import Topology


def test_local_changes_nothing_and_team_pays_each_agent_its_teams_sum():
    context = trajectory([[1.0, 2.0, 4.0, 8.0]], team=torch.tensor([0, 1, 0, 1]))
    assert torch.equal(applied(Local(), context), context.reward)
    bundle = SharedReward([Team()])(context)
    assert bundle.reward.tolist() == [[5, 10, 5, 10]]
    assert bundle.team.tolist() == [[5, 10]]
    assert bundle.parts["team"].tolist() == [[4, 8, 1, 2]]


def test_team_counts_living_agents_only():
    alive = torch.tensor([[True, True, False, True]])
    context = trajectory([[1.0, 2.0, torch.nan, 8.0]], alive=alive)
    bundle = SharedReward([Team()], audit=True)(context)
    assert bundle.reward.tolist() == [[11, 11, 0, 11]]
    assert bundle.team.tolist() == [[11]]


def test_khop_pays_for_those_one_can_reach():
    """On 0 -> 1 -> 2 -> 3 an agent reaches those further down; hand-computed."""
    context = trajectory([1.0, 10.0, 100.0, 1000.0], ONE_WAY)
    assert applied(KHop(0), context).tolist() == [1, 10, 100, 1000]
    assert applied(KHop(1), context).tolist() == [11, 110, 1100, 1000]
    assert applied(KHop(2, decay=0.5), context).tolist() == [31, 310, 600, 1000]
    assert applied(KHop(1, "mean"), context).tolist() == [5.5, 55, 550, 1000]
    # every reward is split among the agents that can cause it: oneself and the one before
    assert applied(KHop(1, "conserve"), context).tolist() == [6, 55, 550, 500]


def test_khop_of_the_diameter_is_the_team_sum():
    context = trajectory(torch.randn(3, 2, 4))
    torch.testing.assert_close(applied(KHop(3), context), applied(Team(), context))


def test_khop_splits_among_the_living_only():
    alive = torch.tensor([True, False, True, True])
    context = trajectory([1.0, torch.nan, 6.0, 9.0], ONE_WAY, alive=alive)
    assert applied(KHop(1, "conserve"), context).tolist() == [1, 0, 6 + 4.5, 4.5]
    assert applied(KHop(1, "mean"), context).tolist() == [1, 0, 7.5, 9]


def test_khop_on_edges_of_each_sample_equals_khop_on_their_topologies():
    two = [LINE, Topology([[0, 3, 1], [3, 1, 2]], 4)]
    padded = [torch.nn.functional.pad(t.edges, (0, 6 - t.num_edges), value=4) for t in two]
    graph = Graph.from_edges(torch.stack(padded), 4)
    reward = torch.randn(2, 4)
    for stage in (KHop(1), KHop(2, "conserve"), KHop(2, "mean", 0.5)):
        together = applied(stage, trajectory(reward, graph=graph))
        alone = [applied(stage, trajectory(r, t)) for r, t in zip(reward, two, strict=True)]
        torch.testing.assert_close(together, torch.stack(alone))


def test_khop_bound_is_that_of_the_scalable_actor_critic_theory():
    """c rho^(k+1), c = 1 / (1 - 0.9): 9, 8.1, 7.29, 6.561 for k = 0..3."""
    bounds = [KHop(k).bias_bound(1.0, 0.9) for k in range(4)]
    assert bounds == pytest.approx([9.0, 8.1, 7.29, 6.561])


# -- spreading -------------------------------------------------------------------------------------


def test_smoothing_is_a_power_of_the_mixing_matrix():
    reward = torch.randn(5, 4, dtype=torch.float64)
    smoothed = applied(ConsensusSmooth(3), replace(trajectory(reward), reward=reward))
    expected = reward @ torch.linalg.matrix_power(LINE.mixing("metropolis").dense(), 3).T
    torch.testing.assert_close(smoothed, expected)


@pytest.mark.parametrize("own_edges", [False, True])
def test_smoothing_keeps_the_sum_of_the_living_and_contracts(own_edges):
    context = random_context(3)
    if own_edges:
        edges = context.graph.topology.edges.expand(7, 3, 2, -1)
        shared, context = context, replace(context, graph=Graph.from_edges(edges, 5))
        torch.testing.assert_close(applied(ConsensusSmooth(2), context), applied(ConsensusSmooth(2), shared))
    before, after = applied(Local(), context), applied(ConsensusSmooth(4), context)
    torch.testing.assert_close(after.sum(-1), before.sum(-1))
    assert after.square().sum() < 0.8 * before.square().sum()


def test_row_stochastic_weights_declare_that_they_do_not_keep_the_sum():
    assert not ConsensusSmooth(1, "mean").conserves_sum
    with pytest.raises(ValueError, match="needs an undirected graph"):
        applied(ConsensusSmooth(1), trajectory([1.0, 0, 0, 0], ONE_WAY))


def test_coalitions_share_their_mean_and_loners_keep_their_own():
    context = trajectory([1.0, 3.0, 5.0, 7.0], info={"coalition": torch.tensor([0, 0, 2, -1])})
    assert applied(CoalitionShare(share=1.0), context).tolist() == [2, 2, 5, 7]
    assert applied(CoalitionShare(share=0.5), context).tolist() == [1.5, 2.5, 5, 7]
    assert applied(CoalitionShare([1, 1, 1, 1], share=1.0), context).tolist() == [4, 4, 4, 4]
    assert applied(CoalitionShare(lambda c: c.action[..., 0], share=1.0), context).tolist() == [4, 4, 4, 4]
    dead = replace(context, alive=torch.tensor([True, False, True, True]))
    assert applied(CoalitionShare([0, 0, 0, 0], share=1.0), dead).tolist() == pytest.approx([13 / 3, 0, 13 / 3, 13 / 3])
