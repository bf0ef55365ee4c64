"""Who plays which role: agreement of groupings, how well behaviours separate, and how much agents specialise.

Labels are integers ``[*, N]``; a negative one marks an agent that does not count (dead, or in no group).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from coordination.arrays import Array, as_numpy
from coordination.metrics.streaming import Running

CHUNK = 1 << 22  # distances held at once


def adjusted_rand(a: Array, b: Array) -> Tensor:
    """Adjusted Rand index of two groupings: pairs they agree on, beyond chance (Hubert and Arabie 1985, equation 5).

    ``(S_ab - S_a S_b / S) / ((S_a + S_b) / 2 - S_a S_b / S)`` with S the number of pairs, ``S_a`` those together in a,
    ``S_ab`` those together in both. Where both groupings are trivial in the same way it is 1.

    Args:
        a, b: ``[*, N]`` integers; agents negative in either are left out.

    Returns:
        ``[*]`` float32 in [-1/2, 1]: 1 for the same grouping under any names, 0 on average for unrelated ones; NaN with
        fewer than two agents. O(N log N).

    >>> adjusted_rand(torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 3, 3])).item()
    1.0
    """
    a, b = _labels(a), _labels(b)
    if a.shape != b.shape:
        raise ValueError(f"adjusted_rand: expected groupings of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    counts = (a >= 0) & (b >= 0)
    first, second = _rank(torch.where(counts, a, -1)), _rank(torch.where(counts, b, -1))
    both = torch.where(counts, first * (a.shape[-1] + 1) + second, -1)
    n = counts.sum(-1).double()
    pairs = n * (n - 1) / 2
    s_a, s_b, s_ab = (_pairs_together(torch.where(counts, x, -1)).double() for x in (first, second, both))
    chance = s_a * s_b / pairs
    most = (s_a + s_b) / 2
    trivial = most == chance
    index = torch.where(trivial, 1.0, (s_ab - chance) / torch.where(trivial, 1.0, most - chance))
    return torch.where(pairs > 0, index, torch.nan).float()


def churn(label: Array) -> Tensor:
    """How much a grouping changes from step to step: ``1 - adjusted Rand index`` of neighbouring times.

    One less the index of Hubert and Arabie (1985).

    Args:
        label: ``[T, *, N]`` integers over time; negative where an agent does not count.

    Returns:
        ``[T-1, *]``: 0 where nothing changes, about 1 where groups are drawn anew, at most 3/2. O(T N log N).

    Raises:
        ValueError: With fewer than two steps.

    >>> churn(torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])).tolist()
    [0.0]
    """
    label = _labels(label)
    if label.ndim < 2 or label.shape[0] < 2:
        raise ValueError(f"label: expected [T, *, N] with at least two steps, got {tuple(label.shape)}")
    return 1 - adjusted_rand(label[1:], label[:-1])


def role_information(role: Array) -> Tensor:
    """How much knowing the agent says about its role: ``I(role; agent) = H(role) - H(role | agent)``.

    Agents are weighted evenly, each by its own distribution of roles over all samples in which it counts.

    Mutual information (Shannon 1948) of role and agent.

    Args:
        role: ``[*, N]`` integers; negative where an agent does not count.

    Returns:
        Scalar, nats, in ``[0, min(ln R, ln N)]``: 0 where everyone plays everything, ``ln R`` where N agents hold R
        roles in equal numbers and never change. O(S log S + N R) for S samples of agents.

    Raises:
        ValueError: If no agent ever has a role.

    >>> round(role_information(torch.tensor([[0, 1], [0, 1]])).item(), 4)
    0.6931
    """
    role = _labels(role)
    n = role.shape[-1]
    rows = role.reshape(-1, n)
    counts = rows >= 0
    if not bool(counts.any()):
        raise ValueError("role: no agent has a role in any sample")
    names, index = rows[counts].unique(return_inverse=True)
    agent = torch.arange(n, device=rows.device).expand_as(rows)[counts]
    table = torch.zeros(n * len(names), dtype=torch.float64, device=rows.device)
    table = table.scatter_add(0, agent * len(names) + index, torch.ones_like(index, dtype=torch.float64))
    table = table.reshape(n, len(names))
    table = table[table.sum(1) > 0]
    each = table / table.sum(1, keepdim=True)
    return (_entropy(each.mean(0)) - _entropy(each).mean()).clamp(min=0).float()


def silhouette(features: Array, label: Array) -> Tensor:
    """How well groups separate: mean of ``(b - a) / max(a, b)`` over agents (Rousseeuw 1987).

    With a the mean distance to the others of one's group and b the smallest mean distance to another group; agents
    alone in their group count 0.

    Args:
        features: ``[N, D]`` behaviour of each agent: an embedding, action frequencies, occupied places.
        label: ``[N]`` integers; agents with a negative one are left out.

    Returns:
        Scalar in [-1, 1]: 1 for tight, distant groups, 0 on a border, negative if assigned wrongly. Euclidean; O(N^2 D)
        time in chunks of bounded memory, so use :func:`sampled_silhouette` for many agents.

    Raises:
        ValueError: If there are fewer than two groups.

    >>> round(silhouette(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([0, 0, 1, 1])).item(), 4)
    0.8997
    """
    x, group = _grouped(features, label)
    return _silhouettes(x, group, torch.arange(len(x), device=x.device)).mean().float()


def sampled_silhouette(features: Array, label: Array, samples: int, generator: torch.Generator) -> Running:
    """:func:`silhouette` of random agents, each against all others: unbiased for the mean over agents.

    ``(1 / m) sum over drawn agents of (b - a) / max(a, b)`` (Rousseeuw 1987), drawn with replacement.

    Args:
        features: ``[N, D]`` behaviour of each agent.
        label: ``[N]`` integers; agents with a negative one are left out.
        samples: Agents drawn, m; the standard error falls as ``1 / sqrt(m)``.
        generator: Draws them, on the device of ``features``.

    Returns:
        Scalar :class:`Running`: ``mean`` in [-1, 1] and its ``standard_error``. O(m N D).

    Raises:
        ValueError: If there are fewer than two groups, or no samples.

    >>> x, label = torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([0, 0, 1, 1])
    >>> round(sampled_silhouette(x, label, 1000, torch.Generator().manual_seed(0)).mean.item(), 2)
    0.9
    """
    x, group = _grouped(features, label)
    if samples < 1:
        raise ValueError(f"samples: must be at least 1, got {samples}")
    drawn = torch.randint(len(x), (samples,), generator=generator, device=x.device)
    return Running.empty(device=x.device).add(_silhouettes(x, group, drawn))


def _grouped(features: Array, label: Array) -> tuple[Tensor, Tensor]:
    """Behaviour ``[n, D]`` float64 and group ``[n]`` in 0..C-1 of the agents that count."""
    features, label = torch.as_tensor(features), _labels(label)
    if features.ndim != 2 or label.shape != features.shape[:1]:
        raise ValueError(f"silhouette: expected [N, D] and [N], got {tuple(features.shape)} and {tuple(label.shape)}")
    names, group = label[label >= 0].unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"silhouette: needs at least two groups, got {len(names)}")
    return features[label >= 0].double(), group


def _silhouettes(x: Tensor, group: Tensor, chosen: Tensor) -> Tensor:
    """``(b - a) / max(a, b)`` of the chosen agents ``[m]``."""
    member = torch.nn.functional.one_hot(group).double()
    size, mine = member.sum(0), group[chosen]
    rows = max(CHUNK // len(x), 1)
    total = torch.cat(
        [torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist") @ member for part in x[chosen].split(rows)]
    )
    own = total.gather(1, mine.unsqueeze(1)).squeeze(1) / (size[mine] - 1).clamp(min=1)
    other = (total / size).scatter(1, mine.unsqueeze(1), torch.inf).min(1).values
    widest = torch.maximum(own, other)
    return torch.where((size[mine] > 1) & (widest > 0), (other - own) / torch.where(widest > 0, widest, 1.0), 0.0)


def hierarchic_social_entropy(distance: Array) -> float:
    """Hierarchic social entropy: ``integral over h of H(groups at level h) dh`` (Balch 2000).

    At level h agents within h of each other form a group, and ``H = -sum p log2 p`` over the groups' shares. Groups are
    those of complete-linkage clustering, so that they partition the agents; Balch's own clusters may overlap. Unlike
    system neural diversity it rewards distinct kinds of behaviour: copying an agent moves it towards the copied kind
    instead of averaging distances.

    Args:
        distance: ``[n, n]`` symmetric behavioural distances, zero on the diagonal.

    Returns:
        Bits times the unit of distance, at least 0; 0 for identical agents. The integral is exact. O(n^2 log n): pass a
        sample of some thousand agents.

    Raises:
        ValueError: If the matrix is not a symmetric matrix of distances.

    >>> hierarchic_social_entropy(torch.tensor([[0.0, 3.0], [3.0, 0.0]]))
    3.0
    """
    d = as_numpy(distance)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or not np.allclose(d, d.T) or (d < 0).any() or np.diag(d).any():
        raise ValueError(f"distance: expected a symmetric [n, n] matrix, non-negative, zero diagonal; got {d.shape}")
    n = d.shape[0]
    if n < 2:
        return 0.0
    size = dict.fromkeys(range(n), 1)
    merges = hierarchy.linkage(squareform(d, checks=False), "complete")
    entropy, level, total = math.log2(n), 0.0, 0.0
    for step, (left, right, height, _) in enumerate(merges):
        total += entropy * (float(height) - level)
        level = float(height)
        a, b = size.pop(int(left)), size.pop(int(right))
        size[n + step] = a + b
        entropy += (a * math.log2(a) + b * math.log2(b) - (a + b) * math.log2(a + b)) / n
    return total


def _labels(x: Array) -> Tensor:
    x = torch.as_tensor(x)
    if x.is_floating_point() or x.ndim < 1:
        raise ValueError(f"labels: expected integers [*, N], got {x.dtype} {tuple(x.shape)}")
    return x.long()


def _rank(label: Tensor) -> Tensor:
    """Labels as small numbers, equal where labels are equal: the position of each in sorted order."""
    return torch.searchsorted(label.sort(-1).values.contiguous(), label.contiguous())


def _pairs_together(label: Tensor) -> Tensor:
    """``[*]`` pairs of equal non-negative labels: in sorted order, the sum of each one's position in its run."""
    ordered = label.sort(-1).values
    position = torch.arange(label.shape[-1], device=label.device).expand_as(ordered)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    start = torch.where(begins, position, 0).cummax(-1).values
    return torch.where(ordered >= 0, position - start, 0).sum(-1)


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(-1)
