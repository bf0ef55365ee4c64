"""Coalition formation: partitions of the agents, what they are worth, and whether anybody wants to leave.

Formers share one method, ``form(game, topology, features=, previous=, generator=) -> Coalitions``. They run on the CPU
and hand labels back on the device of the game's worths, or of the features where there is no game. Where a game is
given, ``value <= optimum <= upper_bound`` holds for every former.
"""

from coordination.coalition.base import Coalitions, Former, canonical, form_batch, members, structure_value
from coordination.coalition.community import Community, modularity
from coordination.coalition.dynamic import Dynamic, DynamicState, align
from coordination.coalition.embedding import EmbeddingClusters, harden, k_means, soft_assignment, soft_pool
from coordination.coalition.hedonic import BestResponse
from coordination.coalition.merging import CLink, MergeSplit
from coordination.coalition.optimal import (
    Exact,
    interval_structure,
    optimal_structure,
    pruned_structure,
    size_structure,
    supporting_prices,
    upper_bound,
)
from coordination.coalition.payoffs import core_excess, core_is_empty, least_core, nucleolus
from coordination.coalition.stability import (
    AdditiveHedonic,
    Hedonic,
    Shares,
    blocking_coalition,
    is_stable,
    tempting_moves,
)
from coordination.coalition.tasks import TaskGreedy, assign_tasks

__all__ = [
    "AdditiveHedonic",
    "BestResponse",
    "CLink",
    "Coalitions",
    "Community",
    "Dynamic",
    "DynamicState",
    "EmbeddingClusters",
    "Exact",
    "Former",
    "Hedonic",
    "MergeSplit",
    "Shares",
    "TaskGreedy",
    "align",
    "assign_tasks",
    "blocking_coalition",
    "canonical",
    "core_excess",
    "core_is_empty",
    "form_batch",
    "harden",
    "interval_structure",
    "is_stable",
    "k_means",
    "least_core",
    "members",
    "modularity",
    "nucleolus",
    "optimal_structure",
    "pruned_structure",
    "size_structure",
    "soft_assignment",
    "soft_pool",
    "structure_value",
    "supporting_prices",
    "tempting_moves",
    "upper_bound",
]
