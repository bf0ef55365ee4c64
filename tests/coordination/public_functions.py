"""Every public function of tensors with the axes of its arguments and result, for the laws they all obey.

An entry says which axis of each argument and of the result is which: ``B`` samples, ``N`` agents, ``G`` the 2^N
coalitions of a table of worths; other letters are of no concern.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import torch
from small_graphs import topology
from torch import Tensor

from coordination import coalition, consensus, credit, games, metrics, voting
from coordination.arrays import as_numpy
from coordination.games import TabularGame
from coordination.topology import Topology

B, N, D, K, T = 3, 5, 2, 3, 4
GRAPH = topology(nx.Graph([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2)]))


@dataclass(frozen=True)
class Law:
    """A function of tensors ``call(*arguments, graph=, [alive=])`` and the axes of its arguments and result."""

    call: Callable[..., Tensor]
    arguments: tuple[str, ...]  # "kind:axes"
    result: str
    skip: frozenset[str] = field(default_factory=frozenset)

    @property
    def masked(self) -> bool:
        return "alive" in inspect.signature(self.call).parameters


def law(call: Callable[..., Tensor], *arguments: str, result: str, skip: str = "") -> Law:
    return Law(call, arguments, result, frozenset(skip.split()))


def coalitions_as_pairs(label: Tensor) -> Tensor:
    return (label.unsqueeze(-1) == label.unsqueeze(-2)) & (label.unsqueeze(-1) >= 0)


def normal_form(x: Tensor) -> Tensor:
    """Payoffs ``[N, 2, .., 2]``, one axis for each agent's choice, from ``[N, 2^N]`` indexed by bits."""
    return torch.as_tensor(x).reshape(N, *[2] * N).permute(0, *range(N, 0, -1))


def product(joint: Tensor) -> Tensor:
    return (joint + 1.0).prod(-1).sqrt()


def _redistribute(reward: Tensor, score: Tensor, over: Tensor, graph: Topology) -> Tensor:
    return credit.redistribute(reward, score, over)


