"""LoRA (arXiv 2106.09685) on the query and value projections, as arXiv 2307.16867 uses it.

Blocks without attention (ConvNeXt) have the same updates on both linears of their MLP instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import LowRank, query_value
from petl_bench.adapters.lowrank import allocated, grouped, pair
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class LoRAConfig:
    dropout: float = 0.1
    """Dropout between down(x) and up."""
    share: int = 1
    """Neighbouring blocks that share their pairs of matrices; 0: all blocks of one width."""
    allocation: str = "uniform"
    """Ranks by depth, of one sum; see petl_bench.adapters.lowrank.ALLOCATIONS."""


@adapter("lora", config=LoRAConfig, group="low-rank", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: LoRAConfig) -> Attached:
    """Two pairs a block or group of blocks: q.down, q.up, v.down, v.up; 4 * dim * hidden weights.

    On blocks without qkv fc1.down, fc1.up, fc2.down, fc2.up: 2 * (inputs + outputs of fc1) * hidden weights.
    """
    attached = Attached()

    def update(name: str, inputs: int, outputs: int, rank: int) -> LowRank:
        matrices = pair(attached, name, inputs, outputs, shape, rank)
        return LowRank(*matrices, shape.scale, config.dropout)

    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    for rank, (number, block) in zip(
        ranks, grouped(sites.blocks, config.share, config.allocation), strict=True
    ):
        query_value(block, number, partial(update, rank=rank))
    return attached
