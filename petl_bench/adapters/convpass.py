"""Convpass (Jie and Deng 2022, arXiv 2207.07039): convolutional bypasses of the branches of a block.

    y = d + s * DP(P(z))
    P(z) = up @ dropout(q(conv(q(down @ z + a)) + b)) + c

z (dim,) is the normalized residual stream at a token (in ConvNeXt the output of the depthwise convolution), d
(dim,) the branch output, down (hidden, dim), up (dim, hidden), conv a 3 x 3 convolution with kernel (hidden,
hidden, 3, 3), a and b (hidden,), c (dim,), q quick GELU and s the fixed scale. The convolution runs over the
grid of patches, padded with zeros. The class token, and other tokens before the patches, are treated as
images of one pixel, which only the center of the kernel sees. DP is the drop path of the block, drawn
independently of that of the branch.

Source: repository JieShibo/PETL-ViT, folder convpass. In Swin the grid is that of the whole image, before it
is shifted and partitioned into windows. The site in ConvNeXt is a translation by this project.
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
"""Number of entries of a 3 x 3 kernel."""


@dataclass(frozen=True)
class ConvpassConfig:
    sites: str = "both"
    """Branches that get a bypass: attention, mlp, or both (all branches of a block)."""
    conv: str = "xavier"
    """Initializer of the convolution: xavier, or identity (ones at the center); the source chooses by
    task."""
    dropout: float = 0.1
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""


class Convpass(nn.Module):
    """The bypass of one branch: d + scale * DP(P(z)).

    Args:
        down: weight (hidden, dim).
        conv: weight (hidden, hidden * 9), the kernel (hidden, hidden, 3, 3) as a matrix.
        up: weight (dim, hidden).
        layout: places of the tokens in the image.
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
        rate: rate of the drop path of the block.
    """

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
        """Return the branch output d plus the bypass of z; x, z, d and the result are (batch, ..., dim)."""
        hidden = quick_gelu(functional.linear(z, self.down.weight, self.down_bias))
        hidden = self.dropout(quick_gelu(self.convolved(hidden)))
        update = functional.linear(hidden, self.up.weight, self.up_bias)
        return torch.add(d, drop_path(update, self.rate, self.training), alpha=self.scale)

    def convolved(self, tokens: Tensor) -> Tensor:
        """Convolve patches with their neighbors, and other tokens alone.

        Args:
            tokens: (batch, ..., hidden).

        Returns:
            Convolved tokens with bias, of the same shape.
        """
        shape = tokens.shape
        if self.layout.grid is None and tokens.ndim == 3:  # the MLP branch of Swin: images are square
            tokens = tokens.unflatten(1, (math.isqrt(shape[1]), -1))
        prefix, patches = self.layout.split(tokens)
        kernel = self.conv.weight.view(len(self.conv_bias), -1, 3, 3)
        patches = functional.conv2d(patches.permute(0, 3, 1, 2), kernel, self.conv_bias, padding=1)
        patches = patches.permute(0, 2, 3, 1)
        if prefix is not None:
            prefix = functional.linear(prefix, kernel.flatten(2)[..., TAPS // 2], self.conv_bias)
        return self.layout.join(prefix, patches).reshape(shape)


@adapter(
    "convpass",
    description="Convolutional bypasses of both branches (arXiv 2207.07039).",
    config=ConvpassConfig,
    group="additive",
)
def attach(sites: Sites, shape: Shape, config: ConvpassConfig) -> Attached:
    """Attach one bypass per chosen branch: 2 * dim * hidden + 9 * hidden**2 weights.

    Each bypass has dim + 2 * hidden floats, its biases. A convolution is stored as the matrix
    (hidden, hidden * 9) of its kernel. `down` is initialized by Xavier's uniform rule, `up` with zeros, or
    near zero below 32 bits, and biases with zeros.
    """
    attached = Attached()
    for number, block in enumerate(sites.blocks):
        for role, branch in joined(block, config.sites).items():
            name = f"{number}.{role}"
            down, up = pair(attached, name, block.dim, block.dim, shape)
            conv = nn.Linear(TAPS * shape.hidden, shape.hidden, bias=False)
            attached.matrices.pop(f"{name}.up")  # matrices are stored in the order of use
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
        # Xavier's rule for a kernel counts 9 * hidden inputs and 9 * hidden outputs.
        return initialization.uniform(math.sqrt(6 / (2 * TAPS * shape.hidden)))
    kernel = np.zeros((shape.hidden, shape.hidden, TAPS), np.float32)
    kernel[:, :, TAPS // 2] = np.eye(shape.hidden)
    return initialization.given(kernel)
