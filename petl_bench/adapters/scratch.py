"""A small convolutional network without any backbone: the control for adapters of the same size in bytes.

    x_0 = the image, averaged to side x side pixels if it has more
    x_i = relu(normalize(W_i * x_{i-1})), i = 1 ... 4
    features = mean of x_4 over its positions

W_i are 3 x 3 convolutions with 3, h, 2h and 4h input channels and h, 2h, 4h and 4h output channels, and
strides 1, 2, 2 and 2, where h is `hidden`; `normalize` gives the values of each image mean 0 and variance 1
(group normalization with one group and no parameters). Everything that is trained, stored and quantized are
the matrices W_i and the head.

An adapter that is no better than this network at the same number of bytes has not made use of its backbone.
The backbone of the run states the image size and nothing else. Initialization: He et al. 2015 (arXiv
1502.01852). The architecture is this project's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Replacement, Shape, adapter
from petl_bench.adapters.rows import at_least_one
from petl_bench.backbones.sites import Sites

KERNEL = 3
"""Height and width of all kernels."""
STRIDES = (1, 2, 2, 2)
"""Strides of the convolutions, in order."""


@dataclass(frozen=True)
class ScratchConfig:
    side: int = 32
    """Height and width in pixels that larger images are averaged to before they enter; at least 8."""

    def __post_init__(self) -> None:
        if self.side < 8:
            raise ValueError(f"side must be at least 8, not {self.side}")


class Convolution(nn.Module):
    """A convolution with the kernel of a matrix, normalized per image, and a ReLU.

    Args:
        matrix: linear with weight (outputs, inputs * 9), in the order of inputs, rows and columns.
        stride: step between two positions.
    """

    def __init__(self, matrix: nn.Linear, stride: int) -> None:
        super().__init__()
        self.matrix = matrix
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map x (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        weight = self.matrix.weight.view(self.matrix.out_features, -1, KERNEL, KERNEL)
        found = functional.conv2d(x, weight.to(x.dtype), stride=self.stride, padding=KERNEL // 2)
        return functional.relu(functional.group_norm(found, 1))


class SmallNetwork(nn.Module):
    """The network: images (batch, 3, height, width) -> logits, by the module `head`."""

    def __init__(self, convolutions: list[Convolution], side: int) -> None:
        super().__init__()
        self.side = side
        self.convolutions = nn.Sequential(*convolutions)
        self.head: nn.Module = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return what the head makes of the features (batch, 4 * hidden)."""
        larger = images.shape[-1] > self.side
        x = functional.adaptive_avg_pool2d(images, self.side) if larger else images
        logits: Tensor = self.head(self.convolutions(x).mean((2, 3)))
        return logits


def he(seed: int, name: str, shape: tuple[int, int]) -> initialization.Values:
    """Initialize from a normal distribution of variance 2 / inputs."""
    return initialization.normal(math.sqrt(2 / shape[1]))(seed, name, shape)


@adapter(
    "scratch",
    description="No backbone: a small convolutional network from nothing, the control of equal bytes.",
    config=ScratchConfig,
    group="control",
    unused={
        "scale": 1.0,
        "start": 0.0,
        "float_bits": 32,
        "train.drop_path": 0.0,
        "train.activations": "full",
    },
)
def attach(sites: Sites, shape: Shape, config: ScratchConfig) -> Attached:
    """Put a small network in place of the backbone: 234 * hidden**2 + 27 * hidden weights and 0 floats.

    Raises:
        UserError: hidden is less than 1.
    """
    h = at_least_one(shape)
    channels = (3, h, 2 * h, 4 * h, 4 * h)
    matrices = {
        f"{number}.kernel": nn.Linear(KERNEL**2 * channels[number], channels[number + 1], bias=False)
        for number in range(len(STRIDES))
    }
    convolutions = [
        Convolution(matrix, stride) for matrix, stride in zip(matrices.values(), STRIDES, strict=True)
    ]
    return Attached(
        matrices=matrices,
        initializers=dict.fromkeys(matrices, he),
        replacement=Replacement(SmallNetwork(convolutions, config.side), channels[-1]),
    )
