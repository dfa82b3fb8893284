"""The pair of matrices that low-rank adapters are made of, of one block or shared by several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from petl_bench import initial
from petl_bench.adapters.base import Attached, Shape
from petl_bench.errors import UserError
from petl_bench.sites import BlockSites


def grouped(blocks: Sequence[BlockSites], share: int) -> Iterator[tuple[int, BlockSites]]:
    """Each block with the number of its group: `share` neighbours of one width, or all of them where it is 0.

    Raises:
        ValueError: share is negative.
    """
    if share < 0:
        raise ValueError(f"share must be a number of blocks, or 0 for all, not {share}")
    number, held = -1, 0
    for index, block in enumerate(blocks):
        if index == 0 or block.dim != blocks[index - 1].dim or held == share:
            number, held = number + 1, 0
        held += 1
        yield number, block


def pair(
    attached: Attached, name: str, inputs: int, outputs: int, shape: Shape, groups: int = 1
) -> tuple[nn.Linear, nn.Linear]:
    """`NAME.down` (hidden, inputs), `NAME.up` (outputs, hidden / groups), bias-free, added to what there is.

    A name that is there already gives the same pair again.

    `down` starts as torch's Linear does. `up` starts at zero in float32, so that training begins at the
    backbone; quantized, it starts near zero, because signs and standardization need a spread (method of
    arXiv 2307.16867, released code).
    """
    if shape.hidden < 1:
        raise UserError(f"hidden={shape.hidden} is out of range: this adapter needs at least 1 hidden unit")
    if f"{name}.up" in attached.matrices:
        return attached.matrices[f"{name}.down"], attached.matrices[f"{name}.up"]
    down = nn.Linear(inputs, shape.hidden, bias=False)
    up = nn.Linear(shape.hidden // groups, outputs, bias=False)
    attached.matrices.update({f"{name}.down": down, f"{name}.up": up})
    attached.starts[f"{name}.up"] = initial.near_zero if shape.quantized else initial.zero
    return down, up
