"""Reward signals: objectives, the laws of every stage, chains, configuration and refusals."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trajectories import LINE, applied, phi, random_context, trajectory

from coordination import tree
from coordination.graph import Graph
from coordination.signals import (
    STAGES,
    CoalitionShare,
    Coherence,
    CommCost,
    ConsensusSmooth,
    KHop,
    Local,
    Objectives,
    Potential,
    Redistribute,
    SharedReward,
    Team,
    Trajectory,
    build,
)
from coordination.topology import Topology

EVERY_STAGE = [
    Local(),
    Team(),
    KHop(1),
    KHop(2, "mean", decay=0.5),
    KHop(2, "conserve", decay=0.5),
    ConsensusSmooth(2),
    CoalitionShare("coalition", 0.7),
    Potential(phi, 0.9),
    CommCost(0.1),
    Objectives({"reward": 2.0, "hits": -0.5}),
    Coherence(0.3),
    Redistribute(lambda context: context.reward.sin()),
]

# -- objectives ------------------------------------------------------------------------------------


def test_messages_cost_their_price_on_links_to_the_living():
    alive = torch.tensor([True, True, False, True])
    acting = torch.tensor([True, True, False, False])
    context = trajectory([1.0, 1.0, 1.0, 1.0], alive=alive, acting=acting)
    assert applied(CommCost(0.25), context).tolist() == [0.75, 0.75, 0, 1]  # 0 -> 1 and 1 -> 0; 2 is dead, 3 silent
    live = torch.ones(6, dtype=torch.bool)
    live[LINE.edges[0] == 0] = False
    down = replace(context, graph=Graph(topology=LINE, live=live))
    assert applied(CommCost(0.25), down).tolist() == [1, 0.75, 0, 1]
    named = replace(context, info={"bits": torch.tensor([8, 0, 99, 4])})
    assert applied(CommCost(0.01, "bits"), named).tolist() == pytest.approx([0.92, 1, 0, 0.96])


def test_objectives_are_weighted_per_agent_and_per_sample():
    info = {"collisions": torch.tensor([[1.0, 0, 2, 0]]), "success": torch.tensor([True])}
    context = trajectory([[1.0, 2.0, 3.0, 4.0]], info=info)
    stage = Objectives({"collisions": -0.5, "success": 10})
    assert applied(stage, context).tolist() == [[10.5, 12, 12, 14]]
    assert applied(Objectives({"reward": 0.0, "success": 1}), context).tolist() == [[1, 1, 1, 1]]


def test_coherence_compares_with_the_last_own_action_of_the_episode():
    action = torch.tensor([[1, 0], [1, 0], [2, 0], [2, 5], [2, 5]]).unsqueeze(1)  # [T=5, N=1, A=2]
    acting = torch.tensor([True, True, False, True, True]).unsqueeze(1)
    cut = torch.tensor([False, False, False, True, False]).unsqueeze(1)
    context = trajectory(torch.zeros(5, 1), Topology(torch.zeros(2, 0), 1), action=action, acting=acting, cut=cut)
    # step 1 same; 2 did not choose; 3 differs from step 1 in both components; 4 begins a new episode
    assert applied(Coherence(0.5), context)[:, 0].tolist() == [0, 0, 0, -0.5, 0]


def test_coherence_of_real_actions_is_the_cosine():
    action = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -1.0], [0.0, -9.0]]).unsqueeze(1)
    context = trajectory(torch.zeros(4, 1), Topology(torch.zeros(2, 0), 1), action=action)
    assert applied(Coherence(1.0), context)[:, 0].tolist() == pytest.approx([0, -1, -2, 0], abs=1e-6)
    assert SharedReward([Coherence(1.0)]).needs == "trajectory"


# -- laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", EVERY_STAGE, ids=lambda stage: stage.name)
@given(seed=st.integers(0, 500))
def test_declared_properties_hold_and_dead_agents_change_nothing(stage, seed):
    context = random_context(seed)
    bundle = SharedReward([stage], audit=True)(context)
    assert bundle.violations == ()
    assert bundle.reward.isfinite().all()
    assert not bundle.reward[~context.alive].any()
    raw = torch.where(context.alive, context.reward, 0.0)
    if stage.conserves_sum:
        torch.testing.assert_close(bundle.reward.sum(-1), raw.sum(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(raw + sum(bundle.parts.values()), bundle.reward)
    torch.testing.assert_close(bundle.team.sum(-1), raw.sum(-1))
    clean = tree.map(lambda x: x.nan_to_num(7.0) if x.is_floating_point() else x, context)
    torch.testing.assert_close(SharedReward([stage])(clean).reward, bundle.reward)


@pytest.mark.parametrize("stage", EVERY_STAGE, ids=lambda stage: stage.name)
def test_samples_do_not_mix_and_agents_can_be_renamed(stage):
    context = random_context(11)
    whole = SharedReward([stage])(context).reward
    for b in range(3):
        alone = tree.map(lambda x, b=b: x[:, b], context)
        torch.testing.assert_close(SharedReward([stage])(alone).reward, whole[:, b])
    order = torch.tensor([3, 0, 4, 1, 2])  # agent i becomes order[i]
    inverse = order.argsort()
    renamed = Topology(order[context.graph.topology.edges], 5)
    moved = tree.map(lambda x: x[:, :, inverse] if x.ndim > 2 else x, context)
    moved = replace(moved, graph=Graph(topology=renamed), team=context.team[inverse])
    torch.testing.assert_close(SharedReward([stage])(moved).reward[..., order], whole)


def test_a_chain_adds_up_and_reports_the_raw_team_return():
    context = random_context(5)
    names = ["coalition_share", "consensus_smooth", {"potential": {"phi": phi}}, {"comm_cost": {"price": 0.01}}]
    shared = build(names, audit=True, gamma=0.95)
    assert shared.stages[2].gamma == 0.95
    bundle = shared(context)
    assert bundle.violations == ()
    raw = torch.where(context.alive, context.reward, 0.0)
    torch.testing.assert_close(bundle.team, torch.stack([raw[..., [0, 2]].sum(-1), raw[..., [1, 3, 4]].sum(-1)], -1))
    torch.testing.assert_close(raw + sum(bundle.parts.values()), bundle.reward)
    assert list(bundle.parts) == ["coalition_share", "consensus_smooth", "potential", "comm_cost"]


# -- configuration and refusals --------------------------------------------------------------------


def test_every_name_of_the_registry_is_a_stage_with_that_name():
    import coordination.signals as package

    for name, path in STAGES.items():
        stage = getattr(package, path.split(":")[1])
        assert stage.name == name
        assert path.split(":")[1] in package.__all__


def test_specifications_of_every_form_mean_the_same():
    forms = ["khop", {"khop": None}, ["khop"], [{"khop": {"k": 1}}], [KHop(1)], "coordination.signals.sharing:KHop"]
    for spec in forms:
        assert build(spec).names == ("khop",)
    assert build(None).names == ()
    assert build(["khop", "team", "khop"]).names == ("khop_1", "team", "khop_2")
    assert build("local").policy_invariant


def test_functions_can_be_named_in_a_file():
    stage = build({"potential": {"phi": "torch:sum", "gamma": 0.5}}).stages[0]
    assert stage.phi is torch.sum


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("teem", "unknown signal 'teem'; did you mean 'team'"),
        ({"khop": {"kk": 1}}, "signal 'khop': unknown argument 'kk'; did you mean 'k'"),
        ({"potential": {"gamma": 0.9}}, "signal 'potential': .*missing .* 'phi'; it takes: phi, gamma"),
        ({"khop": {"k": -1}}, "k: expected an integer of at least 0, got -1"),
        ("no.such.module:Stage", "cannot import 'no.such.module:Stage'"),
        (3, "signals: expected a name"),
        ({"khop": 3}, "expected a mapping of arguments, got 3"),
    ],
)
def test_bad_specifications_are_refused_by_name(spec, message):
    with pytest.raises(ValueError, match=message):
        build(spec)


def test_bad_contexts_and_stages_are_refused():
    context = trajectory([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="potential: the context has no next_obs"):
        SharedReward([Potential(phi, 0.9)])(context)
    with pytest.raises(ValueError, match=r"alive: expected the shape of reward \(4,\), got \(3,\)"):
        SharedReward([])(replace(context, alive=torch.ones(3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="graph: expected 4 agents, got 1"):
        SharedReward([])(replace(context, graph=Graph(topology=Topology(torch.zeros(2, 0), 1))))
    with pytest.raises(ValueError, match="info has no 'coalition'; it holds nothing"):
        SharedReward([CoalitionShare()])(context)
    with pytest.raises(TypeError, match="is no reward stage; it needs"):
        SharedReward([lambda reward, context: reward])

    class Narrow(Local):
        def __call__(self, reward, context):
            return reward[..., :1]

    with pytest.raises(ValueError, match=r"signal 'local': returned \(1,\), expected \(4,\)"):
        SharedReward([Narrow()])(context)


def test_trajectories_are_made_from_arrays_of_any_library():
    context = Trajectory.of(np.array([[1, 2]]), alive=np.array([[True, False]]), info={"x": np.array([3.0])})
    assert context.reward.dtype == torch.float32
    assert context.acting.tolist() == [[True, False]]
    assert context.graph.num_agents == 2
    assert SharedReward([Team(), Objectives({"x": 2.0})])(context).reward.tolist() == [[7, 0]]
    with pytest.raises(ValueError, match="unknown field 'rewards'; did you mean 'reward'"):
        Trajectory.of([1.0], rewards=[2.0])
    with pytest.raises(ValueError, match=r"team: expected \[N\] = \(2,\), got \(3,\)"):
        Trajectory.of([1.0, 2.0], team=[0, 0, 1])


def test_listing_signals_loads_no_torch():
    code = "import sys, coordination.signals as s; assert 'team' in s.STAGES; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
