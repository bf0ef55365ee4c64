"""Coalitions from what agents look like: k-means on embeddings, and soft assignments that carry gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.coalition.base import Coalitions, canonical, finish, single
from coordination.coalition.optimal.bounds import upper_bound
from coordination.games import Game
from coordination.topology import Topology


@dataclass(frozen=True)
class EmbeddingClusters:
    """Agents with close embeddings work together: k-means on ``features``.

    Args:
        num_clusters: Coalitions K, at most N.
        restarts: Starts tried; the one with the least squared distance stays.
        iterations: Most Lloyd steps a start.

    >>> x = torch.tensor([[0.0], [0.1], [5.0]])
    >>> EmbeddingClusters(2).form(None, features=x, generator=torch.Generator().manual_seed(0)).label.tolist()
    [0, 0, 1]
    """

    num_clusters: int
    restarts: int = 4
    iterations: int = 100

    def form(
        self,
        game: Game | None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """See :class:`Former`; needs ``features [*, N, D]`` and a ``generator``. With a game, its worth of the result.

        Raises:
            ValueError: If features or generator is missing.
        """
        if features is None or generator is None:
            raise ValueError("EmbeddingClusters: needs features [*, N, D] and a generator (it draws the first centres)")
        label, _ = k_means(features, self.num_clusters, generator, self.restarts, self.iterations)
        if game is None:
            return Coalitions(canonical(label))
        game = single(game, "EmbeddingClusters")
        return finish(game, label, upper_bound(game))


def k_means(
    x: Array, num_clusters: int, generator: torch.Generator, restarts: int = 4, iterations: int = 100
) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means from k-means++ starts (Arthur and Vassilvitskii 2007), for every sample of a batch on its own.

    O(restarts * iterations * N K D). A centre that loses all its agents moves to the agent furthest from its centre.

    Args:
        x: ``[*, N, D]`` finite embeddings.
        num_clusters: Clusters K, in 1..N.
        generator: Draws the starts; on the device of ``x``.
        restarts, iterations: Raising them costs time and finds no worse.

    Returns:
        Labels ``[*, N]`` int64 and centres ``[*, K, D]`` of the start with the least squared distance.

    Raises:
        ValueError: If K is out of range or ``x`` is not finite.

    >>> x = torch.tensor([[0.0], [0.2], [5.0]])
    >>> label, centre = k_means(x, 2, torch.Generator().manual_seed(0))
    >>> canonical(label).tolist(), round(centre.min().item(), 4)
    ([0, 0, 1], 0.1)
    """
    x = torch.as_tensor(x)
    if x.ndim < 2 or not 1 <= num_clusters <= x.shape[-2]:
        raise ValueError(f"k_means: expected x [*, N, D] and 1..N clusters, got {tuple(x.shape)} and {num_clusters}")
    if not torch.isfinite(x).all():
        raise ValueError("k_means: x must be finite; leave dead agents out")
    rows = x.detach().reshape(-1, *x.shape[-2:])
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for _ in range(max(restarts, 1)):
        label, centre, cost = _lloyd(rows, _plus_plus(rows, num_clusters, generator), iterations)
        if best is None:
            best = label, centre, cost
        else:
            better = cost < best[2]
            best = (
                torch.where(better[:, None], label, best[0]),
                torch.where(better[:, None, None], centre, best[1]),
                torch.where(better, cost, best[2]),
            )
    assert best is not None
    return best[0].reshape(x.shape[:-1]), best[1].reshape(*x.shape[:-2], num_clusters, x.shape[-1])


def soft_assignment(x: Array, centre: Array, temperature: float = 1.0) -> Tensor:
    """``softmax over k of -||x_i - c_k||^2 / temperature``: differentiable membership. O(N K D).

    The k-means limit of soft clustering is temperature -> 0; straight-through gradients: :func:`harden`.

    Memberships of a Gaussian mixture with equal weights and variance (Bishop 2006, section 9.3.2).

    Args:
        x: ``[*, N, D]`` embeddings.
        centre: ``[*, K, D]`` centres, learned or from :func:`k_means`.
        temperature: Above 0; raising it makes memberships more even.

    Returns:
        ``[*, N, K]``, rows summing to 1.

    >>> soft_assignment(torch.zeros(1, 1), torch.tensor([[0.0], [0.0]])).tolist()
    [[0.5, 0.5]]
    """
    if temperature <= 0:
        raise ValueError(f"temperature: must be above 0, got {temperature}")
    x, centre = torch.as_tensor(x), torch.as_tensor(centre)
    distance = (x.unsqueeze(-2) - centre.unsqueeze(-3)).square().sum(-1)
    return torch.softmax(-distance / temperature, -1)


