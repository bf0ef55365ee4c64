"""How well agents coordinate: exact, batched functions of what they did, held and got, for reports and notebooks.

``alive [*, N]`` says which slots count; None if all do. Whatever stands in a dead slot, NaN included, changes nothing.
Where too few agents live for a number to mean anything it is NaN. Results are float32; numpy arrays are accepted.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coordination.arrays import Array
from coordination.topology.base import Topology

PAIRS = 1 << 22  # distances between agents held at once


# -- what they do ------------------------------------------------------------------------------------------------------


def action_synchrony(action: Array, num_actions: int, alive: Array | None = None) -> Tensor:
    """How often two agents choose alike: mean over pairs of ``1[a_i = a_j]``.

    From counts, ``sum_k c_k (c_k - 1) / (n (n - 1))``, in O(N + K); Simpson's concentration (1949) without replacement.

    Args:
        action: ``[*, N]`` integers in ``0..num_actions-1``.
        num_actions: Number of choices K.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` in [0, 1]: 1 where all agree, ``1 / K`` on average for independent uniform choices.

    >>> action_synchrony(torch.tensor([1, 1, 0]), 2).item() == torch.tensor(1 / 3).item()
    True
    """
    action, alive = _with_mask(action, alive)
    _in_range("action", torch.where(alive, action, 0), 0, num_actions - 1)
    ones = alive.double()
    counts = ones.new_zeros(*action.shape[:-1], num_actions)
    counts = counts.scatter_add(-1, torch.where(alive, action, 0).long(), ones)
    n = ones.sum(-1)
    return ((counts * (counts - 1)).sum(-1) / (n * (n - 1))).float()


def phase_synchrony(angle: Array, alive: Array | None = None) -> Tensor:
    """How aligned headings or phases are: ``r = |mean over agents of exp(i theta)|`` (Kuramoto 1975). O(N).

    Args:
        angle: ``[*, N]`` radians.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` in [0, 1]: 1 where all point the same way, about ``sqrt(pi / (4 n))`` for random angles.

    >>> round(phase_synchrony(torch.tensor([0.0, torch.pi / 2])).item(), 4)
    0.7071
    """
    angle, alive = _with_mask(angle, alive)
    angle = torch.where(alive, angle, 0).double()
    parts = (torch.where(alive, part, 0.0).sum(-1) for part in (angle.cos(), angle.sin()))
    return (torch.hypot(*parts) / alive.sum(-1)).float()


def team_entropy(logits: Array, alive: Array | None = None) -> Tensor:
    """Entropy of the joint action of agents that choose independently in a state: ``sum over i of H(pi_i)``.

    Shannon 1948. The joint entropy over many states is that of all actions less their :func:`total_correlation`. O(N
    K).

    Args:
        logits: ``[*, N, K]`` unnormalised log-probabilities, ``-inf`` for forbidden choices.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` nats, in ``[0, n ln K]``; 0 where nobody chooses.

    >>> round(team_entropy(torch.zeros(2, 4)).item(), 4)
    2.7726
    """
    logits, alive = _with_mask(logits, alive, trailing=1)
    log_p = torch.where(alive.unsqueeze(-1), logits, 0).double().log_softmax(-1)
    each = torch.where(log_p.isneginf(), 0.0, -log_p.exp() * log_p).sum(-1)
    return torch.where(alive, each, 0.0).sum(-1).float()


def total_correlation(action: Array, alive: Array | None = None) -> Tensor:
    """How far joint behaviour is from independent: ``sum_i H(a_i) - H(a_1, ..., a_N)`` (Watanabe 1960).

    Plug-in entropies of M samples, so biased upwards by about (joint outcomes) / (2 M): use it for few agents and many
    samples. A dead agent counts as making one choice of its own.

    O(M N log M).

    Args:
        action: ``[*, N]`` integers; all leading axes are samples.
        alive: ``[*, N]`` bool.

    Returns:
        Scalar, nats, in ``[0, sum_i H(a_i)]``: 0 if independent, ``(N - 1) ln K`` if all always choose alike, evenly
        among K.

    >>> round(total_correlation(torch.tensor([[0, 0], [1, 1]])).item(), 4)
    0.6931
    """
    action, alive = _with_mask(action, alive)
    action = torch.where(alive, action, 0)
    rows = torch.where(alive, action - action.min() + 1, 0).reshape(-1, action.shape[-1])
    joint = rows.unique(dim=0, return_counts=True)[1]
    marginals = [column.unique(return_counts=True)[1] for column in rows.unbind(-1)]
    return (sum(map(_entropy, marginals)) - _entropy(joint)).clamp(min=0).float()


def normalised_mutual_information(a: Array, b: Array, mask: Array | None = None) -> Tensor:
    """How much two variables tell of each other: ``I(a; b) / sqrt(H(a) H(b))`` (Strehl and Ghosh 2002, equation 2).

    Plug-in entropies of the samples, biased upwards for few of them; 0 where either never varies.

    O(M log M) for M samples.

    Args:
        a, b: ``[*]`` integers, sample by sample.
        mask: ``[*]`` bool: samples that count.

    Returns:
        Scalar in [0, 1]: 0 if independent, 1 if each determines the other.

    >>> normalised_mutual_information(torch.tensor([0, 1, 2]), torch.tensor([5, 3, 4])).item()
    1.0
    """
    a, mask = _with_mask(a, mask)
    pairs = torch.stack([a[mask], torch.as_tensor(b)[mask]])
    h_a, h_b = (_entropy(x.unique(return_counts=True)[1]) for x in pairs)
    shared = h_a + h_b - _entropy(pairs.unique(dim=1, return_counts=True)[1])
    scale = (h_a * h_b).sqrt()
    return torch.where(scale > 0, shared / scale, 0.0).clamp(0, 1).float()


def temporal_coherence(action: Array, alive: Array | None = None) -> Tensor:
    """How steadily agents act: mean cosine between an agent's actions at neighbouring steps.

    ``mean over steps t and agents i of cos(a_i(t), a_i(t - 1))``. O(T N A).

    Args:
        action: ``[T, *, N, A]`` over one episode; discrete actions as one-hot. A zero vector is at right angles to all.
        alive: ``[T, *, N]`` bool; pairs of steps count for agents alive at both.

    Returns:
        ``[*]`` in [-1, 1]: 1 where directions never change, -1 where they always turn round.

    >>> temporal_coherence(torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 1.0]]])).item()
    0.5
    """
    action, alive = _with_mask(action, alive, trailing=1)
    unit = F.normalize(torch.where(alive.unsqueeze(-1), action, 0).double(), dim=-1)
    both = alive[1:] & alive[:-1]
    cosine = torch.where(both, (unit[1:] * unit[:-1]).sum(-1), 0.0)
    return (cosine.sum((0, -1)) / both.sum((0, -1))).float()


# -- what they hold ----------------------------------------------------------------------------------------------------


def consensus_error(x: Array, initial: Array, alive: Array | None = None) -> Tensor:
    """What is left of an initial disagreement: ``||x - m|| / ||x_0 - m||`` with m the mean of ``x_0``.

    After k rounds of averaging with symmetric weights at most ``slem ** k`` (Xiao and Boyd 2004).

    O(N D).

    Args:
        x: ``[*, N, D]`` values now.
        initial: ``[*, N, D]`` values at the start; their mean over living agents is what should be agreed on.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]``, at least 0: 0 at consensus on the mean, 1 at the start; NaN where all agreed from the start.

    >>> consensus_error(torch.tensor([[0.5], [1.5]]), torch.tensor([[0.0], [2.0]])).item()
    0.5
    """
    x, alive = _with_mask(x, alive, trailing=1)
    now, start = (torch.where(alive.unsqueeze(-1), torch.as_tensor(v), 0).double() for v in (x, initial))
    mean = start.sum(-2, keepdim=True) / alive.sum(-1).reshape(*alive.shape[:-1], 1, 1)
    left, first = ((torch.where(alive.unsqueeze(-1), v - mean, 0.0)).square().sum((-1, -2)) for v in (now, start))
    return (left / first).sqrt().float()


def disagreement_energy(x: Array, topology: Topology, alive: Array | None = None) -> Tensor:
    """Tension on the links: ``1/2 sum over edges ||x_i - x_j||^2``, which is ``x' L x`` on an undirected graph.

    Taken over edges, so exactly 0 at consensus; O(E D) (Olfati-Saber and Murray 2004).

    Args:
        x: ``[*, N, D]``.
        topology: Whose edges count.
        alive: ``[*, N]`` bool; links at a dead agent do not count.

    Returns:
        ``[*]``, at least 0, in squared units of x; 0 iff all agree, on a connected graph.

    >>> disagreement_energy(torch.tensor([[0.0], [2.0]]), Topology([[0, 1], [1, 0]], 2)).item()
    4.0
    """
    x, alive = _with_mask(x, alive, trailing=1)
    if alive.shape[-1] != topology.num_agents:
        raise ValueError(f"x: expected [*, N, D] with N = {topology.num_agents}, got {tuple(x.shape)}")
    sender, receiver = topology.edges_on(x.device)
    both = alive[..., sender] & alive[..., receiver]
    apart = torch.where(both.unsqueeze(-1), x[..., sender, :].double() - x[..., receiver, :], 0.0)
    return (apart.square().sum((-1, -2)) / 2).float()


# -- what they get -----------------------------------------------------------------------------------------------------


def gini(x: Array, alive: Array | None = None) -> Tensor:
    """Inequality: ``sum over i, j of |x_i - x_j| / (2 n^2 mean)`` (Gini 1912), from sorted values, O(N log N).

    Args:
        x: ``[*, N]``, not negative.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` in ``[0, 1 - 1/n]``: 0 if all are equal (or all zero), ``1 - 1/n`` if one has everything.

    >>> gini(torch.tensor([1.0, 1.0, 1.0, 0.0])).item()
    0.25
    """
    x, alive = _loads(x, alive)
    n, total = alive.sum(-1), x.sum(-1)
    return torch.where(total == 0, 0.0 / n, _gaps(x, alive) / (n * total)).float()


def jain(x: Array, alive: Array | None = None) -> Tensor:
    """Fairness: ``(sum x)^2 / (n sum x^2)`` (Jain, Chiu and Hawe 1984).

    O(N).

    Args:
        x: ``[*, N]``, not negative.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` in ``[1/n, 1]``: 1 if all are equal (or all zero), ``k / n`` if k share everything evenly.

    >>> jain(torch.tensor([1.0, 1.0, 1.0, 0.0])).item()
    0.75
    """
    x, alive = _loads(x, alive)
    n = alive.sum(-1)
    squares = n * x.square().sum(-1)
    return torch.where(squares == 0, n / n, x.sum(-1).square() / squares).float()


def load_balance(x: Array, alive: Array | None = None) -> Tensor:
    """How much the busiest agent carries: ``max x / mean x``, the imbalance factor of parallel computing.

    O(N).

    Args:
        x: ``[*, N]`` loads, not negative.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` in ``[1, n]``: 1 if all are equal (or all zero), n if one carries everything.

    >>> load_balance(torch.tensor([3.0, 1.0, 2.0])).item()
    1.5
    """
    x, alive = _loads(x, alive)
    n = alive.sum(-1)
    total = x.sum(-1)
    return torch.where(total == 0, n / n, n * x.amax(-1) / total).float()


def load_variation(x: Array, alive: Array | None = None) -> Tensor:
    """How unevenly load is spread: the coefficient of variation, standard deviation over mean (Pearson 1896). O(N).

    Its square is ``1 / jain - 1``.

    Args:
        x: ``[*, N]`` loads, not negative.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` in ``[0, sqrt(n - 1)]``: 0 if all are equal (or all zero), ``sqrt(n - 1)`` if one carries everything.

    >>> load_variation(torch.tensor([1.0, 3.0])).item()
    0.5
    """
    x, alive = _loads(x, alive)
    n = alive.sum(-1)
    mean = x.sum(-1) / n
    spread = torch.where(alive, x - mean.unsqueeze(-1), 0.0).square().sum(-1) / n
    return torch.where(mean == 0, 0.0, spread.sqrt() / mean).float()


# -- how they differ ---------------------------------------------------------------------------------------------------


def gaussian_diversity(mean: Array, std: Array, alive: Array | None = None) -> Tensor:
    """System neural diversity of Gaussian policies: mean over pairs of the 2-Wasserstein distance of their actions.

    ``W2^2 = ||mu_i - mu_j||^2 + ||sigma_i - sigma_j||^2`` for diagonal covariances (Bettini, Shankar and Prorok 2025,
    JMLR, arXiv:2305.02128). All agents' policies are evaluated on the same observation; average the result over
    observations. O(N^2 A); for a population of thousands evaluate a sample of agents.

    Args:
        mean, std: ``[*, N, A]`` of every agent's action.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]``, at least 0, in units of the action: 0 iff all act alike.

    >>> gaussian_diversity(torch.tensor([[0.0], [1.0], [3.0]]), torch.ones(3, 1)).item()
    2.0
    """
    mean, alive = _with_mask(mean, alive, trailing=1)
    point = torch.where(alive.unsqueeze(-1), torch.cat([mean, torch.as_tensor(std)], -1), 0).double()
    n, agents = alive.sum(-1).double(), alive.shape[-1]
    points, there = point.reshape(-1, agents, point.shape[-1]), alive.reshape(-1, agents).double()
    step = max(PAIRS // agents**2, 1)
    sums = [
        torch.einsum("bij,bi,bj->b", torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist"), t, t)
        for p, t in zip(points.split(step), there.split(step), strict=True)
    ]
    return (torch.cat(sums).reshape(n.shape) / (n * (n - 1))).float()


def categorical_diversity(probability: Array, alive: Array | None = None) -> Tensor:
    """System neural diversity of categorical policies: mean over pairs of the total variation of their choices.

    ``TV = 1/2 sum_k |p_ik - p_jk|``, the 1-Wasserstein distance where any two choices are one apart; otherwise as
    :func:`gaussian_diversity`, of which it is the discrete counterpart. From sorted values, O(K N log N).

    After Bettini, Shankar and Prorok 2025 (arXiv:2305.02128) with the distance changed.

    Args:
        probability: ``[*, N, K]``.
        alive: ``[*, N]`` bool.

    Returns:
        ``[*]`` in [0, 1]: 0 iff all act alike, 1 iff no two agents ever choose the same.

    >>> categorical_diversity(torch.eye(3)).item()
    1.0
    """
    probability, alive = _with_mask(probability, alive, trailing=1)
    n = alive.sum(-1).double()
    gaps = _gaps(probability.transpose(-1, -2), alive.unsqueeze(-2)).sum(-1)
    return (gaps / (n * (n - 1))).float()


def _with_mask(x: Array, alive: Array | None, trailing: int = 0) -> tuple[Tensor, Tensor]:
    """``x`` as a tensor and a mask over its axes but the last ``trailing``."""
    x = torch.as_tensor(x)
    shape = x.shape[: x.ndim - trailing]
    if alive is None:
        return x, torch.ones(shape, dtype=torch.bool, device=x.device)
    alive = torch.as_tensor(alive)
    if alive.dtype != torch.bool or alive.shape != shape:
        raise ValueError(f"mask: expected bool {tuple(shape)}, got {alive.dtype} {tuple(alive.shape)}")
    return x, alive


def _loads(x: Array, alive: Array | None) -> tuple[Tensor, Tensor]:
    """Loads in float64, zero for the dead, and the mask."""
    x, alive = _with_mask(x, alive)
    x = torch.where(alive, x, 0).double()
    _in_range("x", x, 0.0, torch.inf)
    return x, alive


def _in_range(name: str, x: Tensor, low: float, high: float) -> None:
    """Refuse what lies outside; elsewhere than on a CPU the check would wait and is left out."""
    if x.device.type == "cpu" and x.numel() and not bool(((x >= low) & (x <= high)).all()):
        raise ValueError(f"{name}: expected {low}..{high}, got {x.min().item()}..{x.max().item()}")


def _entropy(counts: Tensor) -> Tensor:
    """Plug-in entropy in nats."""
    return torch.special.entr(counts.double() / counts.sum()).sum()


def _gaps(x: Tensor, alive: Tensor) -> Tensor:
    """``sum over pairs of |x_i - x_j|`` over living agents: the r-th smallest of n counts ``2 r - n + 1`` times."""
    n, rank = alive.sum(-1, keepdim=True), torch.arange(x.shape[-1], device=x.device)
    ordered = torch.where(alive, x.double(), torch.inf).sort(dim=-1).values
    return torch.where(rank < n, ordered * (2 * rank - n + 1), 0.0).sum(-1)
