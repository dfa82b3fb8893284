"""The pair of matrices that low-rank adapters are made of, of one block or shared by several; its rank.

Ranks may differ by depth: MoLA (Gao et al. 2024, arXiv 2402.08562) gives the quarters of a language model's
depth 2, 4, 6 and 8 experts, or as many in another order. Here plain pairs have ranks in these proportions: a
translation (ours), in which the factor s stays what it is, whatever a block's rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape
from petl_bench.backbones.sites import BlockSites
from petl_bench.errors import UserError


def grouped(
    blocks: Sequence[BlockSites], share: int, allocation: str = "uniform"
) -> Iterator[tuple[int, BlockSites]]:
    """Each block with the number of its group: `share` neighbours of one width, or all of them where it is 0.

    Raises:
        ValueError: share is negative, or blocks that share have an allocation of ranks other than `uniform`.
    """
    if share < 0:
        raise ValueError(f"share must be a number of blocks, or 0 for all, not {share}")
    if share != 1 and allocation != "uniform":
        raise ValueError(
            f"share={share} gives several blocks one rank: allocation={allocation} wants share=1"
        )
    number, held = -1, 0
    for index, block in enumerate(blocks):
        if index == 0 or block.dim != blocks[index - 1].dim or held == share:
            number, held = number + 1, 0
        held += 1
        yield number, block


ALLOCATIONS = {
    "uniform": (5, 5, 5, 5),
    "rising": (2, 4, 6, 8),
    "falling": (8, 6, 4, 2),
    "middle": (2, 8, 8, 2),
    "ends": (8, 2, 2, 8),
}
"""Proportions of the ranks in the four quarters of depth."""


def allocated(allocation: str, blocks: int, hidden: int) -> list[int]:
    """The rank of each block: hidden * blocks in all, by largest remainder, and 1 at least.

    Where blocks differ in width, ranks are as many as under `uniform`, weights are not.

    Raises:
        ValueError: there is no such allocation.
    """
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation is one of {', '.join(ALLOCATIONS)}, not {allocation!r}")
    parts = [ALLOCATIONS[allocation][4 * index // blocks] for index in range(blocks)]
    total, whole = hidden * blocks, sum(parts)
    ranks = [max(1, total * part // whole) for part in parts]
    while sum(ranks) < total:
        missing = [total * part - whole * rank for part, rank in zip(parts, ranks, strict=True)]
        ranks[missing.index(max(missing))] += 1
    return ranks


def pair(
    attached: Attached,
    name: str,
    inputs: int,
    outputs: int,
    shape: Shape,
    rank: int | None = None,
    groups: int = 1,
    suffix: str = "",
) -> tuple[nn.Linear, nn.Linear]:
    """`NAME.down` (rank, inputs) and `NAME.up` (outputs, rank / groups), bias-free, added to `attached`.

    A name that is there already gives the same pair again. The rank is hidden, unless given. A suffix ends
    both names.

    `down` starts as torch's Linear does. `up` starts at zero in float32, so that training begins at the
    backbone; quantized, it starts near zero, because signs and standardization need a spread (method of
    arXiv 2307.16867, released code).
    """
    if shape.hidden < 1:
        raise UserError(f"hidden={shape.hidden} is out of range: this adapter needs at least 1 hidden unit")
    names = f"{name}.down{suffix}", f"{name}.up{suffix}"
    if names[1] in attached.matrices:
        return attached.matrices[names[0]], attached.matrices[names[1]]
    rank = shape.hidden if rank is None else rank
    down = nn.Linear(inputs, rank, bias=False)
    up = nn.Linear(rank // groups, outputs, bias=False)
    attached.matrices.update(zip(names, (down, up), strict=True))
    attached.initializers[names[1]] = initialization.near_zero if shape.quantized else initialization.zero
    return down, up