AGENTS = {  # a function that reads no graph takes and ignores it
    "consensus.mix": law(lambda x, graph: consensus.mix(x, graph, "metropolis"), "real:BND", result="BND"),
    "consensus.disagreement": law(
        lambda x, graph, alive=None: consensus.disagreement(x, alive), "real:BND", result="B"
    ),
    "consensus.gaussian_pool": law(
        lambda m, v, w, graph: torch.cat(consensus.gaussian_pool(m, v, w), -1),
        "real:BND",
        "positive:BND",
        "positive:BN",
        result="BD",
    ),
    "consensus.log_linear_pool": law(
        lambda x, w, graph: consensus.log_linear_pool(x, w)[0], "log:BNK", "positive:BN", result="BK"
    ),
    "consensus.tracking_error": law(lambda x, graph: consensus.tracking_error(graph, x), "real:BN", result="BN"),
    "consensus.convergence_factor": law(lambda graph: torch.tensor(consensus.convergence_factor(graph)), result=""),
    "consensus.delay_margin": law(lambda graph: torch.tensor(consensus.delay_margin(graph)), result=""),
    "consensus.extra_step_limit": law(lambda graph: torch.tensor(consensus.extra_step_limit(graph, 2.0)), result=""),
    "consensus.gossip_rate": law(lambda graph: torch.tensor(consensus.gossip_rate(graph)), result=""),
    "consensus.gossip_rounds": law(lambda graph: torch.tensor(consensus.gossip_rounds(graph, 0.1)), result=""),
    "consensus.max_robustness": law(lambda graph: torch.tensor(consensus.max_robustness(graph)), result=""),
    "consensus.robustness": law(lambda graph: torch.tensor(bool(consensus.robustness(graph, 2).holds)), result=""),
    "consensus.push_matrix": law(
        lambda x, graph: consensus.push_matrix(graph)(x, feature_dims=1), "real:BND", result="BND"
    ),
    "voting.plurality": law(lambda r, w, graph: voting.plurality(r, w), "rank:BNK", "positive:BN", result="BK"),
    "voting.borda": law(lambda r, w, graph: voting.borda(r, w), "rank:BNK", "positive:BN", result="BK"),
    "voting.copeland": law(lambda r, graph: voting.copeland(r), "rank:BNK", result="BK"),
    "voting.condorcet": law(lambda r, graph: voting.condorcet(r), "rank:BNK", result="BK"),
    "voting.pairwise": law(lambda r, w, graph: voting.pairwise(r, w), "rank:BNK", "label:BN", result="BKL"),
    "voting.schulze": law(lambda r, graph: voting.schulze(voting.pairwise(r)), "rank:BNK", result="BK"),
    "voting.ranked_pairs": law(lambda r, graph: voting.ranked_pairs(voting.pairwise(r)), "rank:BNK", result="BK"),
    "voting.strongest_paths": law(
        lambda r, graph: voting.strongest_paths(voting.pairwise(r)), "rank:BNK", result="BKL"
    ),
    "voting.vote": law(lambda r, w, graph: voting.vote(r, "schulze", w), "rank:BNK", "label:BN", result="BK"),
    "voting.ranks_from": law(lambda u, graph: voting.ranks_from(u), "real:BNK", result="BNK"),
    "voting.ranks_of": law(lambda r, graph: voting.ranks_of(r), "rank:BNK", result="BNK"),
    "voting.tally": law(lambda c, w, graph: voting.tally(c, K, w), "label:BN", "positive:BN", result="BK"),
    "voting.weighted_majority": law(
        lambda c, w, graph: voting.weighted_majority(c, K, w), "label:BN", "positive:BN", result="BK"
    ),
    "voting.decide": law(lambda c, graph: voting.decide(c, K, 1), "label:BN", result="B"),
    "voting.log_odds": law(lambda p, graph: voting.log_odds(p), "share:BN", result="BN"),
    "voting.majority_accuracy": law(
        lambda p, w, graph: torch.tensor(voting.majority_accuracy(p, w)), "share:N", "positive:N", result=""
    ),
    "voting.elect_leader": law(
        lambda p, graph: torch.as_tensor(p).gather(-1, voting.elect_leader(p, graph).leader), "real:BN", result="BN"
    ),
    "games.tabulate": law(lambda v, graph: games.tabulate(TabularGame(v)), "real:BG", result="BG"),
    "games.evaluate": law(
        lambda v, graph: games.evaluate(TabularGame(v), torch.ones(1, N, dtype=torch.bool)), "real:BG", result="BM"
    ),
    "coalition.canonical": law(lambda x, graph: coalitions_as_pairs(coalition.canonical(x)), "label:BN", result="BNN"),
    "coalition.pool": law(
        lambda label, x, graph: coalition.Coalitions(torch.as_tensor(label)).pool(x), "label:BN", "real:BN", result="BN"
    ),
    "coalition.modularity": law(
        lambda x, graph, alive=None: coalition.modularity(x, graph, 1.3, alive), "label:BN", result="B", skip="dead"
    ),
    "coalition.core_excess": law(
        lambda v, x, graph: coalition.core_excess(TabularGame(v), x), "real:BG", "real:BN", result="B"
    ),
    "coalition.core_is_empty": law(
        lambda v, graph: torch.tensor(coalition.core_is_empty(TabularGame(v))), "worth:G", result=""
    ),
    "coalition.least_core": law(
        lambda v, graph: torch.tensor(coalition.least_core(TabularGame(v))[1]), "worth:G", result=""
    ),
    "coalition.nucleolus": law(lambda v, graph: coalition.nucleolus(TabularGame(v)), "worth:G", result="N"),
    "coalition.optimal_structure": law(
        lambda v, graph: coalitions_as_pairs(coalition.optimal_structure(TabularGame(v)).label), "worth:G", result="NN"
    ),
    "coalition.pruned_structure": law(
        lambda v, graph: coalitions_as_pairs(coalition.pruned_structure(TabularGame(v)).label), "worth:G", result="NN"
    ),
    "coalition.upper_bound": law(
        lambda v, graph: torch.tensor(coalition.upper_bound(TabularGame(v))), "worth:G", result=""
    ),
    "coalition.supporting_prices": law(
        lambda v, graph: torch.tensor(coalition.supporting_prices(as_numpy(v)).sum()), "worth:G", result=""
    ),
    "coalition.structure_value": law(
        lambda v, x, graph: coalition.structure_value(TabularGame(v), x), "worth:G", "label:N", result=""
    ),
    "coalition.members": law(lambda x, graph: coalition.members(x).long().sum(-1).sort().values, "label:N", result="C"),
    "coalition.is_stable": law(
        lambda w, x, graph: torch.tensor(
            [
                coalition.is_stable(x, coalition.AdditiveHedonic(w), notion)
                for notion in ("rational", "nash", "individual", "contractual", "core")
            ]
        ),
        "real:NN",
        "label:N",
        result="M",
    ),
    "coalition.tempting_moves": law(
        lambda w, x, graph: torch.bincount(coalition.tempting_moves(x, coalition.AdditiveHedonic(w))[0], minlength=N),
        "real:NN",
        "label:N",
        result="N",
    ),
    "coalition.blocking_coalition": law(
        lambda w, x, graph: torch.tensor(coalition.blocking_coalition(x, coalition.AdditiveHedonic(w)) is None),
        "real:NN",
        "label:N",
        result="",
    ),
    "coalition.align": law(
        lambda x, y, graph: coalitions_as_pairs(coalition.align(x, y)), "label:N", "label:N", result="NN"
    ),
    "coalition.assign_tasks": law(
        lambda able, price, graph: coalition.assign_tasks(
            able, torch.tensor([[0.8, 0.7], [0.5, 0.6]]), torch.tensor([9.0, 7.0]), price
        )[1],
        "share:ND",
        "positive:N",
        result="N",
    ),
    "coalition.soft_assignment": law(
        lambda x, c, graph: coalition.soft_assignment(x, c, 0.5), "real:BND", "real:BKD", result="BNK"
    ),
    "coalition.soft_pool": law(lambda x, s, graph: coalition.soft_pool(x, s), "real:BND", "share:BNK", result="BND"),
    "coalition.harden": law(lambda s, graph: coalition.harden(s), "share:BNK", result="BNK"),
    "coalition.interval_structure": law(
        lambda v, graph: coalition.interval_structure(v).label, "real:BLK", result="BL"
    ),
    "coalition.size_structure": law(lambda v, graph: coalition.size_structure(v, 6).value, "real:BK", result="B"),
    "credit.shapley": law(lambda v, graph: credit.shapley(TabularGame(v)).value, "real:BG", result="BN"),
    "credit.auto": law(lambda v, graph: credit.auto(TabularGame(v)).value, "real:BG", result="BN"),
    "credit.banzhaf": law(lambda v, graph: credit.banzhaf(TabularGame(v)).value, "real:BG", result="BN"),
    "credit.myerson": law(lambda v, graph: credit.myerson(TabularGame(v), graph).value, "worth:BG", result="BN"),
    "credit.kernel_shapley": law(  # all coalitions within the budget
        lambda v, graph: credit.kernel_shapley(TabularGame(v), 2**N, torch.Generator()).value, "real:BG", result="BN"
    ),
    "credit.difference": law(lambda v, graph: credit.difference(TabularGame(v)), "real:BG", result="BN"),
    "credit.dividends": law(lambda v, graph: credit.dividends(v), "real:BG", result="BG"),
    "credit.unilateral_values": law(lambda a, graph: credit.unilateral_values(product, a, K), "label:BN", result="BNK"),
    "credit.aristocrat": law(
        lambda a, p, graph: credit.aristocrat(product, a, p), "label:BN", "simplex:BNK", result="BN"
    ),
    "credit.counterfactual": law(
        lambda q, p, a, graph: credit.counterfactual(q, p, a), "real:BNK", "simplex:BNK", "label:BN", result="BN"
    ),
    "credit.hop_credit unbiased": law(
        lambda r, graph, alive=None: credit.hop_credit(r, graph, 2, normalisation="unbiased", decay=0.5, alive=alive),
        "real:BN",
        result="BN",
        skip="dead",
    ),
    "credit.hop_credit conserve": law(
        lambda r, graph, alive=None: credit.hop_credit(r, graph, 2, normalisation="conserve", alive=alive),
        "real:BN",
        result="BN",
        skip="dead",
    ),
    "credit.smooth": law(lambda r, graph: credit.smooth(r, graph, 2), "real:BN", result="BN"),
    "credit.potential_shaping": law(
        lambda x, y, e, graph: credit.potential_shaping(x, y, e, 0.9), "real:BN", "real:BN", "flag:BN", result="BN"
    ),
    "credit.redistribute": law(_redistribute, "real:TBN", "real:TBN", "flag:TBN", result="TBN"),
    "credit.redistribute among agents": law(_redistribute, "real:TB", "real:TBN", "flag:TB", result="TBN"),
    "credit.return_differences": law(
        lambda r, g, e, graph: credit.return_differences(r, g, e), "real:TBN", "real:TBN", "flag:TBN", result="TBN"
    ),
    "credit.additive_fit": law(lambda p, graph: credit.additive_fit(p)[0], "real:XY", result="XY"),
    "credit.monotone_fit": law(lambda p, graph: credit.monotone_fit(p)[0], "real:XY", result="XY"),
    "metrics.action_synchrony": law(
        lambda a, graph, alive=None: metrics.action_synchrony(a, K, alive), "label:BN", result="B"
    ),
    "metrics.phase_synchrony": law(
        lambda x, graph, alive=None: metrics.phase_synchrony(x, alive), "real:BN", result="B"
    ),
    "metrics.team_entropy": law(lambda x, graph, alive=None: metrics.team_entropy(x, alive), "real:BNK", result="B"),
    "metrics.total_correlation": law(
        lambda a, graph: metrics.total_correlation(a), "label:BN", result="", skip="batch"
    ),
    "metrics.normalised_mutual_information": law(
        lambda a, b, graph: metrics.normalised_mutual_information(a, b), "label:N", "label:N", result=""
    ),
    "metrics.temporal_coherence": law(
        lambda a, graph, alive=None: metrics.temporal_coherence(
            a, None if alive is None else torch.as_tensor(alive).expand(a.shape[:-1])
        ),
        "real:TBND",
        result="B",
    ),
    "metrics.consensus_error": law(
        lambda x, y, graph, alive=None: metrics.consensus_error(x, y, alive), "real:BND", "real:BND", result="B"
    ),
    "metrics.disagreement_energy": law(
        lambda x, graph, alive=None: metrics.disagreement_energy(x, graph, alive), "real:BND", result="B", skip="dead"
    ),
    "metrics.gini": law(lambda x, graph, alive=None: metrics.gini(x, alive), "positive:BN", result="B"),
    "metrics.jain": law(lambda x, graph, alive=None: metrics.jain(x, alive), "positive:BN", result="B"),
    "metrics.load_balance": law(lambda x, graph, alive=None: metrics.load_balance(x, alive), "positive:BN", result="B"),
    "metrics.load_variation": law(
        lambda x, graph, alive=None: metrics.load_variation(x, alive), "positive:BN", result="B"
    ),
    "metrics.gaussian_diversity": law(
        lambda m, s, graph, alive=None: metrics.gaussian_diversity(m, s, alive), "real:BND", "positive:BND", result="B"
    ),
    "metrics.categorical_diversity": law(
        lambda p, graph, alive=None: metrics.categorical_diversity(p, alive), "simplex:BNK", result="B"
    ),
    "metrics.wasserstein": law(
        lambda x, y, graph: metrics.wasserstein(
            x, torch.eye(D).expand(B if np.ndim(x) > 1 else 1, D, D), y, torch.eye(D)
        ),
        "real:BD",
        "real:BD",
        result="B",
        skip="batch",
    ),
    "metrics.adjusted_rand": law(lambda a, b, graph: metrics.adjusted_rand(a, b), "label:BN", "label:BN", result="B"),
    "metrics.churn": law(lambda x, graph: metrics.churn(x), "label:TBN", result="SB"),
    "metrics.role_information": law(lambda x, graph: metrics.role_information(x), "label:BN", result="", skip="batch"),
    "metrics.silhouette": law(lambda x, label, graph: metrics.silhouette(x, label), "real:ND", "two:N", result=""),
    "metrics.hierarchic_social_entropy": law(
        lambda x, graph: torch.tensor(metrics.hierarchic_social_entropy(torch.cdist(*[torch.as_tensor(x)] * 2))),
        "real:ND",
        result="",
    ),
    "metrics.removal_regret": law(
        lambda j, x, graph: metrics.removal_regret(j, x), "positive:B", "real:BN", result="BN"
    ),
    "metrics.responsibility": law(
        lambda x, graph, alive=None: metrics.responsibility(x, alive), "real:BN", result="BN"
    ),
    "metrics.deviation_stability": law(
        lambda x, graph, alive=None: metrics.deviation_stability(x, alive), "real:BN", result="B"
    ),
    "metrics.cooperation_ratio": law(
        lambda j, best, graph: metrics.cooperation_ratio(j, best), "real:B", "positive:B", result="B"
    ),
    "metrics.nash_equilibria": law(
        lambda x, graph: metrics.nash_equilibria(normal_form(x)).permute(*range(N - 1, -1, -1)).reshape(-1),
        "real:NG",
        result="G",
    ),
    "metrics.price_of_anarchy": law(  # everybody is paid alike, so there is a pure equilibrium
        lambda x, graph: torch.tensor(metrics.price_of_anarchy(normal_form(torch.as_tensor(x).expand(N, -1)))),
        "positive:G",
        result="P",
    ),
    "metrics.percolation_robustness": law(
        lambda x, graph: torch.tensor(metrics.percolation_robustness(graph, torch.as_tensor(x).argsort())),
        "real:N",
        result="",
    ),
    "metrics.mutual_information": law(
        lambda p, graph: metrics.mutual_information(torch.as_tensor(p).unflatten(-1, (K, 2))), "simplex:BW", result="B"
    ),
    "metrics.speaker_consistency": law(
        lambda m, a, graph: metrics.speaker_consistency(m, a), "real:BNK", "real:BND", result="N", skip="batch"
    ),
    "metrics.instantaneous_coordination": law(
        lambda m, a, graph: metrics.instantaneous_coordination(m, a), "real:BNK", "real:BND", result="N", skip="batch"
    ),
    "metrics.causal_influence": law(
        lambda m, a, graph: metrics.causal_influence(m, a), "real:BNK", "real:BNKD", result="BN"
    ),
    "metrics.social_influence": law(
        lambda x, m, a, graph: metrics.social_influence(x, m, a), "label:BN", "real:BNK", "real:BNKD", result="BN"
    ),
    "metrics.positive_listening": law(
        lambda h, s, graph: metrics.positive_listening(h, s), "real:BNK", "real:BNK", result="BN"
    ),
    "metrics.information_per_bit": law(
        lambda x, b, graph: metrics.information_per_bit(x, b), "real:BN", "positive:BN", result="BN"
    ),
}
SIZES = {"B": B, "N": N, "D": D, "K": K, "T": T, "L": 6, "W": 2 * K, "X": 2, "Y": 3, "P": 2, "G": 2**N}


