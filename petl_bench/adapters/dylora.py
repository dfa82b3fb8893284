"""DyLoRA (Valipour et al. 2023, arXiv 2210.07558): a LoRA that can be truncated to any rank after training.

    y = W x + bias + (s / b) * up[:, :b] @ dropout(down[:b] @ x)    on q and v

W (outputs, inputs) and bias (outputs,) are frozen, down (R, inputs), up (outputs, R), R is hidden, and s is
the fixed scale. In training b is drawn uniformly from 1 to R for each pass, once for all blocks, and all
ranks up to b are trained. In evaluation b is the number of ranks that are kept.

Translations by this project: the source has language models and the factor alpha / b. Here the sites are q
and v of a vision transformer, and s stands for alpha. For quantization, each rank k from 0 is a pair of
matrices down.k (1, inputs) and up.k (outputs, 1) with a mean and a standard deviation of its own, 8 bytes per
matrix. A file of R ranks therefore contains the files of all lower ranks bit by bit.

A block with fewer ranks than b (with an allocation other than `uniform`) uses all of them, and divides s by
their number. Blocks without attention (ConvNeXt) have the same updates on both linears of their MLP instead.
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
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""
    kept: int = 0
    """Number of ranks of each site that are stored and evaluated, from the first; 0 keeps all."""
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""


class Drawn(nn.Module):
    """The number of ranks that the current training pass uses, shared by all sites.

    Args:
        most: largest number of ranks.
    """

    number: Tensor

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("number", torch.tensor(most), persistent=False)

    def draw(self, training: bool) -> None:
        """Draw a new number of ranks if the pass is in training mode."""
        if training:
            self.number.copy_(torch.randint(1, self.most + 1, (), device=self.number.device))


class Nested(Delta):
    """The update (scale / b) * up[:, :b] @ down[:b], with dropout between the two matrices.

    Args:
        pairs: down (1, inputs) and up (outputs, 1) of each rank.
        drawn: the number of ranks b of the current training pass.
        kept: the number of ranks b in evaluation.
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
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


@adapter(
    "dylora",
    description="LoRA trained at every rank up to hidden and truncatable to each (DyLoRA, arXiv 2210.07558).",
    config=DyLoRAConfig,
    group="low-rank",
    tokenwise=True,
    nested="kept",
    unused={"float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: DyLoRAConfig) -> Attached:
    """Attach the pairs of all ranks on q and v: 4 * dim * hidden weights per block and 0 floats.

    The matrices are BLOCK.q.down.0, BLOCK.q.down.1, ..., BLOCK.q.up.0, ..., then those of v. Ranks beyond
    `kept` are trained, but not stored.
    """
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    if not 0 <= config.kept <= max(ranks):
        raise ValueError(f"kept={config.kept} of {max(ranks)} ranks is out of range: 0 keeps all of them")
    attached, drawn = Attached(), Drawn(max(ranks))

    def update(name: str, inputs: int, outputs: int, rank: int) -> Nested:
        kept = min(config.kept or rank, rank)
        pairs = []
        for k in range(rank):
            pairs.append(pair(attached, name, inputs, outputs, shape, 1, suffix=f".{k}"))
            if k >= kept:
                attached.spare.update({f"{name}.down.{k}", f"{name}.up.{k}"})
        # The file has all downs before all ups, because runs of numbered names take few bytes there.
        for part in ("down", "up"):
            for k in range(rank):
                attached.matrices[f"{name}.{part}.{k}"] = attached.matrices.pop(f"{name}.{part}.{k}")
        return Nested(pairs, drawn, kept, shape.scale, config.dropout)

    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        query_value(block, number, partial(update, rank=rank))
    return Attached(
        attached.matrices, initializers=attached.initializers, spare=attached.spare, each_pass=drawn.draw
    )
