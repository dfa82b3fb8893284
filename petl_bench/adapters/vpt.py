"""Visual prompt tuning (Jia et al. 2022, arXiv 2203.12119): trained tokens in a vision transformer.

    vpt_shallow   [c, P, E] enters block 1; the outputs at P go on to the next blocks
    vpt_deep      [c, P_i, E] enters block i; the outputs at P_i are discarded

c are the class token and other tokens before the patches, E (patches, dim) the patches, P and P_i (hidden,
dim) the prompts of all blocks or of block i. hidden is the number of prompts. Prompts have no position
embedding. They are removed after the last block, so that the final norm and the head see the usual tokens.
Prompts cannot be merged: every block works on `hidden` more tokens.

Source: section 3.2 of arXiv 2203.12119; repository KMnP/vpt, from which the initializer is taken: uniform
within sqrt(6 / (3 * patch**2 + dim)). Swin, where the source adds the prompts to every window, and ConvNeXt
are refused.
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
    """Probability that an entry of a prompt is zeroed in training; at least 0 and at most 1."""


@dataclass(frozen=True)
class DeepConfig:
    dropout: float = 0.1
    """Probability that an entry of a prompt is zeroed in training; at least 0 and at most 1."""


class Prompted(nn.Module):
    """A block with prompts inserted into its input, removed from its output, or both.

    Args:
        block: block of the backbone.
        table: bias-free linear whose weight (prompts, dim) holds the prompts; None inserts none.
        place: number of tokens before the prompts.
        replaced: number of input tokens at this place that the prompts replace.
        removed: number of output tokens at this place that are removed.
        dropout: probability that an entry of a prompt is zeroed in training.
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
        """Map x (batch, tokens, dim) to a tensor that may have more or fewer tokens."""
        if self.table is not None:
            prompts = self.dropout(self.table.weight.expand(x.shape[0], -1, -1))
            x = torch.cat([x[:, : self.place], prompts, x[:, self.place + self.replaced :]], 1)
        x = self.block(x)
        if not self.removed:
            return x
        return torch.cat([x[:, : self.place], x[:, self.place + self.removed :]], 1)


# tokenwise holds: the first token still attends to all tokens of the last block, including prompts.
@adapter(
    "vpt_shallow",
    description="Prompts before the first block, hidden of them (arXiv 2203.12119).",
    config=ShallowConfig,
    group="prompt",
    tokenwise=True,
    unused={"scale": 1.0, "start": 0.0, "float_bits": 32},
)
def shallow(sites: Sites, shape: Shape, config: ShallowConfig) -> Attached:
    """Attach one table of prompts before the first block: hidden * dim weights and 0 floats."""
    return _prompted(sites, shape, config.dropout, deep=False)


@adapter(
    "vpt_deep",
    description="Prompts before every block, hidden of them each (arXiv 2203.12119).",
    config=DeepConfig,
    group="prompt",
    tokenwise=True,
    unused={"scale": 1.0, "start": 0.0, "float_bits": 32},
)
def deep(sites: Sites, shape: Shape, config: DeepConfig) -> Attached:
    """Attach one table of prompts per block: hidden * dim weights each and 0 floats."""
    return _prompted(sites, shape, config.dropout, deep=True)


def _prompted(sites: Sites, shape: Shape, dropout: float, deep: bool) -> Attached:
    count, layout = shape.hidden, sites.layout
    if layout.grid is None:
        raise UserError(
            "this adapter adds tokens to the sequence of a vision transformer, but the backbone keeps its "
            "tokens in rows and columns: choose another adapter or backbone"
        )
    if sites.fixed_tokens:
        raise UserError(
            "this adapter adds tokens to the sequence, but the attention of this backbone knows each token "
            "by its position: choose another adapter or backbone"
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
    """Return the number of inputs of the patch embedding, 3 * patch**2."""
    embedding = sites.operations[0].slot.get()
    assert isinstance(embedding, nn.Conv2d | nn.Linear)
    return embedding.weight[0].numel()
