"""Attention over all living agents, whatever the links: an encoder of transformer blocks, and a pool of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.base import View
from marl.networks.config import AttentionConfig
from marl.networks.layers.mlp import ACTIVATIONS, MLP
from marl.networks.layers.sharing import LayerNorm, Linear, Sharing, relu_gain

MAX_ATTENDING = 1024  # every agent looks at every other: above, time and memory grow with the square


class SelfAttention(nn.Module):
    """Multi-head dot-product attention of every agent to all living ones (Vaswani et al. 2017, arXiv:1706.03762, 3.2).

    Args:
        dim: Width of input and output, divisible by ``heads``.
        heads: Number of heads.
        sharing: Who uses which weights; queries, keys and values are each agent's own.
        generator: Source of the initial weights.
    """

    def __init__(self, dim: int, heads: int, sharing: Sharing, generator: torch.Generator) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention: width {dim} must be divisible by {heads} heads")
        self.heads = heads
        self.project = Linear(dim, 3 * dim, sharing, generator, 3**0.5)  # the scale of three layers of their own
        self.out = Linear(dim, dim, sharing, generator)

    def forward(self, x: Tensor, alive: Tensor) -> Tensor:
        """Look at everyone once, ``[*, N, D] -> [*, N, D]``; the dead, ``alive [*, N]`` says, are not looked at."""
        n, d = x.shape[-2:]
        asked, key, value = (
            self.project(x).reshape(-1, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # [M, heads, N, D']
        )
        mask = None
        if alive.device.type != "cpu" or not bool(alive.all()):
            seen = alive | ~alive.any(-1, keepdim=True)  # where nobody lives, anybody: a softmax over nothing is NaN
            mask = seen.reshape(-1, 1, 1, n)
        heard = nn.functional.scaled_dot_product_attention(asked, key, value, mask)
        return self.out(heard.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + W f(V norm(x))`` (normalised first: Xiong et al. 2020, arXiv:2002.04745).

    Args:
        dim, heads, sharing, generator: As in :class:`SelfAttention`.
        activation: ``relu``, ``tanh`` or ``silu``.
    """

    def __init__(
        self, dim: int, heads: int, sharing: Sharing, generator: torch.Generator, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.before, self.between = LayerNorm(dim, sharing), LayerNorm(dim, sharing)
        self.attention = SelfAttention(dim, heads, sharing, generator)
        self.widen = Linear(dim, dim, sharing, generator, relu_gain(activation))
        self.narrow = Linear(dim, dim, sharing, generator)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, alive: Tensor) -> Tensor:
        """One round, ``[*, N, D] -> [*, N, D]``."""
        x = x + self.attention(self.before(x), alive)
        return x + self.narrow(self.activation(self.widen(self.between(x))))


class AttentionNetwork(nn.Module):
    """Encode each agent, then let all look at all: the encoder of Wen et al. (2022, arXiv:2205.14953), in any order.

    Args:
        in_dim: Input width.
        config: Width, heads and layers.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        encoders: Who uses which weights of the encoder; None for ``sharing``.

    Raises:
        ValueError: If there are more than 1,024 agents.
    """

    def __init__(
        self,
        in_dim: int,
        config: AttentionConfig,
        sharing: Sharing,
        generator: torch.Generator,
        encoders: Sharing | None = None,
    ) -> None:
        super().__init__()
        if (n := len(sharing.owner)) > MAX_ATTENDING:
            raise ValueError(
                f"attention: every agent looks at every other, N^2 of them; for up to {MAX_ATTENDING:,} agents, "
                f"got {n:,}; use a graph network (policy=graph)"
            )
        dim, kind = config.hidden, config.activation
        self.encoder = MLP(in_dim, (dim,) * config.encoder_layers, encoders or sharing, generator, kind)
        self.blocks = nn.ModuleList(Block(dim, config.heads, sharing, generator, kind) for _ in range(config.layers))
        self.norm = LayerNorm(dim, sharing)
        self.out_dim = dim

    def forward(self, x: Tensor, view: View) -> Tensor:
        """Encode ``x [*, N, in]``; the links are not used."""
        h = self.encoder(x)
        for block in self.blocks:
            h = block(h, view.alive)
        return self.norm(h)


class AttentionPool(nn.Module):
    """One weighted mean of all living agents for each head: ``[*, N, H] -> [*, 1, H]``, in O(N), of any number of them.

    ``y = sum_i softmax_i(q . K h_i) V h_i`` with one learned query q (Lee et al. 2019, arXiv:1810.00825, section 3.2),
    whose product with K is one row of weights a head. Zero where nobody lives.

    Args:
        dim: Width H, divisible by ``heads``.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        heads: Number of heads.
    """

    def __init__(self, dim: int, sharing: Sharing, generator: torch.Generator, heads: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention critic: width {dim} must be divisible by {heads} heads")
        self.heads = heads
        self.score = Linear(dim, heads, sharing, generator)
        self.value = Linear(dim, dim, sharing, generator)

    def forward(self, h: Tensor, alive: Tensor) -> Tensor:
        """Pool ``h [*, N, H]`` over the agents that live."""
        lives = alive.unsqueeze(-1)
        score = torch.where(lives, self.score(h), torch.finfo(h.dtype).min)
        weight = torch.where(lives, score.softmax(-2), 0.0).unsqueeze(-1)  # [*, N, heads, 1]
        value = torch.where(lives, self.value(h), 0.0).unflatten(-1, (self.heads, -1))
        return (weight * value).sum(-3, keepdim=True).flatten(-2)
