"""Shapley, Banzhaf and Myerson values: one entry each, with a method chosen to fit the game and the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from coordination.credit.base import Credit, exact, from_samples
from coordination.credit.difference import difference
from coordination.credit.exact import banzhaf_weights, local_semivalue, semivalue, shapley_weights
from coordination.credit.kernel import kernel_shapley
from coordination.credit.sampling import permutation_shapley, stratified_shapley
from coordination.games import FactorGame, Game, PairwiseGame, RestrictedGame, evaluate, tabulate
from coordination.names import unknown
from coordination.topology import Topology

ShapleyMethod = Literal["auto", "exact", "factor", "permutation", "antithetic", "stratified", "kernel"]
METHODS = ("auto", "exact", "factor", "permutation", "antithetic", "stratified", "kernel")
ENUMERABLE = 20  # agents
KERNEL_LIMIT = 64  # agents: above, its N x N system is no longer cheap against the evaluations
DEFAULT_BUDGET = 4096


def shapley(
    game: Game, method: ShapleyMethod = "auto", budget: int = DEFAULT_BUDGET, generator: torch.Generator | None = None
) -> Credit:
    """The Shapley value: the mean over orders of arrival of what each agent adds (Shapley 1953).

    ``phi_i = sum over S without i of |S|! (N - |S| - 1)! / N! (v(S with i) - v(S))``. The only division that is
    efficient (sums to v(N) - v(empty)), symmetric, gives null players nothing and is additive.

    Args:
        game: One game or a batch ``[*]``.
        method: ``factor`` exact, for sums of small games, O(F 2^K) · ``exact`` all 2^N coalitions, up to 20 agents ·
            ``kernel`` paired least squares · ``antithetic`` | ``permutation`` random orders · ``stratified`` · ``auto``
            the first that fits: factor, exact if 2^N is within the budget, kernel up to 64 agents, antithetic; see
                ``reason`` of the result.
        budget: Most worths that sampling methods (and auto's enumeration) may evaluate.
        generator: For sampling methods.

    Returns:
        Credit with values ``[*, N]``; its ``error`` is 0 for exact methods, else half a 95% interval.

    Raises:
        ValueError: If the method is unknown or does not fit the game, the budget is too small, or a generator is
            missing.

    >>> from coordination.games import TabularGame
    >>> shapley(TabularGame(torch.tensor([0.0, 0, 0, 0, 0, 1, 1, 1]))).value.mul(6).round().tolist()
    [1.0, 1.0, 4.0]
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    reason = ""
    if method == "auto":
        method, reason = _choose(game, budget)
    if method == "factor":
        credit = exact(local_semivalue(_factored(game), shapley_weights), "factor", 0)
    elif method == "exact":
        table = tabulate(game, ENUMERABLE)
        credit = exact(semivalue(table, shapley_weights(game.num_agents)), "exact", table.shape[-1])
    else:
        generator = _given(generator, method)
        if method == "kernel":
            credit = kernel_shapley(game, budget, generator)
        elif method == "stratified":
            credit = stratified_shapley(game, budget, generator)
        else:
            credit = permutation_shapley(game, budget, generator, antithetic=method == "antithetic")
    return replace(credit, reason=reason)


def auto(game: Game, budget: int = DEFAULT_BUDGET, generator: torch.Generator | None = None) -> Credit:
    """Credit by the best method the budget pays for; says which, why, and how exact.

    As :func:`shapley` with ``auto``; where the budget does not pay for two pairs of orders (``4 N`` worths), the
    difference value from N + 1 worths, whose error as a Shapley value is unknown (infinite).

    O(budget) worths at most, none for sums of small games.

    >>> from coordination.games import PairwiseGame
    >>> credit = auto(PairwiseGame(torch.zeros(2), [[0], [1]], torch.tensor([2.0])))
    >>> credit.method, credit.value.tolist(), credit.error.tolist()
    ('factor', [1.0, 1.0], [0.0, 0.0])
    """
    method, reason = _choose(game, budget)
    if method != "antithetic" or budget >= 4 * game.num_agents:
        return shapley(game, "auto", budget, generator)
    value = difference(game)
    reason = f"{budget} worths do not pay for two pairs of orders of {game.num_agents} agents; marginal contributions"
    return Credit(value, torch.full_like(value, torch.inf), "difference", game.num_agents + 1, reason)


def banzhaf(
    game: Game,
    method: Literal["auto", "exact", "factor", "paired"] = "auto",
    budget: int = DEFAULT_BUDGET,
    generator: torch.Generator | None = None,
) -> Credit:
    """The Banzhaf value: the mean of ``v(S with i) - v(S)`` over all 2^(N-1) sets S of others (Banzhaf 1965).

    Not efficient; the value most robust to noise in v (Wang and Jia 2023, arXiv:2205.15466).

    O(N 2^N), O(F K 2^K) or O(budget N), as the method goes.

    Args:
        game: One game or a batch.
        method: ``factor`` and ``exact`` as in :func:`shapley` · ``paired`` random sets with their complements, every
            pair serving all agents: ``phi_i = E[+-(v(S) - v(not S))]``, + where S holds i; unbiased · ``auto`` the
                first that fits.
        budget: Most worths for ``paired`` (and auto's enumeration).
        generator: For ``paired``.

    >>> from coordination.games import TabularGame
    >>> banzhaf(TabularGame(torch.tensor([0.0, 0, 0, 0, 0, 1, 1, 1]))).value.tolist()
    [0.25, 0.25, 0.75]
    """
    if method == "auto":
        if isinstance(game, FactorGame | PairwiseGame):
            method = "factor"
        else:
            method = "exact" if game.num_agents <= ENUMERABLE and 1 << game.num_agents <= budget else "paired"
    if method == "factor":
        return exact(local_semivalue(_factored(game), banzhaf_weights), "factor", 0)
    if method == "exact":
        table = tabulate(game, ENUMERABLE)
        return exact(semivalue(table, banzhaf_weights(game.num_agents)), "exact", table.shape[-1])
    if method != "paired":
        raise ValueError(unknown("method", method, ("auto", "exact", "factor", "paired")))
    if (pairs := budget // 2) < 1:
        raise ValueError(f"budget: a pair of coalitions needs 2 worths, got {budget}")
    half = torch.rand(pairs, game.num_agents, generator=_given(generator, "paired")) < 0.5
    worth = evaluate(game, torch.cat([half, ~half])).double()
    swing = worth[..., :pairs] - worth[..., pairs:]
    sign = (half.to(swing.dtype) * 2 - 1).to(swing.device)
    return from_samples(swing @ sign, swing.square() @ sign.square(), pairs, "paired", 2 * pairs)


def myerson(
    game: Game,
    topology: Topology,
    method: ShapleyMethod = "auto",
    budget: int = DEFAULT_BUDGET,
    generator: torch.Generator | None = None,
) -> Credit:
    """The Myerson value: the Shapley value of the game in which only linked agents cooperate (Myerson 1977).

    The worth of a coalition is the sum over its connected parts (:class:`RestrictedGame`); every component of the graph
    shares exactly its own worth. Arguments as in :func:`shapley`.

    A worth of the restricted game costs O(N + E) and the worths of its parts.

    >>> from coordination.games import TabularGame
    >>> majority = TabularGame(torch.tensor([0.0, 0, 0, 1, 0, 1, 1, 1]))
    >>> myerson(majority, Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3)).value.mul(6).round().tolist()
    [1.0, 4.0, 1.0]
    """
    return shapley(RestrictedGame(game, topology), method, budget, generator)


def _choose(game: Game, budget: int) -> tuple[ShapleyMethod, str]:
    n = game.num_agents
    if isinstance(game, FactorGame | PairwiseGame):
        return "factor", "the worth is a sum of small games: exact, factor by factor"
    if n <= ENUMERABLE and 1 << n <= budget:
        return "exact", f"2^{n} coalitions are within the budget of {budget}"
    if n <= KERNEL_LIMIT and budget >= 4 * n + 6:
        return (
            "kernel",
            f"2^{n} coalitions exceed the budget of {budget}; paired least squares for up to {KERNEL_LIMIT} agents",
        )
    return "antithetic", f"{n} agents are too many for other methods at a budget of {budget}; pairs of random orders"


def _factored(game: Game) -> FactorGame | PairwiseGame:
    if not isinstance(game, FactorGame | PairwiseGame):
        raise ValueError(f"method 'factor': needs a FactorGame or PairwiseGame, got {type(game).__name__}")
    return game


def _given(generator: torch.Generator | None, method: str) -> torch.Generator:
    if generator is None:
        raise ValueError(f"method {method!r} draws coalitions: give a generator")
    return generator
