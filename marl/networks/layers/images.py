"""Images to features: a small convolutional network for each group of agents, under any sharing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl.networks.config import ImageConfig
from marl.networks.layers.sharing import Linear, Sharing, orthogonal, relu_gain

LARGE = 36  # shorter side, in pixels, that the kernels and strides of Mnih et al. need
LARGE_KERNELS, LARGE_STRIDES = (8, 4, 3), (4, 2, 1)
SMALL_KERNEL, SMALL_STRIDE = 3, 1


class ImageEncoder(nn.Module):
    """Convolutions, each followed by a rectifier, then one layer over what is left: ``[*, n, H * W * C] -> [*, n, F]``.

    From 36 pixels up kernels and strides are those of Mnih et al. (2015, doi:10.1038/nature14236), below them 3 and 1,
    unless the configuration says others; a kernel is cut down to what is left of the image.

    Args:
        shape: Height, width and channels.
        config: Channels, kernels, strides and number of features F.
        sharing: Who of these n agents uses which weights.
        generator: Source of the initial weights.
    """

    owner: Tensor

    def __init__(
        self, shape: tuple[int, int, int], config: ImageConfig, sharing: Sharing, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.sets = shape, sharing.copies
        self.register_buffer("owner", torch.tensor(sharing.owner), persistent=False)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        height, width, channels = shape
        kernels, self.strides = _windows(config, min(height, width))
        gain = relu_gain("relu")
        for made, kernel, stride in zip(config.channels, kernels, self.strides, strict=True):
            window = min(kernel, height), min(kernel, width)
            weight = orthogonal(self.sets, channels * window[0] * window[1], made, gain, generator)
            self.weights.append(weight.mT.reshape(self.sets, made, channels, *window).clone())
            self.biases.append(torch.zeros(self.sets, made))
            height, width = (height - window[0]) // stride + 1, (width - window[1]) // stride + 1
            channels = made
        self.read = Linear(channels * height * width, config.features, sharing, generator, gain)
        self.out_dim = config.features

    def forward(self, x: Tensor) -> Tensor:
        """Encode flat images ``x [*, n, H * W * C]``, numbers of the order of one."""
        *lead, n, _ = x.shape
        one = self.sets == 1
        pixels = x.reshape(-1, 1 if one else n, *self.shape).permute(0, 1, 4, 2, 3)
        h, groups = pixels.flatten(1, 2), 1 if one else n
        for weight, bias, stride in zip(self.weights, self.biases, self.strides, strict=True):
            w, b = (weight[0], bias[0]) if one else (weight[self.owner].flatten(0, 1), bias[self.owner].flatten())
            h = torch.relu_(nn.functional.conv2d(h, w, b, stride, groups=groups))
        return torch.relu_(self.read(h.reshape(*lead, n, -1)))


def _windows(config: ImageConfig, side: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kernels and strides for images of which the shorter side is ``side``."""
    count, large = len(config.channels), side >= LARGE and len(config.channels) == len(LARGE_KERNELS)
    kernels = config.kernel or (LARGE_KERNELS if large else (SMALL_KERNEL,) * count)
    return kernels, config.stride or (LARGE_STRIDES if large else (SMALL_STRIDE,) * count)
