"""DyLoRA (Valipour et al. 2023, arXiv 2210.07558): a LoRA that may be cut to any rank once it is trained.

    y + (s / b) * up[:, :b] dropout(down[:b] x),  on q and v

In training b is drawn evenly from 1 to R (hidden) for each pass, one for all blocks; all ranks up to b learn.
In evaluation b is what is kept. The source's factor is alpha / b, on language models; q and v of a vision
transformer, with s for alpha, are a translation (ours). So is the quantization: each rank is a pair of
matrices of its own, down.k (1, inputs) and up.k (outputs, 1), k from 0, with a mean and a deviation of its
own. A file of R ranks thus holds those of every lower rank bit by bit, at 8 bytes a rank and matrix.

A block of fewer ranks than b (another allocation than `uniform`) uses all it has, and s over their number.
Blocks without attention (ConvNeXt) have the same updates on both linears of their MLP instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import Delta, query_value
from petl_bench.adapters.lowrank import allocated, pair
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class DyLoRAConfig:
    dropout: float = 0.1
    """Dropout between down(x) and up."""
    kept: int = 0
    """The first ranks of each site, which alone are stored and evaluated; 0: all."""
    allocation: str = "uniform"
    """Ranks by depth, of one sum; see petl_bench.adapters.lowrank.ALLOCATIONS."""


class Drawn(nn.Module):
    """The number of ranks that the present training pass uses, one for all sites."""

    number: Tensor

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("number", torch.tensor(most), persistent=False)

    def draw(self, training: bool) -> None:
        """Draw anew where the pass is in training."""
        if training:
            self.number.copy_(torch.randint(1, self.most + 1, (), device=self.number.device))


class Nested(Delta):
    """(scale / b) * up[:, :b] @ down[:b], with dropout between the two.

    Args:
        pairs: down and up of each rank.
        kept: the b of evaluation.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[nn.Linear, nn.Linear]],
        drawn: Drawn,
        kept: int,
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.downs = nn.ModuleList(down for down, _ in pairs)
        self.ups = nn.ModuleList(up for _, up in pairs)
        self.drawn = drawn
        self.kept = kept
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def _down(self, ranks: int) -> Tensor:
        return torch.cat([down.weight for down in cast(Sequence[nn.Linear], self.downs[:ranks])])

    def _up(self, ranks: int) -> Tensor:
        return torch.cat([up.weight for up in cast(Sequence[nn.Linear], self.ups[:ranks])], 1)

    def product(self) -> Tensor:
        return self.scale / self.kept * (self._up(self.kept) @ self._down(self.kept))

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        ranks = len(self.downs) if self.training else self.kept
        up = self._up(ranks)
        if self.training:
            number = self.drawn.number.clamp(max=ranks)
            used = torch.arange(ranks, device=number.device) < number
            up = up * (used * (self.scale / number)).to(up.dtype)
        else:
            up = up * (self.scale / ranks)
        return base + functional.linear(self.dropout(functional.linear(x, self._down(ranks))), up)


@adapter("dylora", config=DyLoRAConfig, group="low-rank", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: DyLoRAConfig) -> Attached:
    """BLOCK.q.down.0, .1, ..., BLOCK.q.up.0, ..., then those of v: 4 * dim * hidden weights a block.

    Ranks beyond `kept` are trained too, but left out of the file.
    """
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    if not 0 <= config.kept <= max(ranks):
        raise ValueError(f"kept={config.kept} of {max(ranks)} ranks: 1 or more, or 0 for all")
    attached, drawn = Attached(), Drawn(max(ranks))

    def update(name: str, inputs: int, outputs: int, rank: int) -> Nested:
        kept = min(config.kept or rank, rank)
        pairs = []
        for k in range(rank):
            pairs.append(pair(attached, name, inputs, outputs, shape, 1, suffix=f".{k}"))
            if k >= kept:
                attached.spare.update({f"{name}.down.{k}", f"{name}.up.{k}"})
        # In the file all downs, then all ups: names that count up are short there.
        for part in ("down", "up"):
            for k in range(rank):
                attached.matrices[f"{name}.{part}.{k}"] = attached.matrices.pop(f"{name}.{part}.{k}")
        return Nested(pairs, drawn, kept, shape.scale, config.dropout)

    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        query_value(block, number, partial(update, rank=rank))
    return Attached(
        attached.matrices, initializers=attached.initializers, spare=attached.spare, each_pass=drawn.draw
    )
