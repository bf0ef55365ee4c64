"""Parameter sharing: which weights each agent uses, as a property of every layer and of no algorithm.

``all`` agents use one set, each ``group`` its own, ``none`` share (every agent its own), or an explicit list says who
uses which. Sets are stacked in one tensor ``[P, in, out]`` and applied by batched products, never by N modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from envs.spec import AgentSpec

Mode = Literal["all", "group", "none", "explicit"]


class Sharing:
    """Assignment of agents to P sets of weights.

    Args:
        owner: For each agent, the number of the set it uses, 0..P-1, every set used at least once.
        mode: How the assignment came about; ``all`` and ``group`` run on slices of the agent axis.
    """

    def __init__(self, owner: Sequence[int], mode: Mode) -> None:
        self.owner, self.mode = tuple(int(o) for o in owner), mode
        self.copies = max(self.owner) + 1
        if sorted(set(self.owner)) != list(range(self.copies)):
            raise ValueError(f"sharing: sets must be numbered 0..P-1 without gaps, got {sorted(set(self.owner))}")
        counts = torch.bincount(torch.tensor(self.owner)).tolist()
        self.slices: list[slice] | None = None
        if mode in ("all", "group"):
            stops = torch.tensor(counts).cumsum(0).tolist()
            self.slices = [slice(stop - count, stop) for stop, count in zip(stops, counts, strict=True)]
        self._capacity = max(counts)
        self._index: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, sharing: str | Sequence[int], agents: AgentSpec) -> Sharing:
        """The assignment for these agents: ``all | group | none``, or a list with one number per agent.

        Raises:
            ValueError: If the name is unknown or the list has the wrong length.
        """
        n = agents.num_agents
        if sharing == "all":
            return cls([0] * n, "all")
        if sharing == "group":
            return cls(agents.group_of.tolist(), "group")
        if sharing == "none":
            return cls(range(n), "none")
        if isinstance(sharing, str):
            raise ValueError(f"sharing: expected all, group, none or a list of numbers, got {sharing!r}")
        if len(sharing) != n:
            raise ValueError(f"sharing: expected {n} numbers, one per agent, got {len(sharing)}")
        return cls(sharing, "explicit")

    def part(self, agents: slice) -> Sharing:
        """The assignment among a slice of the agents, its sets numbered anew."""
        owner = self.owner[agents]
        number = {p: i for i, p in enumerate(dict.fromkeys(owner))}
        mode = "all" if len(number) == 1 else "none" if len(number) == len(owner) else "explicit"
        return Sharing([number[p] for p in owner], mode)

    def gathered(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Slots by set ``[P * C]`` (padded by repeating agent 0) and each agent's place among them ``[N]``."""
        if device not in self._index:
            slots, place, filled = [[0] * self._capacity for _ in range(self.copies)], [], [0] * self.copies
            for agent, p in enumerate(self.owner):
                slots[p][filled[p]] = agent
                place.append(p * self._capacity + filled[p])
                filled[p] += 1
            self._index[device] = torch.tensor(slots, device=device).flatten(), torch.tensor(place, device=device)
        return self._index[device]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Each agent's affine map: ``x [*, N, in]``, ``weight [P, in, out]``, ``bias [P, out]`` to ``[*, N, out]``."""
        if self.mode == "all":
            return torch.addmm(bias[0], x.reshape(-1, x.shape[-1]), weight[0]).reshape(*x.shape[:-1], weight.shape[-1])
        if self.slices is not None:
            pieces = [x[..., s, :] @ weight[p] + bias[p] for p, s in enumerate(self.slices)]
            return torch.cat(pieces, -2)
        rows = x.reshape(-1, len(self.owner), x.shape[-1]).transpose(0, 1)  # [N, M, in]
        if self.mode == "none":
            y = torch.baddbmm(bias.unsqueeze(1), rows, weight)
        else:
            slots, place = self.gathered(x.device)
            blocks = rows[slots].reshape(self.copies, -1, x.shape[-1])  # [P, C * M, in]
            y = torch.baddbmm(bias.unsqueeze(1), blocks, weight).reshape(slots.numel(), rows.shape[1], -1)[place]
        return y.transpose(0, 1).reshape(*x.shape[:-1], weight.shape[-1])


class Linear(nn.Module):
    """An affine layer over agents under a sharing: ``[*, N, in] -> [*, N, out]``.

    Weights start orthogonal (Saxe et al. 2014, arXiv:1312.6120) with the given gain, biases at zero.

    Args:
        in_dim, out_dim: Widths.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        gain: Scale of the initial weights; small gains on a last layer start a policy near uniform.
    """

    def __init__(
        self, in_dim: int, out_dim: int, sharing: Sharing, generator: torch.Generator, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.sharing = sharing
        self.weight = nn.Parameter(orthogonal(sharing.copies, in_dim, out_dim, gain, generator))
        self.bias = nn.Parameter(torch.zeros(sharing.copies, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each agent's weights to ``x [*, N, in]``."""
        return self.sharing.linear(x, self.weight, self.bias)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450) under a sharing: scale and shift for each set of weights.

    Args:
        dim: Width of input and output.
        sharing: Who uses which scale and shift.
    """

    owner: Tensor

    def __init__(self, dim: int, sharing: Sharing) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.ones(sharing.copies, dim))
        self.bias = nn.Parameter(torch.zeros(sharing.copies, dim))
        self.one = sharing.mode == "all"
        self.register_buffer("owner", torch.tensor(sharing.owner), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x [*, N, D]``."""
        if self.one:
            return nn.functional.layer_norm(x, (self.dim,), self.weight[0], self.bias[0])
        return nn.functional.layer_norm(x, (self.dim,)) * self.weight[self.owner] + self.bias[self.owner]


def orthogonal(copies: int, in_dim: int, out_dim: int, gain: float, generator: torch.Generator) -> Tensor:
    """``copies`` independent (semi-)orthogonal matrices ``[P, in, out]`` times ``gain``."""
    tall, thin = max(in_dim, out_dim), min(in_dim, out_dim)
    q, r = torch.linalg.qr(torch.randn(copies, tall, thin, generator=generator))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # uniform over orthogonal matrices
    return gain * (q if in_dim >= out_dim else q.transpose(-2, -1)).contiguous()


def relu_gain(activation: str) -> float:
    """Initial gain that keeps the scale of activations through ``relu`` or ``tanh`` layers."""
    return math.sqrt(2.0) if activation == "relu" else 5.0 / 3.0
