"""LoRA (arXiv 2106.09685) on the query and value projections, as arXiv 2307.16867 uses it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.lowrank import pair
from petl_bench.sites import Sites


@dataclass(frozen=True)
class LoRAConfig:
    dropout: float = 0.1
    """Dropout between down(x) and up."""


class LowRankUpdate(nn.Module):
    """x -> scale * up(dropout(down(x))); no alpha / rank factor."""

    def __init__(self, down: nn.Linear, up: nn.Linear, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) in and out."""
        update: Tensor = self.up(self.dropout(self.down(x)))
        return self.scale * update


class QueryValueLoRA(nn.Module):
    """The frozen qkv projection plus low-rank updates of its q and v slices."""

    def __init__(self, qkv: nn.Module, query: LowRankUpdate, value: LowRankUpdate) -> None:
        super().__init__()
        self.qkv = qkv
        self.query = query
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, dim); result (batch, tokens, 3 * dim), q before k before v."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return torch.cat([q + self.query(x), k, v + self.value(x)], dim=-1)


@adapter("lora", config=LoRAConfig)
def attach(sites: Sites, shape: Shape, config: LoRAConfig) -> Attached:
    """Two pairs a block: 4 * dim * hidden weights, in the order q.down, q.up, v.down, v.up."""
    attached = Attached()
    for index, block in enumerate(sites.blocks):
        slot, updates = block.linears["qkv"], []
        for role in ("q", "v"):
            down, up = pair(block.dim, shape.hidden, block.dim, shape.quantized)
            updates.append(LowRankUpdate(down, up, shape.scale, config.dropout))
            attached.matrices.update({f"{index}.{role}.down": down, f"{index}.{role}.up": up})
        slot.set(QueryValueLoRA(slot.get(), *updates))
    return attached
