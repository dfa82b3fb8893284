"""RepAdapter (Luo et al. 2023, arXiv 2302.08106; repository luogen1996/RepAdapter): before qkv and fc1.

    v -> v + s * (B dropout(A v + a) + b)

with v the input of the linear, A (hidden, dim), and B in two groups: its first dim / 2 outputs see the first
half of the hidden units, the others the second half. Being linear, it merges into the linear that follows:

    W' = W (I + s B A), b' = bias + s W (B a + b), B as a block-diagonal matrix (dim, hidden)

Blocks of ConvNeXt have the one before fc1 alone: the source's other one stands before a depthwise
convolution, where it does not merge. The biases of a site, a (hidden) then b (dim), stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Mergeable, Shape, adapter
from petl_bench.adapters.delta import changed
from petl_bench.adapters.lowrank import allocated, pair
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError

GROUPS = 2


@dataclass(frozen=True)
class RepAdapterConfig:
    dropout: float = 0.1
    """Dropout between down(v) and up."""
    attention_only: bool = False
    """Before qkv alone: the source's `repattn`."""
    allocation: str = "uniform"
    """Ranks by depth, of one sum; see petl_bench.adapters.lowrank.ALLOCATIONS."""


class RepLinear(Mergeable):
    """A frozen linear behind an adapter of its input.

    Args:
        down: (hidden, dim).
        up: (dim, hidden / 2); each half of its rows is one group's.
        biases: of down and up.
    """

    def __init__(
        self,
        linear: nn.Module,
        down: nn.Linear,
        up: nn.Linear,
        biases: list[nn.Parameter],
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.down = down
        self.up = up
        self.down_bias, self.up_bias = biases
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def _up(self) -> Tensor:
        return torch.block_diag(*self.up.weight.chunk(GROUPS))

    def forward(self, v: Tensor) -> Tensor:
        """v (batch, ..., dim); result (batch, ..., outputs)."""
        hidden = self.dropout(functional.linear(v, self.down.weight, self.down_bias))
        update = functional.linear(hidden, self._up(), self.up_bias)
        result: Tensor = self.linear(torch.add(v, update, alpha=self.scale))
        return result

    def merged(self) -> nn.Module:
        assert isinstance(self.linear, nn.Linear)
        before = self.scale * self.linear.weight
        shift = self._up() @ self.down_bias + self.up_bias
        return changed(self.linear, before @ self._up() @ self.down.weight, before @ shift)


@adapter("repadapter", config=RepAdapterConfig, group="reparameterized", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: RepAdapterConfig) -> Attached:
    """1.5 * dim * hidden weights and hidden + dim floats a site; biases start at zero.

    Raises:
        UserError: hidden is odd, or attention_only where blocks have no attention.
    """
    if shape.hidden % GROUPS:
        raise UserError(f"hidden={shape.hidden}: this adapter has its hidden units in {GROUPS} equal groups")
    attached = Attached()
    ranks = [
        GROUPS * each for each in allocated(config.allocation, len(sites.blocks), shape.hidden // GROUPS)
    ]
    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        roles = ("qkv", "fc1") if "qkv" in block.linears else ("fc1",)
        for role in ("qkv",) if config.attention_only else roles:
            slot = block.linear(role)
            name = f"{number}.{role}"
            down, up = pair(attached, name, block.dim, block.dim, shape, rank, GROUPS)
            attached.initializers[f"{name}.down"] = initialization.xavier
            biases = [nn.Parameter(torch.zeros(width)) for width in (rank, block.dim)]
            attached.floats[f"{name}.bias"] = biases
            slot.set(RepLinear(slot.get(), down, up, biases, shape.scale, config.dropout))
    return attached
