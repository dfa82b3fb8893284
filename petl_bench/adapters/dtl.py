"""DTL (repository heekhero/DTL): a small trunk beside the frozen blocks.

    h_0 = s * up_0 down_0 x_0,    h_i = h_(i-1) + s * up_i down_i x_i
    x_(i+1) = block_i(x_i)                  for the first blocks
    x_(i+1) = block_i(x_i) + theta(h_i)     from block `first` on

x_i (dim,) are the tokens before block i, down_i is (hidden, dim), up_i (dim, hidden), s is the fixed scale,
and theta(h) = h * sigmoid(100 h), which is nearly a ReLU. down is initialized as torch.nn.Linear, up with
zeros, or near zero below 32 bits. No gradient flows through the blocks before `first`, so that training takes
less time and memory than with adapters inside of all blocks.

Source: repository heekhero/DTL, models/vision_transformer.py, where s is 1 and the second half of the blocks
receives h. The variant DTL+ with a depthwise convolution is not here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError

STEEPNESS = 100.0
"""Factor of h within the sigmoid of theta."""


@dataclass(frozen=True)
class DTLConfig:
    first: float = 0.5
    """Part of the depth before the first block that receives h; at least 0 and below 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.first < 1:
            raise ValueError(f"first must be at least 0 and below 1, not {self.first}")


class _Trunk:
    """The sum h of one pass through the network, from block to block."""

    value: Tensor | None = None


class BesideTrunk(nn.Module):
    """A frozen block, its contribution to h, and h's contribution to its result.

    Args:
        block: block of the backbone.
        down: weight (rank, dim).
        up: weight (dim, rank).
        scale: fixed factor of the contribution to h.
        trunk: h, shared by all blocks.
        begins: whether this is the first block.
        receives: whether theta(h) is added to the block's result.
        ends: whether this is the last block.
    """

    def __init__(
        self,
        block: nn.Module,
        down: nn.Linear,
        up: nn.Linear,
        scale: float,
        trunk: _Trunk,
        begins: bool,
        receives: bool,
        ends: bool,
    ) -> None:
        super().__init__()
        self.block = block
        self.down = down
        self.up = up
        self.scale = scale
        self.trunk = trunk
        self.begins = begins
        self.receives = receives
        self.ends = ends

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens x (batch, ..., dim) to the tokens of the next block."""
        own = self.scale * self.up(self.down(x))
        before = self.trunk.value
        h = own if self.begins or before is None else before + own
        self.trunk.value = None if self.ends else h
        result: Tensor = self.block(x)
        return result + h * torch.sigmoid(STEEPNESS * h) if self.receives else result


@adapter(
    "dtl",
    description="A low-rank trunk beside the blocks that joins the later ones (DTL, heekhero/DTL).",
    config=DTLConfig,
    group="additive",
    tokenwise=True,
    unused={"float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: DTLConfig) -> Attached:
    """Attach one pair per block: 2 * dim * hidden weights and 0 floats.

    Raises:
        UserError: hidden is less than 1, or blocks differ in width or keep channels first.
    """
    dims = {block.dim for block in sites.blocks}
    if len(dims) > 1 or any(b.channels_first for block in sites.blocks for b in block.branches.values()):
        raise UserError(
            "this adapter sums the tokens of all blocks, but blocks of the backbone differ in width or keep "
            "channels first: choose another adapter or backbone"
        )
    attached, trunk, count = Attached(), _Trunk(), len(sites.blocks)
    first = math.floor(config.first * count)
    for number, block in enumerate(sites.blocks):
        matrices = pair(attached, str(number), block.dim, block.dim, shape)
        place = number == 0, number >= first, number == count - 1
        block.whole.set(BesideTrunk(block.whole.get(), *matrices, shape.scale, trunk, *place))
    return attached
