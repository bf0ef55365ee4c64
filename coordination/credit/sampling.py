"""Shapley values from random orders: plain permutations, permutations with their reverses, and strata of sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from coordination.credit.base import Credit, from_samples, half_width
from coordination.games import Game, evaluate

CELLS = 1 << 22  # mask cells of one round


def permutation_shapley(game: Game, budget: int, generator: torch.Generator, antithetic: bool = False) -> Credit:
    """Mean marginal contribution over random orders of arrival (Castro, Gomez and Tejada 2009).

    ``phi_i = E[v(before i and i) - v(before i)]``. An order costs N - 1 worths and is efficient by itself, so the
    shares sum to ``v(N) - v(empty)`` whatever the budget. Unbiased; the mean squared error falls as 1 / T.

    O(budget N) beside the worths.

    Args:
        game: One game or a batch.
        budget: Most worths to evaluate; the number of orders is T = (budget - 2) // (N - 1).
        generator: Draws the orders, on the CPU.
        antithetic: Take each order together with its reverse (Lomeli et al. 2019; Mitchell et al. 2022,
            arXiv:2104.12199): exact on pairwise games, usually better on others, not always.

    Returns:
        Credit with values ``[*, N]``.

    Raises:
        ValueError: If the budget is too small for two orders (two pairs of orders for an error with ``antithetic``).

    >>> from coordination.games import PairwiseGame
    >>> game = PairwiseGame(torch.zeros(3), [[0, 1], [1, 2]], torch.tensor([2.0, 4.0]))
    >>> permutation_shapley(game, 20, torch.Generator().manual_seed(0), antithetic=True).value.tolist()
    [1.0, 3.0, 2.0]
    """
    n = game.num_agents
    step = 2 if antithetic else 1
    orders = (budget - 2) // max(n - 1, 1) // step  # independent ones
    if orders < 1:
        raise ValueError(f"budget: {budget} worths do not make an order of {n} agents; need {step * (n - 1) + 2}")
    ends = evaluate(game, torch.tensor([[False], [True]]).expand(2, n))
    total = square = torch.zeros((), dtype=torch.float64)
    left, rows = orders, max(CELLS // (n * n * step), 1)
    while left:
        count = min(left, rows)
        order = torch.rand(count, n, generator=generator).argsort(1)
        gain = _order_gains(game, order, ends)
        if antithetic:
            gain = (gain + _order_gains(game, order.flip(1), ends)) / 2
        total, square = total + gain.sum(-2), square + gain.square().sum(-2)
        left -= count
    name = "antithetic" if antithetic else "permutation"
    return _cast(from_samples(total, square, orders, name, orders * step * (n - 1) + 2), ends)


def stratified_shapley(game: Game, budget: int, generator: torch.Generator) -> Credit:
    """For every agent and size, the same number of random coalitions (Maleki et al. 2013).

    ``phi_i = (1 / N) sum over sizes s of E[v(S with i) - v(S) : |S| = s]``; sizes 0 and N - 1 have one coalition each
    and are exact. Unbiased; shares do not sum to v(N) exactly. O(N^2) strata: for up to about a hundred agents.

    Args:
        game: One game or a batch.
        budget: Most worths to evaluate, 2 N + 2 and 2 N (N - 2) for every draw in each stratum.
        generator: Draws the coalitions, on the CPU.

    Returns:
        Credit with values ``[*, N]``; no error from a single draw.

    Raises:
        ValueError: If the budget does not reach one draw.

    >>> from coordination.games import PairwiseGame
    >>> game = PairwiseGame(torch.zeros(3), [[0, 1], [1, 2]], torch.tensor([2.0, 2.0]))
    >>> stratified_shapley(game, 600, torch.Generator().manual_seed(0)).value.sum().round().item()
    4.0
    """
    n = game.num_agents
    ends = evaluate(game, torch.tensor([[False], [True]]).expand(2, n))
    one = evaluate(game, torch.eye(n, dtype=torch.bool)).double() - ends[..., :1].double()
    last = ends[..., 1:].double() - evaluate(game, ~torch.eye(n, dtype=torch.bool)).double()
    if n < 3:
        value = (one + last) / 2 if n == 2 else one
        return _cast(Credit(value, torch.zeros_like(value), "stratified", 2 * n + 2), ends)
    draws = (budget - 2 * n - 2) // (2 * n * (n - 2))
    if draws < 1:
        raise ValueError(
            f"budget: {budget} worths for {n} agents; one draw in each stratum needs {2 * n * (n - 1) + 2}"
        )
    mean, variance = [], []
    for i in range(n):
        key = torch.rand(draws, n - 2, n, generator=generator)
        key[..., i] = 2.0  # never among the first
        size = torch.arange(1, n - 1).unsqueeze(-1)
        mask = (key.argsort(-1).argsort(-1) < size).reshape(-1, n)
        joined = mask.clone()
        joined[:, i] = True
        worth = evaluate(game, torch.cat([joined, mask])).double()
        gain = (worth[..., : len(mask)] - worth[..., len(mask) :]).unflatten(-1, (draws, n - 2))
        mean.append(gain.mean(-2).sum(-1))
        variance.append(gain.var(-2).sum(-1) / draws if draws > 1 else torch.full_like(mean[-1], torch.inf))
    value = (one + last + torch.stack(mean, -1)) / n
    error = half_width(torch.stack(variance, -1).sqrt() / n, (draws - 1) * (n - 2))
    return _cast(Credit(value, error, "stratified", 2 * n + 2 + 2 * n * (n - 2) * draws), ends)


def _order_gains(game: Game, order: Tensor, ends: Tensor) -> Tensor:
    """Marginal contributions ``[*, T, N]``, by agent, of T orders ``[T, N]`` of arrival."""
    count, n = order.shape
    rank = order.argsort(1)
    inside = rank.unsqueeze(1) <= torch.arange(n - 1).reshape(1, -1, 1)  # [T, N-1, N]: the first 1 .. N-1 arrivals
    worth = evaluate(game, inside.reshape(-1, n)) if n > 1 else ends[..., :0]
    worth = worth.reshape(*ends.shape[:-1], count, n - 1)
    low, high = (ends[..., e].reshape(*ends.shape[:-1], 1, 1).expand(*ends.shape[:-1], count, 1) for e in (0, 1))
    along = torch.cat([low, worth, high], -1).double().diff(dim=-1)
    return along.gather(-1, rank.to(along.device).expand(along.shape))


def _cast(credit: Credit, like: Tensor) -> Credit:
    return Credit(
        credit.value.to(like.dtype), credit.error.to(like.dtype), credit.method, credit.evaluations, credit.reason
    )
