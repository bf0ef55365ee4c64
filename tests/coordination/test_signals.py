import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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

LINE = Topology([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]], 4)
ONE_WAY = Topology([[0, 1, 2], [1, 2, 3]], 4)


def trajectory(reward, topology=LINE, **fields):
    """A context around ``reward [*, N]`` in which everybody lives, acts and goes on."""
    reward = torch.as_tensor(reward)
    plain = {"graph": topology, "action": torch.zeros(*reward.shape, 1, dtype=torch.long)}
    return Trajectory.of(reward, **(plain | fields))


def applied(stage, context, audit=True):
    bundle = SharedReward([stage], audit=audit)(context)
    assert bundle.violations == ()
    return bundle.reward


def random_context(seed, steps=7, copies=3, n=5, topology=None):
    """Random rewards, deaths, restarts and observations; dead slots hold NaN."""
    draw = torch.Generator().manual_seed(seed)
    topology = topology or Topology([[0, 1, 1, 2, 2, 3, 3, 4, 4, 0], [1, 0, 2, 1, 3, 2, 4, 3, 0, 4]], n)
    alive = torch.rand(steps, copies, n, generator=draw) < 0.8
    cut = torch.rand(steps, copies, n, generator=draw) < 0.3
    terminated = cut & (torch.rand(steps, copies, n, generator=draw) < 0.5)
    cut[:-1] |= ~alive[1:]
    obs = torch.randn(steps + 1, copies, n, 2, generator=draw)
    next_obs = torch.where(cut.unsqueeze(-1), torch.randn(obs[1:].shape, generator=draw), obs[1:])
    reward = torch.randn(steps, copies, n, generator=draw)
    dead = ~alive
    return trajectory(
        torch.where(dead, torch.nan, reward),
        topology,
        alive=alive,
        acting=alive & (torch.rand(steps, copies, n, generator=draw) < 0.7),
        terminated=terminated,
        cut=cut,
        obs=torch.where(dead.unsqueeze(-1), torch.nan, obs[:-1]),
        next_obs=torch.where((dead | terminated).unsqueeze(-1), torch.nan, next_obs),
        action=torch.randint(3, (steps, copies, n, 2), generator=draw),
        info={"coalition": torch.randint(-1, n, (steps, copies, n), generator=draw), "hits": reward[..., 0].abs()},
        team=torch.tensor([0, 1, 0, 1, 1]),
    )


def phi(obs):
    return obs.sum(-1).tanh()


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

# -- sharing ---------------------------------------------------------------------------------------


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


# -- potential -------------------------------------------------------------------------------------


def episode(values, gamma, ends):
    """One agent walking through states of the given potentials; ``ends`` is terminated, truncated or neither."""
    states = torch.tensor(values).reshape(-1, 1, 1)
    steps = len(values) - 1
    terminated = torch.zeros(steps, 1, dtype=torch.bool)
    cut = terminated.clone()
    cut[-1], terminated[-1] = ends != "neither", ends == "terminated"
    one = Topology(torch.zeros(2, 0), 1)
    context = trajectory(
        torch.zeros(steps, 1), one, obs=states[:-1], next_obs=states[1:], terminated=terminated, cut=cut
    )
    bundle = SharedReward([Potential(lambda obs: obs[..., 0], gamma)], audit=True)(context)
    assert bundle.violations == ()
    return (bundle.reward[:, 0] * gamma ** torch.arange(steps)).sum().item()


@given(values=st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=12), gamma=st.floats(0, 1))
def test_shaping_of_an_episode_telescopes(values, gamma):
    ended = episode(values, gamma, "terminated")
    assert ended == pytest.approx(-values[0], abs=1e-4)  # -Phi(s_0): nothing is worth anything after the end
    for ends in ("truncated", "neither"):  # there the learner bootstraps, so the last state counts
        left = gamma ** (len(values) - 1) * values[-1]
        assert episode(values, gamma, ends) == pytest.approx(left - values[0], abs=1e-4)


def test_shaping_keeps_optimal_policies_and_shifts_their_values_by_the_potential():
    """Ng et al. 1999 on random tabular problems: Q*' = Q* - Phi, by value iteration on rewards from the stage."""
    draw = torch.Generator().manual_seed(0)
    states, actions, gamma = 6, 3, 0.9
    follow = torch.randint(states, (states, actions), generator=draw)
    over = torch.rand(states, actions, generator=draw) < 0.2
    reward = torch.randn(states, actions, generator=draw)
    potential = torch.randn(states, generator=draw) * 3
    s = torch.arange(states).repeat_interleave(actions)
    context = trajectory(
        reward.reshape(-1, 1),
        Topology(torch.zeros(2, 0), 1),
        obs=s.reshape(-1, 1, 1).float(),
        next_obs=follow.reshape(-1, 1, 1).float(),
        terminated=over.reshape(-1, 1),
        cut=over.reshape(-1, 1),
    )
    shaped = applied(Potential(lambda obs: potential[obs[..., 0].long()], gamma), context).reshape(states, actions)

    def solve(r):
        q = torch.zeros(states, actions)
        for _ in range(400):
            q = r + gamma * torch.where(over, 0.0, q.max(1).values[follow])
        return q

    plain, with_shaping = solve(reward), solve(shaped)
    torch.testing.assert_close(with_shaping, plain - potential.unsqueeze(1), atol=1e-4, rtol=1e-4)
    assert torch.equal(with_shaping.argmax(1), plain.argmax(1))


def test_shaping_between_turns_telescopes_once_per_turn():
    """Turns at 0 and 3; rewards in between add to the turn, so their sum must be gamma Phi(s_3) - Phi(s_0)."""
    states = torch.tensor([2.0, -1.0, 3.0, 7.0, 5.0]).reshape(-1, 1, 1)
    acting = torch.tensor([True, False, False, True]).unsqueeze(1)
    context = trajectory(
        torch.zeros(4, 1), Topology(torch.zeros(2, 0), 1), obs=states[:-1], next_obs=states[1:], acting=acting
    )
    added = applied(Potential(lambda obs: obs[..., 0], 0.9), context)
    assert added[:3].sum().item() == pytest.approx(0.9 * 7 - 2)
    assert added[3].item() == pytest.approx(0.9 * 5 - 7)


def test_audit_finds_a_potential_that_is_no_function_and_a_sum_that_changed():
    draw = torch.Generator().manual_seed(0)
    noisy = Potential(lambda obs: torch.rand(obs.shape[:-1], generator=draw), 0.9)
    context = random_context(0)
    (violation,) = [v for v in SharedReward([noisy], audit=True)(context).violations if "same observations" in v]
    assert violation.startswith("potential: phi gives different values")

    class Wrong(Team):
        name = "wrong"
        conserves_sum = True

    assert "declares conserves_sum" in SharedReward([Wrong()], audit=True)(context).violations[0]
    assert SharedReward([Wrong()])(context).violations == ()


def test_audit_finds_shaping_that_forgets_the_discount():
    class Undiscounted(Potential):
        def _shaping(self, now, following, context):
            return following - now

    context = random_context(1)
    context = replace(context, acting=context.alive)
    found = SharedReward([Undiscounted(phi, 0.9)], audit=True)(context).violations
    assert any("does not telescope" in v for v in found)
    assert SharedReward([Potential(phi, 0.9)], audit=True)(context).violations == ()


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
