"""AdaptFormer (arXiv 2205.13535), as arXiv 2307.16867 uses it: parallel to the MLP branch.

It equals `bottleneck` with placement=parallel, activation=relu and bias=false; its files are those of the
released checkpoints.
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
    """Dropout between relu(down(x)) and up."""
    share: int = 1
    """Neighbouring blocks that share one pair of matrices; 0: all blocks of one width."""
    allocation: str = "uniform"
    """Ranks by depth, of one sum; see petl_bench.adapters.lowrank.ALLOCATIONS."""


class AdaptFormerBypass(nn.Module):
    """x, z, d -> d + scale * up(dropout(relu(down(x)))).

    In a transformer x is the residual stream after attention, not normalized, and the block adds x to the
    result. The adapter stands outside drop-path.
    """

    def __init__(self, down: nn.Linear, up: nn.Linear, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """All (batch, ..., dim)."""
        update = self.up(self.dropout(self.activation(self.down(x))))
        return torch.add(d, update, alpha=self.scale)


@adapter("adaptformer", config=AdaptFormerConfig, group="additive", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: AdaptFormerConfig) -> Attached:
    """One pair a block, or a group of blocks: 2 * dim * hidden weights."""
    attached = Attached()
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    for rank, (number, block) in zip(
        ranks, grouped(sites.blocks, config.share, config.allocation), strict=True
    ):
        down, up = pair(attached, str(number), block.dim, block.dim, shape, rank)
        block.branch("mlp").join(AdaptFormerBypass(down, up, shape.scale, config.dropout))
    return attached
