"""AdaptFormer (Chen et al. 2022, arXiv 2205.13535) as used in arXiv 2307.16867: parallel to the MLP branch.

    y = x + mlp(x) + s * up @ dropout(relu(down @ x))

x (dim,) is a token of the residual stream before the norm of the MLP branch, mlp(x) the branch output,
down (hidden, dim), up (dim, hidden) and s the fixed scale. There are no biases, and the adapter is not
subject to drop path.

Source: repository JieShibo/PETL-ViT, folder binary_adapter, whose released checkpoints can be converted to
adapter files and back. The method equals `bottleneck` with placement=parallel, activation=relu, bias=false.
In ConvNeXt the branch is the whole block, and x is the residual stream before the depthwise convolution.
That site is a translation by this project, and so are `share` and `allocation`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.lowrank import allocated, grouped, pair
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class AdaptFormerConfig:
    dropout: float = 0.1
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""
    share: int = 1
    """Number of neighboring blocks that share their matrices; 0 shares them among all blocks of one width."""
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""


class AdaptFormerBypass(nn.Module):
    """The adapter of one branch: d + scale * up(dropout(relu(down(x)))).

    In a transformer x is the residual stream after attention, before normalization. The block adds x to the
    result. Drop path has been applied to d and is not applied to the adapter.

    Args:
        down: weight (hidden, dim).
        up: weight (dim, hidden).
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
    """

    def __init__(self, down: nn.Linear, up: nn.Linear, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """Return the branch output d plus the adapter of x; x, z, d and the result are (batch, ..., dim)."""
        update = self.up(self.dropout(self.activation(self.down(x))))
        return torch.add(d, update, alpha=self.scale)


@adapter(
    "adaptformer",
    description="Low-rank adapter parallel to the MLP branch (arXiv 2205.13535).",
    config=AdaptFormerConfig,
    group="additive",
    tokenwise=True,
    unused={"float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: AdaptFormerConfig) -> Attached:
    """Attach one pair per block or group of blocks: 2 * dim * hidden weights and 0 floats each."""
    attached = Attached()
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    for rank, (number, block) in zip(
        ranks, grouped(sites.blocks, config.share, config.allocation), strict=True
    ):
        down, up = pair(attached, str(number), block.dim, block.dim, shape, rank)
        block.branch("mlp").join(AdaptFormerBypass(down, up, shape.scale, config.dropout))
    return attached
