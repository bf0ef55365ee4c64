"""Optimal coalition structures, and bounds on what any structure can be worth."""

from coordination.coalition.optimal.bounds import factor_bound, pairwise_bound, supporting_prices, upper_bound
from coordination.coalition.optimal.exact import Exact, optimal_structure
from coordination.coalition.optimal.pruned import pruned_structure
from coordination.coalition.optimal.structured import interval_structure, size_structure

__all__ = [
    "Exact",
    "factor_bound",
    "interval_structure",
    "optimal_structure",
    "pairwise_bound",
    "pruned_structure",
    "size_structure",
    "supporting_prices",
    "upper_bound",
]
