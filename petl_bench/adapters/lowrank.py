"""Pairs of matrices of low-rank adapters: their creation, their sharing between blocks and their ranks.

The ranks of blocks may differ by depth. MoLA (Gao et al. 2024, arXiv 2402.08562) gives the quarters of the
depth of a language model 2, 4, 6 and 8 experts, or the same numbers in another order. Here the ranks of plain
pairs have these proportions. That is a translation by this project; the scale s does not depend on the rank
of a block.
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
    """Yield the number of the group of each block, and the block.

    Args:
        blocks: blocks from input to output.
        share: number of neighboring blocks of one width that form a group; 0 puts all neighboring blocks of
            one width into one group.
        allocation: name of the allocation of ranks.

    Raises:
        ValueError: `share` is negative, or is not 1 with an allocation other than `uniform`.
    """
    if share < 0:
        raise ValueError(f"share must be a number of blocks, or 0 for all, not {share}")
    if share != 1 and allocation != "uniform":
        raise ValueError(
            f"share={share} gives several blocks one rank, but allocation={allocation} requires share=1"
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
"""Proportions of the ranks of the four quarters of the depth, by the name of the allocation."""


def allocated(allocation: str, blocks: int, hidden: int) -> list[int]:
    """Return the rank of each block.

    The ranks add up to hidden * blocks, are at least 1 and are rounded by the method of largest remainders.
    Since each is at least 1, their sum can be larger if hidden is 1 or 2 and the number of blocks is odd.
    If blocks differ in width, the sum of ranks is that of `uniform`, but the number of weights is not.

    Args:
        allocation: a name of ALLOCATIONS.
        blocks: number of blocks.
        hidden: mean rank of a block.

    Raises:
        ValueError: the allocation does not exist.
    """
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation must be one of {', '.join(ALLOCATIONS)}, not {allocation!r}")
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
    """Add the bias-free matrices `NAME.down` and `NAME.up` to `attached`, and return them.

    If `attached` has matrices of these names already, they are returned again, so that blocks can share them.
    `down` is initialized as torch.nn.Linear is. `up` is initialized with zeros at 32 bits, so that training
    starts at the frozen backbone. Below 32 bits it is initialized near zero, because standardization divides
    by its standard deviation (arXiv 2307.16867, released code).

    Args:
        attached: declaration that receives the matrices and the initializer of `up`.
        name: first part of both names.
        inputs: inputs of `down`.
        outputs: outputs of `up`.
        shape: settings that all methods share.
        rank: outputs of `down`; None stands for `shape.hidden`.
        groups: number of groups of hidden units; each output sees the units of one group.
        suffix: last part of both names.

    Returns:
        down, weight (rank, inputs), and up, weight (outputs, rank / groups).

    Raises:
        UserError: hidden is less than 1.
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
