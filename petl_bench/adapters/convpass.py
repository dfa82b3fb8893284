"""Convpass (Jie and Deng 2022, arXiv 2207.07039; JieShibo/PETL-ViT): convolutional bypasses of the branches.

    d + s * DP(P(z))       P(z) = up @ dropout(q(conv(q(down @ z + a)) + b)) + c

z is the normalized stream (in ConvNeXt what the depthwise convolution gives), q quick GELU, conv 3x3 over the
grid of patches, padded by zeros; the class token and others before the patches are maps of one pixel each,
which meet the centre tap alone. DP is the block's drop path, drawn anew. In Swin the grid is the whole
image's, before it is shifted and cut into windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from timm.layers import drop_path
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import joined, one_of, quick_gelu
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import Sites, TokenGrid

TAPS = 9


@dataclass(frozen=True)
class ConvpassConfig:
    sites: str = "both"
    """Branches with a bypass: both (all that a block has), attention or mlp."""
    conv: str = "xavier"
    """Start of the convolution: xavier, or identity (ones in the centre); by task in the source."""
    dropout: float = 0.1
    """Before up."""


class Convpass(nn.Module):
    """x, z, d -> d + scale * DP(P(z))."""

    def __init__(
        self,
        down: nn.Linear,
        conv: nn.Linear,
        up: nn.Linear,
        layout: TokenGrid,
        scale: float,
        dropout: float,
        rate: float,
    ) -> None:
        super().__init__()
        hidden = down.out_features
        self.down = down
        self.conv = conv
        self.up = up
        self.down_bias, self.conv_bias, self.up_bias = (
            nn.Parameter(torch.zeros(size)) for size in (hidden, hidden, up.out_features)
        )
        self.layout = layout
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.rate = rate

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """All (batch, ..., dim)."""
        hidden = quick_gelu(functional.linear(z, self.down.weight, self.down_bias))
        hidden = self.dropout(quick_gelu(self.convolved(hidden)))
        update = functional.linear(hidden, self.up.weight, self.up_bias)
        return torch.add(d, drop_path(update, self.rate, self.training), alpha=self.scale)

    def convolved(self, tokens: Tensor) -> Tensor:
        """(batch, ..., hidden) in and out: patches with their neighbours, other tokens by themselves."""
        shape = tokens.shape
        if self.layout.grid is None and tokens.ndim == 3:  # the MLP branch of Swin: images are square
            tokens = tokens.unflatten(1, (math.isqrt(shape[1]), -1))
        prefix, patches = self.layout.split(tokens)
        kernel = self.conv.weight.view(len(self.conv_bias), -1, 3, 3)
        patches = functional.conv2d(patches.permute(0, 3, 1, 2), kernel, self.conv_bias, padding=1)
        patches = patches.permute(0, 2, 3, 1)
        if prefix is not None:
            prefix = functional.linear(prefix, kernel[:, :, 1, 1], self.conv_bias)
        return self.layout.join(prefix, patches).reshape(shape)


@adapter("convpass", config=ConvpassConfig, group="additive")
def attach(sites: Sites, shape: Shape, config: ConvpassConfig) -> Attached:
    """A branch: 2 * dim * hidden + 9 * hidden^2 weights, dim + 2 * hidden floats (biases).

    A convolution is the matrix (hidden, hidden * 9) of its kernel (hidden, hidden, 3, 3).
    """
    attached = Attached()
    for number, block in enumerate(sites.blocks):
        for role, branch in joined(block, config.sites).items():
            name = f"{number}.{role}"
            down, up = pair(attached, name, block.dim, block.dim, shape)
            conv = nn.Linear(TAPS * shape.hidden, shape.hidden, bias=False)
            attached.matrices.pop(f"{name}.up")  # in the order of use
            attached.matrices.update({f"{name}.conv": conv, f"{name}.up": up})
            attached.initializers.update(
                {f"{name}.down": initialization.xavier, f"{name}.conv": _start(config.conv, shape)}
            )
            rate = getattr(branch.last.get(), "drop_prob", 0.0)
            module = Convpass(down, conv, up, sites.layout, shape.scale, config.dropout, rate)
            biases = [module.down_bias, module.conv_bias, module.up_bias]
            attached.floats.setdefault("biases", []).extend(biases)
            branch.join(module)
    return attached


def _start(kind: str, shape: Shape) -> initialization.Initializer:
    if one_of("conv", kind, ("xavier", "identity")) == "xavier":
        # Of a kernel: 9 * hidden inputs and as many outputs.
        return initialization.uniform(math.sqrt(6 / (2 * TAPS * shape.hidden)))
    kernel = np.zeros((shape.hidden, shape.hidden, TAPS), np.float32)
    kernel[:, :, TAPS // 2] = np.eye(shape.hidden)
    return initialization.given(kernel)
