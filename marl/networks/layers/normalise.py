"""Running normalisation of observations and of value targets, frozen while data are collected."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.spec import AgentSpec


class RunningMoments(nn.Module):
    """Mean and variance of everything seen so far, per agent group and column.

    Batches are merged by the parallel update of Chan, Golub and LeVeque (1979). With ``decay`` below one, old
    batches fade by that factor at each update, so that the moments follow a changing distribution.

    Args:
        agents: Whose groups are told apart.
        dim: Number of columns D.
        decay: Weight that the past keeps at each update, in (0, 1]; 1 forgets nothing.
    """

    group_of: Tensor
    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, agents: AgentSpec, dim: int, decay: float = 1.0) -> None:
        super().__init__()
        groups = len(agents.groups)
        self.decay = decay
        self.register_buffer("group_of", torch.from_numpy(agents.group_of).long(), persistent=False)
        self.register_buffer("mean", torch.zeros(groups, dim))
        self.register_buffer("var", torch.ones(groups, dim))
        self.register_buffer("count", torch.zeros(groups, 1))

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor) -> None:
        """Merge the entries of ``x [*, N, D]`` where ``mask [*, N]`` holds."""
        x, mask = x.flatten(0, -3), mask.flatten(0, -2)
        weight = mask.unsqueeze(-1).to(x.dtype)
        x = torch.where(mask.unsqueeze(-1), x, 0.0)
        count, total = self._per_group(weight.sum(0)), self._per_group(x.sum(0))
        mean = total / count.clamp(min=1)
        centred = torch.where(mask.unsqueeze(-1), x - mean[self.group_of], 0.0)
        spread = self._per_group(centred.square().sum(0))
        past = self.decay * self.count
        both = (past + count).clamp(min=1)
        shift = mean - self.mean
        seen = count > 0
        new_mean = self.mean + shift * count / both
        new_var = (self.var * past + spread + shift.square() * past * count / both) / both
        self.mean.copy_(torch.where(seen, new_mean, self.mean))
        self.var.copy_(torch.where(seen, new_var, self.var))
        self.count.copy_(torch.where(seen, past + count, self.count))

    def _per_group(self, x: Tensor) -> Tensor:
        """Sum ``[N, D]`` over the agents of each group."""
        return x.new_zeros(self.mean.shape[0], x.shape[-1]).index_add_(0, self.group_of, x)

    def scale(self) -> Tensor:
        """``[N, D]`` standard deviations."""
        return self.var.clamp(min=1e-8).sqrt()[self.group_of]

    def normalise(self, x: Tensor, limit: float | None = 10.0) -> Tensor:
        """``(x - mean) / std`` of ``x [*, N, D]``, clipped to ``limit`` standard deviations unless that is None."""
        scaled = (x - self.mean[self.group_of]) / self.scale()
        return scaled if limit is None else scaled.clamp(-limit, limit)

    def denormalise(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`normalise`, without the clipping."""
        return x * self.scale() + self.mean[self.group_of]
