"""Multi-layer perceptrons over agents, under any sharing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from envs.base import View
from marl.networks.layers.sharing import LayerNorm, Linear, Sharing, relu_gain


class _Tanh(torch.autograd.Function):
    """``tanh(x) = 2 sigmoid(2 x) - 1``, in place: on a CPU 0.26 ms for 9,600 x 64 numbers, ``tanh_`` takes 1.35."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        y = x.mul_(2).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> Tensor:
        return torch.ops.aten.tanh_backward(grad_outputs[0], *ctx.saved_tensors)


def tanh_(x: Tensor) -> Tensor:
    """Hyperbolic tangent in place, by the fastest way on the device of ``x``; absolute error below 2e-7 in float32."""
    return _Tanh.apply(x) if x.device.type == "cpu" else torch.tanh_(x)  # type: ignore[return-value]


# in place where the gradient needs the result alone: one buffer less a layer
ACTIVATIONS = {"relu": torch.relu_, "tanh": tanh_, "silu": nn.functional.silu}


class MLP(nn.Module):
    """Layers ``activation(W x)`` for each agent: ``[*, N, in] -> [*, N, hidden[-1]]``; the links are not used.

    Args:
        in_dim: Input width.
        hidden: Widths of the layers.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
        layer_norm: Whether each layer's sum is normalised before its activation.
        first: Who uses which weights of the first layer; None for ``sharing``.
    """

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        sharing: Sharing,
        generator: torch.Generator,
        activation: str = "tanh",
        layer_norm: bool = False,
        first: Sharing | None = None,
    ) -> None:
        super().__init__()
        widths = [in_dim, *hidden]
        gain = relu_gain(activation)
        pairs = list(pairwise(widths))
        who = [first or sharing, *(sharing for _ in pairs[1:])]
        self.layers = nn.ModuleList(Linear(i, o, w, generator, gain) for (i, o), w in zip(pairs, who, strict=True))
        self.norms = nn.ModuleList(
            LayerNorm(o, w) if layer_norm else nn.Identity() for (_, o), w in zip(pairs, who, strict=True)
        )
        self.activation = ACTIVATIONS[activation]
        self.out_dim = widths[-1]

    def forward(self, x: Tensor, view: View | None = None) -> Tensor:
        """Encode ``x [*, N, in]`` agent by agent."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.activation(norm(layer(x)))
        return x
