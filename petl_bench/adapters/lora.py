"""LoRA (Hu et al. 2021, arXiv 2106.09685) on the query and value projections, as used in arXiv 2307.16867.

    y = W x + b + s * up @ dropout(down @ x)

W (outputs, inputs) and b (outputs,) are the frozen projection of q or v, x (inputs,) is its input, down
(hidden, inputs), up (outputs, hidden), and s is the fixed scale. There is no factor alpha / hidden.

Source: equation 3 of arXiv 2106.09685, where s is alpha / r; repository JieShibo/PETL-ViT, folder
binary_adapter, where dropout stands between the two matrices. Blocks without attention (ConvNeXt) have the
same updates on both linears of their MLP instead. That is a translation by this project, and so are `share`
and `allocation`.
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
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""
    share: int = 1
    """Number of neighboring blocks that share their matrices; 0 shares them among all blocks of one width."""
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""


@adapter(
    "lora",
    description="Low-rank updates of the query and value projections (arXiv 2106.09685).",
    config=LoRAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: LoRAConfig) -> Attached:
    """Attach two pairs per block or group of blocks: 4 * dim * hidden weights and 0 floats.

    The matrices are q.down, q.up, v.down and v.up. Blocks without qkv have fc1.down, fc1.up, fc2.down and
    fc2.up instead, with 2 * (inputs + outputs of fc1) * hidden weights.
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