def draw(kind: str, axes: str, rng: np.random.Generator) -> Tensor:
    shape = tuple(SIZES[a] for a in axes)
    if kind == "rank":
        return torch.from_numpy(rng.random(shape).argsort(-1))
    if kind == "label":
        return torch.from_numpy(rng.integers(0, K, shape))
    if kind == "two":
        return torch.arange(shape[-1]).remainder(2)
    if kind == "flag":
        return torch.from_numpy(rng.random(shape) < 0.3)
    x = torch.from_numpy(rng.normal(size=shape))
    if kind == "worth":  # nobody earns anything alone, everybody together most
        x = x.abs()
        x[..., [0, *(1 << i for i in range(N))]] = 0
        x[..., -1] += 4
    return {"positive": x.exp(), "share": x.sigmoid(), "simplex": x.softmax(-1), "log": x.log_softmax(-1)}.get(kind, x)


def inputs(entry: Law, seed: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [draw(*argument.split(":"), rng) for argument in entry.arguments]


def renamed(x: Tensor, axes: str, order: np.ndarray) -> Tensor:
    """Agent i is called ``order[i]``: the new agent ``order[i]`` has what i had."""
    old = torch.from_numpy(np.argsort(order))
    for axis, name in enumerate(axes):
        if name == "N":
            x = x.index_select(axis, old)
        elif name == "G":
            masks = games.unpack_bits(torch.arange(2**N), N)  # by new names
            x = x.index_select(axis, games.pack_bits(masks[:, torch.from_numpy(order)]))
    return x


def axes_of(argument: str) -> str:
    return argument.split(":")[1]
