"""Mathematics on an accelerator: numbers as on the CPU, results where the inputs lie, and where the host waits."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import pytest
import torch
from public_functions import AGENTS, GRAPH, inputs
from simulated_device import ACCELERATORS, accelerator, assert_same
from small_graphs import topology
from torch import Tensor
from trajectories import phi, random_context

from coordination import aggregation, coalition, credit, metrics, proximity, signals, tree
from coordination.games import FactorGame, Game, PairwiseGame, TabularGame
from coordination.graph import Graph

each = pytest.mark.parametrize("device", ACCELERATORS)
NUMBERS = {  # their result is a number of Python, or they take no tensors: the table makes a tensor of it on the CPU
    *("consensus.convergence_factor", "consensus.delay_margin", "consensus.extra_step_limit", "consensus.gossip_rate"),
    *("consensus.gossip_rounds", "consensus.max_robustness", "consensus.robustness", "voting.majority_accuracy"),
    *("coalition.core_is_empty", "coalition.least_core", "coalition.upper_bound", "coalition.supporting_prices"),
    *("coalition.is_stable", "coalition.blocking_coalition", "metrics.hierarchic_social_entropy"),
    *("metrics.price_of_anarchy", "metrics.percolation_robustness"),
}


@each
@pytest.mark.parametrize("name", AGENTS)
def test_public_functions_give_the_numbers_of_the_cpu_where_their_inputs_lie(name, device):
    entry = AGENTS[name]
    given = inputs(entry, 0)
    expected = entry.call(*given, graph=GRAPH)
    with accelerator(device) as there:
        found = entry.call(*(x.to(there.device) for x in given), graph=GRAPH)
        assert_same(found, expected, torch.device("cpu") if name in NUMBERS else there.home)
    assert_same(entry.call(*given, graph=GRAPH), expected, torch.device("cpu"))  # what was cached stayed apart


VALUES = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0))


# -- rules, reward stages, formers, samples ----------------------------------------------------------------------------

RULES = {
    "trimmed_mean": lambda v: aggregation.trimmed_mean(v, 1),
    "trimmed_mean of some": lambda v: aggregation.trimmed_mean(v, 1, torch.arange(8, device=v.device) != 2),
    "median": aggregation.median,
    "geometric_median": aggregation.geometric_median,
    "krum": lambda v: aggregation.krum(v, 1),
    "centred_clipping": lambda v: aggregation.centred_clipping(v, 3.0),
    "trimmed_around": lambda v: aggregation.trimmed_around(v[..., 0, :], v, 1),
    "proximity.nearest": lambda v: proximity.nearest(v, 2),
    "proximity.within": lambda v: proximity.within(v, 1.0, 3),
}
CONTEXT = replace(random_context(0), factors=torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(3)))


def team_game(context: signals.Trajectory) -> TabularGame:
    total = torch.where(context.alive, context.reward, 0.0).sum(-1)
    return TabularGame(torch.stack([total * k for k in range(32)], -1))


def choices(context: signals.Trajectory) -> Tensor:
    return context.reward.nan_to_num().unsqueeze(-1) * torch.arange(3, device=context.reward.device)


SIGNALS = {
    "local": {},
    "team": {},
    "khop": {"k": 2, "mode": "conserve"},
    "consensus_smooth": {},
    "coalition_share": {},
    "shapley": {"game": team_game},
    "factor_shapley": {"scopes": [[0, 1], [2]]},
    "difference": {"game": team_game},
    "counterfactual": {"q": choices, "policy": lambda context: choices(context).softmax(-1)},
    "potential": {"phi": phi},
    "comm_cost": {"price": 0.1},
    "objectives": {"weights": {"reward": 1.0, "hits": 0.5}},
    "coherence": {"weight": 0.1},
    "redistribute": {"score": lambda context: context.reward.nan_to_num()},
    "coalition_share of labels": {"label": [0, 0, 1, 1, 2]},
    "khop over links down": {},
}
LOOKS = {  # a game's worths are checked to be numbers; links of each sample are made into an operator by the CPU
    *("shapley", "difference", "khop over links down"),
}


@each
@pytest.mark.parametrize("name", RULES)
def test_rules(name, device):
    expected = RULES[name](VALUES)
    with accelerator(device) as there:
        x = VALUES.to(there.device)
        with there.waits() as waits:
            found = RULES[name](x)
        assert_same(found, expected, there.home)
        assert not waits


@each
@pytest.mark.parametrize("name", SIGNALS)
def test_reward_stages(name, device):
    def shared(context: signals.Trajectory) -> signals.RewardBundle:
        return signals.build({name.split()[0]: SIGNALS[name]}, gamma=0.9)(context)

    context = CONTEXT
    if name == "counterfactual":
        context = replace(context, action=context.action[..., :1])
    if name == "khop over links down":
        links = torch.rand(7, 3, context.graph.topology.num_edges, generator=torch.Generator().manual_seed(1)) < 0.7
        context = replace(context, graph=Graph(topology=context.graph.topology, live=links))
    expected = shared(context)
    with accelerator(device) as there:
        moved = tree.to(context, there.device)
        assert_same(shared(moved), expected, there.home)
        with there.waits() as waits:
            shared(moved)
    assert bool(waits) == (name in LOOKS), waits


def test_every_stage_is_among_them():
    assert {name.split()[0] for name in SIGNALS} == set(signals.STAGES)


# -- formers and samples -----------------------------------------------------------------------------------------------

WORTHS = torch.rand(32, generator=torch.Generator().manual_seed(5), dtype=torch.float64).index_fill(
    0, torch.tensor(0), 0
)
FIVE = topology(nx.cycle_graph(5))


def table(v: Tensor) -> Game:
    return TabularGame(v)


def pairs(v: Tensor) -> Game:
    return PairwiseGame(v[:5], torch.tensor([[0, 1, 2], [1, 2, 4]], device=v.device), v[5:8] - 0.5)


def factors(v: Tensor) -> Game:
    scopes = torch.tensor([[0, 1], [2, 4]], device=v.device)
    return FactorGame(scopes, v[:8].reshape(2, 4) * torch.tensor([0, 1, 1, 1], device=v.device), 5)


def re_formed(v: Tensor, generator: torch.Generator) -> coalition.DynamicState:
    dynamic = coalition.Dynamic(coalition.BestResponse(), 0.01, 1)
    state = dynamic.init(table(v), generator=generator)
    return dynamic.step(state, pairs(v), generator=generator)


FORMERS = {
    "exact": coalition.Exact(),
    "bounded": coalition.Exact(method="bound"),
    "best response": coalition.BestResponse(),
    "c-link": coalition.CLink(),
    "merge and split": coalition.MergeSplit(),
    "community": coalition.Community(),
}
FORMED = {
    f"{name}, {game.__name__}": lambda v, generator, former=former, game=game: former.form(
        game(v), FIVE, generator=generator
    )
    for name, former in FORMERS.items()
    for game in (table, pairs, factors)
}
DRAWN = {
    **FORMED,
    "dynamic": re_formed,
    "batch": lambda v, generator: coalition.form_batch(coalition.Exact(), TabularGame(torch.stack([v, 2 * v]))),
    "shares": lambda v, generator: coalition.tempting_moves(
        torch.arange(5, device=v.device), coalition.Shares(table(v), "equal")
    ),
    "blocking": lambda v, generator: coalition.blocking_coalition(
        torch.arange(5, device=v.device), coalition.AdditiveHedonic(v[:25].reshape(5, 5)), 20, generator
    ),
    "k-means": lambda v, generator: coalition.k_means(v.reshape(2, 8, 2), 3, generator),
    "clusters": lambda v, generator: coalition.EmbeddingClusters(2).form(
        None, features=v.reshape(16, 2), generator=generator
    ),
    "gaussian diversity": lambda v, generator: metrics.sampled_gaussian_diversity(
        v.reshape(2, 8, 2), v.exp().reshape(2, 8, 2), 50, generator
    ),
    "categorical diversity": lambda v, generator: metrics.sampled_categorical_diversity(
        v.reshape(2, 8, 2).softmax(-1), 50, generator
    ),
    "silhouette": lambda v, generator: metrics.sampled_silhouette(
        v.reshape(16, 2), torch.arange(16, device=v.device) % 2, 50, generator
    ),
}
SHARES = {  # their coalitions are drawn on the CPU wherever the game is
    "permutations": lambda v, generator: credit.permutation_shapley(table(v), 20, generator, antithetic=True),
    "strata": lambda v, generator: credit.stratified_shapley(table(v), 600, generator),
    "kernel": lambda v, generator: credit.kernel_shapley(table(v), 20, generator),
    "pairs": lambda v, generator: credit.banzhaf(table(v), "paired", 40, generator),
    "factors": lambda v, generator: credit.shapley(factors(v)),
}


@each
@pytest.mark.parametrize("name", [*DRAWN, *SHARES])
def test_formers_and_samples(name, device):
    call = (DRAWN | SHARES)[name]
    expected = call(WORTHS, torch.Generator().manual_seed(7))
    with accelerator(device) as there:
        home = there.device if name in DRAWN else "cpu"
        found = call(WORTHS.to(there.device), torch.Generator(home).manual_seed(7))
        assert_same(found, expected, there.home)


@each
def test_metrics_by_name(device):
    expected = metrics.evaluate(CONTEXT)
    with accelerator(device) as there:
        found = metrics.evaluate(tree.to(CONTEXT, there.device))
    assert list(found) == list(expected)
    for name, score in found.items():
        assert score.value == pytest.approx(expected[name].value, rel=1e-5, abs=1e-6, nan_ok=True), name
