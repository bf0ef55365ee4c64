"""Credit assignment: what each agent is given of a common outcome, over coalitions, counterfactuals, space and time."""

from coordination.credit.base import Credit
from coordination.credit.decomposition import additive_fit, monotone_fit
from coordination.credit.difference import aristocrat, counterfactual, difference, unilateral_values
from coordination.credit.exact import dividends
from coordination.credit.kernel import kernel_shapley
from coordination.credit.sampling import permutation_shapley, stratified_shapley
from coordination.credit.spatial import hop_credit, smooth, truncation_bound
from coordination.credit.temporal import potential_shaping, redistribute, return_differences
from coordination.credit.values import auto, banzhaf, myerson, shapley

__all__ = [
    "Credit",
    "additive_fit",
    "aristocrat",
    "auto",
    "banzhaf",
    "counterfactual",
    "difference",
    "dividends",
    "hop_credit",
    "kernel_shapley",
    "monotone_fit",
    "myerson",
    "permutation_shapley",
    "potential_shaping",
    "redistribute",
    "return_differences",
    "shapley",
    "smooth",
    "stratified_shapley",
    "truncation_bound",
    "unilateral_values",
]