def harden(assignment: Array) -> Tensor:
    """One-hot memberships forward, the gradient of the soft ones backward (straight-through, Bengio et al. 2013).

    ``h = onehot(argmax S) + (S - stop_gradient(S))``; O(N K).

    >>> harden(torch.tensor([[0.2, 0.8]])).tolist()
    [[0.0, 1.0]]
    """
    assignment = torch.as_tensor(assignment)
    hard = torch.nn.functional.one_hot(assignment.argmax(-1), assignment.shape[-1]).to(assignment.dtype)
    return hard + (assignment - assignment.detach())


def soft_pool(x: Array, assignment: Array) -> Tensor:
    """Every agent gets its clusters' weighted means: ``y_i = sum over k of S_ik (sum_j S_jk x_j) / (sum_j S_jk)``.

    With one-hot S this is :meth:`Coalitions.pool`; the sum over agents stays. O(N K D), no [N, N] matrix.

    The coarsening and back of differentiable pooling (Ying et al. 2018, arXiv:1806.08804) with normalised columns.

    Args:
        x: ``[*, N, D]``.
        assignment: ``[*, N, K]`` memberships S, rows summing to 1.

    Returns:
        ``[*, N, D]``.

    >>> soft_pool(torch.tensor([[1.0], [3.0]]), torch.ones(2, 1)).tolist()
    [[2.0], [2.0]]
    """
    x, assignment = torch.as_tensor(x), torch.as_tensor(assignment)
    weight = assignment.sum(-2).unsqueeze(-1)  # [*, K, 1]
    mean = assignment.transpose(-1, -2) @ x / weight.clamp(min=torch.finfo(x.dtype).tiny)
    return assignment @ mean


def _plus_plus(x: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Starting centres ``[B, K, D]``: each agent with probability in proportion to its squared distance so far."""
    batch, n, _ = x.shape
    every = torch.arange(batch, device=x.device)
    pick = torch.randint(n, (batch,), generator=generator, device=x.device)
    centres = [x[every, pick]]
    distance = (x - centres[0].unsqueeze(1)).square().sum(-1)
    for _ in range(1, num_clusters):
        weight = torch.where(distance.sum(1, keepdim=True) > 0, distance, 1.0)  # all agents on centres: any will do
        pick = torch.multinomial(weight, 1, generator=generator).squeeze(1)
        centres.append(x[every, pick])
        distance = torch.minimum(distance, (x - centres[-1].unsqueeze(1)).square().sum(-1))
    return torch.stack(centres, 1)


def _lloyd(x: Tensor, centre: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, centres and summed squared distances ``[B]`` where nothing changes any more."""
    label = _squared(x, centre).argmin(-1)
    for _ in range(iterations):
        onehot = torch.nn.functional.one_hot(label, centre.shape[1]).to(x.dtype)
        count = onehot.sum(1).unsqueeze(-1)
        centre = torch.where(count > 0, onehot.transpose(1, 2) @ x / count.clamp(min=1), centre)
        centre = _refill(x, centre, count.squeeze(-1) == 0)
        after = _squared(x, centre).argmin(-1)
        if torch.equal(after, label):
            break
        label = after
    return label, centre, _squared(x, centre).gather(-1, label.unsqueeze(-1)).sum((1, 2))


def _refill(x: Tensor, centre: Tensor, empty: Tensor) -> Tensor:
    """Move the first empty centre of each sample to the agent furthest from its own centre."""
    far = _squared(x, centre).amin(-1).argmax(-1)
    first = (empty.long().cumsum(-1) == 1) & empty
    return torch.where(first.unsqueeze(-1), x[torch.arange(x.shape[0], device=x.device), far].unsqueeze(1), centre)


def _squared(x: Tensor, centre: Tensor) -> Tensor:
    return torch.cdist(x, centre, compute_mode="donot_use_mm_for_euclid_dist").square()
