"""Visual prompt tuning (Jia et al. 2022, arXiv 2203.12119; KMnP/vpt): trained tokens in a vision transformer.

vpt_shallow   P (hidden, dim) joins the tokens before the first block and goes with them through all.
vpt_deep      each block has a P of its own, in the place of what the one before has made of its prompts.

Prompts stand after the class token (and others before the patches) and have no position. They leave after the
last block, so that norm and head have the tokens they know. `hidden` is the number of prompts. P starts
uniform within sqrt(6 / (3 * patch^2 + dim)). Swin, where the source gives the prompts to every window, and
ConvNeXt are refused. There is no update to merge: every block works on `hidden` more tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError


@dataclass(frozen=True)
class ShallowConfig:
    dropout: float = 0.0
    """Of the prompts' numbers."""


@dataclass(frozen=True)
class DeepConfig:
    dropout: float = 0.1
    """Of the prompts' numbers."""


class Prompted(nn.Module):
    """A block whose input gets prompts, or whose output loses them.

    Args:
        block: the block itself.
        table: bias-free, its weight (prompts, dim) is the prompts; None leaves the input as it is.
        place: tokens before the prompts.
        replaced: tokens after these that the prompts take the place of.
        removed: tokens of the output there that are taken away.
    """

    def __init__(
        self,
        block: nn.Module,
        table: nn.Linear | None,
        place: int,
        replaced: int,
        removed: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.block = block
        self.table = table
        self.place = place
        self.replaced = replaced
        self.removed = removed
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, dim); the result may have more or fewer tokens."""
        if self.table is not None:
            prompts = self.dropout(self.table.weight.expand(len(x), -1, -1))
            x = torch.cat([x[:, : self.place], prompts, x[:, self.place + self.replaced :]], 1)
        x = self.block(x)
        if not self.removed:
            return x
        return torch.cat([x[:, : self.place], x[:, self.place + self.removed :]], 1)


# The last block may work on the first token alone: it reads keys and values of all, prompts too.
@adapter("vpt_shallow", config=ShallowConfig, group="prompt", tokenwise=True)
def shallow(sites: Sites, shape: Shape, config: ShallowConfig) -> Attached:
    """One table: hidden * dim weights."""
    return _prompted(sites, shape, config.dropout, deep=False)


@adapter("vpt_deep", config=DeepConfig, group="prompt", tokenwise=True)
def deep(sites: Sites, shape: Shape, config: DeepConfig) -> Attached:
    """One table a block: hidden * dim weights each."""
    return _prompted(sites, shape, config.dropout, deep=True)


def _prompted(sites: Sites, shape: Shape, dropout: float, deep: bool) -> Attached:
    count, layout = shape.hidden, sites.layout
    if layout.grid is None:
        raise UserError(
            "this adapter adds tokens to the sequence of a vision transformer, and the backbone keeps its "
            "tokens in rows and columns: choose another adapter or backbone"
        )
    if count < 1:
        raise UserError(f"hidden={count} is out of range: this adapter needs at least 1 prompt")
    attached = Attached()
    start = initialization.uniform(math.sqrt(6 / (_patch_inputs(sites) + sites.blocks[0].dim)))
    for number, block in enumerate(sites.blocks):
        first, last = number == 0, number == len(sites.blocks) - 1
        table = None
        if first or deep:
            table = nn.Linear(block.dim, count, bias=False)
            attached.matrices[f"{number}.prompts"] = table
            attached.initializers[f"{number}.prompts"] = start
        if table is not None or last:
            replaced, removed = 0 if first else count, count if last else 0
            whole = block.whole.get()
            block.whole.set(Prompted(whole, table, layout.prefix, replaced, removed, dropout))
    return attached


def _patch_inputs(sites: Sites) -> int:
    """Numbers of a patch of the image, 3 * patch^2; the first operation of the backbone embeds them."""
    embedding = sites.operations[0].slot.get()
    assert isinstance(embedding, nn.Conv2d | nn.Linear)
    return embedding.weight[0].numel()
