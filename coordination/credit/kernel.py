"""Shapley values by weighted least squares over pairs of coalitions and their complements (KernelSHAP)."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from coordination.credit.base import Credit, half_width
from coordination.games import Game, evaluate


def kernel_shapley(game: Game, budget: int, generator: torch.Generator) -> Credit:
    """The linear game closest to v under the Shapley kernel, with ``sum of phi = v(N) - v(empty)`` kept exactly.

    ``min over phi of sum over S of k(|S|) (v(S) - v(empty) - sum of phi_i over S)^2`` with ``k(s) = (N - 1) / (C(N, s)
    s (N - s))`` has the Shapley value as its solution (Charnes et al. 1988; Lundberg and Lee 2017, arXiv:1705.07874).
    Coalitions come in pairs with their complements (Covert and Lee 2021, arXiv:2012.01536), which makes it exact on
    pairwise games. Sizes whose coalitions the budget can pay for are enumerated from the outside in (1 and N - 1
    always), the rest are drawn. Consistent, not unbiased; exact once the budget reaches 2^N. O(budget N^2).

    Args:
        game: One game or a batch.
        budget: Most worths to evaluate; at least 2 N + 6 (or 2^N).
        generator: Draws the coalitions, on the CPU.

    Returns:
        Credit with values ``[*, N]`` and sandwich errors (they vanish where the game is linear plus even in S).

    Raises:
        ValueError: If the budget is too small.

    >>> from coordination.games import PairwiseGame
    >>> game = PairwiseGame(torch.zeros(3), [[0, 1], [1, 2]], torch.tensor([2.0, 4.0]))
    >>> kernel_shapley(game, 8, torch.Generator().manual_seed(0)).value.tolist()
    [1.0, 3.0, 2.0]
    """
    n = game.num_agents
    ends = evaluate(game, torch.tensor([[False], [True]]).expand(2, n))
    empty, gain = ends[..., :1].double(), (ends[..., 1:] - ends[..., :1]).double()
    if n == 1:
        return Credit(gain.to(ends.dtype), torch.zeros_like(ends[..., :1]), "kernel", 2)
    half, weight, drawn = _pairs(n, budget, generator)
    z = torch.cat([half, ~half])
    worth = evaluate(game, z).double() - empty  # [*, 2R]
    device = worth.device
    rows, weight = z.double().to(device), weight.repeat(2).to(device)
    gram = rows.T @ (weight.unsqueeze(1) * rows)
    inverse = torch.linalg.inv(gram)
    ones = inverse.sum(1)
    project = inverse - torch.outer(ones, ones) / ones.sum()  # keeps the sum of phi
    phi = (worth * weight) @ rows @ project + gain * ones / ones.sum()
    left = (worth - phi @ rows.T) * weight
    credit = Credit(phi.to(ends.dtype), torch.zeros_like(phi).to(ends.dtype), "kernel", 2 * len(half) + 2)
    if drawn == 0:
        return credit
    influence = (left.unsqueeze(-1) * rows).unflatten(-2, (2, len(half))).sum(-3)[..., -drawn:, :] @ project
    if drawn == 1:
        error = torch.full_like(phi, torch.inf)
    else:
        centred = influence - influence.mean(-2, keepdim=True)
        error = half_width((centred.square().sum(-2) * drawn / (drawn - 1)).sqrt(), drawn - 1)
    return Credit(credit.value, error.to(ends.dtype), "kernel", credit.evaluations)


def _pairs(n: int, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """One coalition of each pair ``[R, N]``, the weight ``[R]`` of both, and how many were drawn (the last ones)."""
    left = (budget - 2) // 2
    sizes = list(range(1, n // 2 + 1))
    mass = {s: (1.0 if 2 * s == n else 2.0) / (s * (n - s)) for s in sizes}
    count = {s: comb(n, s) // (2 if 2 * s == n else 1) for s in sizes}
    rest = sum(mass.values())
    if left < min(sum(count.values()), n + 2):
        least = 2 * min(sum(count.values()), n + 2) + 2
        raise ValueError(f"budget: {budget} worths for {n} agents; the kernel needs {least}")
    masks, weights = [], []
    while sizes and (sizes[0] == 1 or left * mass[sizes[0]] >= rest * count[sizes[0]]):
        s = sizes.pop(0)
        masks.append(_all_of_size(n, s, count[s]))
        weights.append(torch.full((count[s],), mass[s] / count[s] / 2, dtype=torch.float64))
        left -= count[s]
        rest -= mass[s]
    drawn = left if sizes else 0
    if drawn:
        chance = torch.tensor([mass[s] for s in sizes], dtype=torch.float64)
        size = torch.tensor(sizes)[torch.multinomial(chance, drawn, replacement=True, generator=generator)]
        key = torch.rand(drawn, n, generator=generator)
        masks.append(key.argsort(1).argsort(1) < size.unsqueeze(1))
        weights.append(torch.full((drawn,), rest / drawn / 2, dtype=torch.float64))
    return torch.cat(masks), torch.cat(weights), drawn


def _all_of_size(n: int, size: int, count: int) -> Tensor:
    """All coalitions of one size ``[count, N]``; of half the agents only those with agent 0, one of each pair."""
    members = torch.combinations(torch.arange(n), size)[:count]
    return torch.zeros(count, n, dtype=torch.bool).scatter_(1, members, True)
