"""Running means, variances and standard errors: streams of numbers summed up in constant memory, in float64.

A :class:`Running` is a struct, so it can be stacked, moved and checkpointed like everything else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coordination import tree
from coordination.arrays import Array


@tree.struct
class Running:
    """Count, mean and sum of squared deviations of what has been seen.

    Attributes:
        count: ``[*]`` float64 numbers seen.
        mean: ``[*]`` float64; 0 before the first.
        squares: ``[*]`` float64 sum of squared deviations from the mean.

    >>> running = Running.empty().add(torch.tensor([1.0, 2.0, 3.0])).add(torch.tensor([6.0]))
    >>> running.mean.item(), running.variance.item()
    (3.0, 4.666666666666667)
    """

    count: Tensor = tree.axes("")
    mean: Tensor = tree.axes("")
    squares: Tensor = tree.axes("")

    @classmethod
    def empty(cls, shape: tuple[int, ...] = (), device: torch.device | str = "cpu") -> Running:
        """Nothing seen yet, for ``shape`` streams side by side."""
        zeros = torch.zeros(shape, dtype=torch.float64, device=device)
        return cls(zeros, zeros, zeros)

    def add(self, x: Array, mask: Array | None = None) -> Running:
        """Also seen: ``x [S..., *]``, numbers of every stream along any leading axes; masked ones never happened.

        Args:
            x: ``[S..., *]`` real numbers or bools; what stands where the mask is False does not matter.
            mask: Bool, of the shape of ``x`` or of its leading axes; None for all.

        Raises:
            ValueError: If the last axes of ``x`` are not those of the streams.
        """
        x = torch.as_tensor(x).to(self.mean)
        streams = self.mean.shape
        if x.ndim < len(streams) or x.shape[x.ndim - len(streams) :] != streams:
            raise ValueError(f"x: expected any leading axes and then {tuple(streams)}, got {tuple(x.shape)}")
        keep = torch.ones_like(x, dtype=torch.bool)
        if mask is not None:
            given = torch.as_tensor(mask, device=x.device)
            if given.shape != x.shape[: given.ndim]:
                raise ValueError(f"mask: expected leading axes of {tuple(x.shape)}, got {tuple(given.shape)}")
            keep = given.reshape((*given.shape, *[1] * (x.ndim - given.ndim))).expand(x.shape)
        x, keep = x.reshape((-1, *streams)), keep.reshape((-1, *streams))
        count = keep.sum(0).to(self.mean)
        mean = torch.where(keep, x, 0.0).sum(0) / count.clamp(min=1)
        squares = torch.where(keep, x - mean, 0.0).square().sum(0)
        return self.merge(Running(count, mean, squares))

    def merge(self, other: Running) -> Running:
        """Both streams as one, in any order (Chan, Golub and LeVeque 1983, equation 2.1)."""
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        gap = other.mean - self.mean
        return Running(count, self.mean + gap * share, self.squares + other.squares + gap.square() * self.count * share)

    @property
    def variance(self) -> Tensor:
        """``[*]`` unbiased variance; NaN below two numbers."""
        return torch.where(self.count > 1, self.squares / (self.count - 1).clamp(min=1), torch.nan)

    @property
    def standard_error(self) -> Tensor:
        """``[*]`` standard error of the mean of independent numbers, ``sqrt(variance / count)``; NaN below two."""
        return (self.variance / self.count.clamp(min=1)).sqrt()


def pair_sample(num_agents: int, pairs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Unordered pairs of different agents, drawn evenly and independently with replacement.

    A mean over them is an unbiased estimate of the mean over all ``N (N - 1) / 2`` pairs, whose standard error falls as
    ``1 / sqrt(pairs)``.

    O(P).

    Args:
        num_agents: Number of agents N, at least 2.
        pairs: How many.
        generator: Source of randomness; the pairs are on its device.

    Returns:
        Two ``[P]`` int64 tensors, the first smaller.

    Raises:
        ValueError: With fewer than two agents, or no pairs.

    >>> [x.tolist() for x in pair_sample(2, 3, torch.Generator())]
    [[0, 0, 0], [1, 1, 1]]
    """
    if num_agents < 2 or pairs < 1:
        raise ValueError(f"pair_sample: needs at least 2 agents and 1 pair, got {num_agents} and {pairs}")
    device = generator.device
    first = torch.randint(num_agents, (pairs,), generator=generator, device=device)
    step = torch.randint(1, num_agents, (pairs,), generator=generator, device=device)
    second = (first + step) % num_agents
    return torch.minimum(first, second), torch.maximum(first, second)


def interval(running: Running, z: float = 1.959964) -> tuple[Tensor, Tensor]:
    """Normal confidence interval of a mean, ``mean -+ z standard errors``; 95% by default.

    O(1) for each stream.

    >>> low, high = interval(Running.empty().add(torch.tensor([1.0, 3.0])), z=2.0)
    >>> low.item(), high.item()
    (0.0, 4.0)
    """
    return running.mean - z * running.standard_error, running.mean + z * running.standard_error
