"""LoRA (arXiv 2106.09685) on the query and value projections, as arXiv 2307.16867 uses it.

Blocks without attention (ConvNeXt) have the same updates on both linears of their MLP instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Mergeable, Shape, adapter
from petl_bench.adapters.lowrank import grouped, pair
from petl_bench.sites import Sites


@dataclass(frozen=True)
class LoRAConfig:
    dropout: float = 0.1
    """Dropout between down(x) and up."""
    share: int = 1
    """Neighbouring blocks that share their pairs of matrices; 0: all blocks of one width."""


class LowRankUpdate(nn.Module):
    """base, x -> base + scale * up(dropout(down(x))); no alpha / rank factor."""

    def __init__(self, down: nn.Linear, up: nn.Linear, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        """x (batch, ..., inputs); base and result (batch, ..., outputs)."""
        return torch.add(base, self.up(self.dropout(self.down(x))), alpha=self.scale)

    def product(self) -> Tensor:
        """What is added, without dropout, as one matrix (outputs, inputs)."""
        product: Tensor = self.scale * (self.up.weight @ self.down.weight)
        return product


class QueryValueLoRA(Mergeable):
    """The frozen qkv projection plus low-rank updates of its q and v slices."""

    def __init__(self, qkv: nn.Module, query: LowRankUpdate, value: LowRankUpdate) -> None:
        super().__init__()
        self.qkv = qkv
        self.query = query
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, dim); result (batch, tokens, 3 * dim), q before k before v."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return torch.cat([self.query(q, x), k, self.value(v, x)], dim=-1)

    def merged(self) -> nn.Module:
        query, value = self.query.product(), self.value.product()
        return _updated(self.qkv, torch.cat([query, torch.zeros_like(query), value]))


class LoRALinear(Mergeable):
    """A frozen linear plus a low-rank update."""

    def __init__(self, linear: nn.Module, update: LowRankUpdate) -> None:
        super().__init__()
        self.linear = linear
        self.update = update

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, ..., inputs); result (batch, ..., outputs)."""
        result: Tensor = self.update(self.linear(x), x)
        return result

    def merged(self) -> nn.Module:
        return _updated(self.linear, self.update.product())


@torch.no_grad()
def _updated(linear: nn.Module, update: Tensor) -> nn.Module:
    assert isinstance(linear, nn.Linear)
    linear.weight += update
    return linear


@adapter("lora", config=LoRAConfig, tokenwise=True)
def attach(sites: Sites, shape: Shape, config: LoRAConfig) -> Attached:
    """Two pairs a block or group of blocks: q.down, q.up, v.down, v.up; 4 * dim * hidden weights.

    On blocks without qkv fc1.down, fc1.up, fc2.down, fc2.up: 2 * (inputs + outputs of fc1) * hidden weights.
    """
    attached = Attached()

    def update(name: str, inputs: int, outputs: int) -> LowRankUpdate:
        down, up = pair(attached, name, inputs, outputs, shape)
        return LowRankUpdate(down, up, shape.scale, config.dropout)

    for number, block in grouped(sites.blocks, config.share):
        if "qkv" in block.linears:
            slot = block.linear("qkv")
            query, value = (update(f"{number}.{role}", block.dim, block.dim) for role in ("q", "v"))
            slot.set(QueryValueLoRA(slot.get(), query, value))
            continue
        for role in ("fc1", "fc2"):
            slot = block.linear(role)
            linear = slot.get()
            assert isinstance(linear, nn.Linear)
            slot.set(LoRALinear(linear, update(f"{number}.{role}", linear.in_features, linear.out_features)))
    return attached
