"""FacT (Jie and Deng 2023, arXiv 2212.03145): all blocks share one pair U, V, with a small core per linear.

    D = s * kron(I, V) M kron(I, U)

D (outputs, inputs) is the update of a linear's weight, U (r, dim) and V (dim, r) are shared by all blocks of
one width, r is hidden, and s is the fixed scale. The core M of a linear consists of r x r tiles, one for each
multiple of dim of its outputs and each multiple of dim of its inputs: qkv has 3 x 1 tiles, proj 1 x 1, fc1
4 x 1 and fc2 1 x 4. The identities I have these sizes. Dropout stands between M and V.

- fact_tt (tensor train): the tiles are trained: q, k, v and proj (r, r), fc1 (4r, r), fc2 (r, 4r).
- fact_tk (Tucker): the tiles are slices of K = C P with C (r, r, r) and P (r, columns), 12 columns per block,
  which give one r x r slice each for q, k, v and proj, and four slices each for fc1 and fc2. The tiles of q,
  k, v and proj are the transposed slices. The four slices (r, r, 4) of fc1 and of fc2 are reshaped row-major
  to (r, 4r), as in the repository, so that a tile mixes all four slices; that of fc1 is then transposed.

Source: repository JieShibo/PETL-ViT. Translations by this project: Swin has its own U and V (and C and P) for
each width of its stages, and ConvNeXt is updated in fc1 and fc2 only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import SLICES, Delta, DeltaLinear
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import BlockSites, Sites, widths
from petl_bench.errors import UserError


@dataclass(frozen=True)
class FacTConfig:
    dropout: float = 0.1
    """Probability that an entry between the core and V is zeroed in training; at least 0 and at most 1."""


class Core(nn.Module, ABC):
    """The core M of one linear, the matrix between U and V."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """Return the core of rows x columns tiles as one matrix (rows * r, columns * r)."""


class TrainCore(Core):
    """A core whose tiles are trained matrices, stacked vertically.

    Args:
        tiles: linears with weights (rows * r, columns * r) for the same columns.
    """

    def __init__(self, tiles: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.tiles = nn.ModuleList(tiles)

    def matrix(self) -> Tensor:
        tiles = [tile.weight for tile in cast(Sequence[nn.Linear], self.tiles)]
        return tiles[0] if len(tiles) == 1 else torch.cat(tiles)


class TuckerCore(Core):
    """A core whose tiles are slices of C P.

    Args:
        c: weight (r * r, r), which is C with its first two axes merged.
        p: weight (r, columns).
        columns: columns of `p` that belong to this linear.
        kind: role of the linear, which decides how slices become tiles.
    """

    def __init__(self, c: nn.Linear, p: nn.Linear, columns: slice, kind: str) -> None:
        super().__init__()
        self.c = c
        self.p = p
        self.columns = columns
        self.kind = kind

    def matrix(self) -> Tensor:
        rank = self.c.in_features
        slices = (self.c.weight @ self.p.weight[:, self.columns]).view(rank, rank, -1)
        if self.kind == "fc1":
            return slices.flatten(1).t()
        if self.kind == "fc2":
            return slices.flatten(1)
        return slices.permute(2, 1, 0).flatten(0, 1)


class Factorized(Delta):
    """The update scale * kron(I, V) M kron(I, U), with dropout between M and V.

    Args:
        u: weight (r, dim).
        v: weight (dim, r).
        core: the core M.
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
    """

    def __init__(self, u: nn.Linear, v: nn.Linear, core: Core, scale: float, dropout: float) -> None:
        super().__init__()
        self.u = u
        self.v = v
        self.core = core
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def product(self) -> Tensor:
        rank = self.u.out_features
        tiles = self.core.matrix().unflatten(0, (-1, rank)).unflatten(2, (-1, rank))
        product = torch.einsum("or,arbs,si->aobi", self.v.weight, tiles, self.u.weight)
        return self.scale * product.flatten(2).flatten(0, 1)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        inputs = x.unflatten(-1, (-1, self.u.in_features))
        hidden = functional.linear(self.u(inputs).flatten(-2), self.core.matrix())
        update = self.v(self.dropout(hidden).unflatten(-1, (-1, self.v.in_features))).flatten(-2)
        return torch.add(base, update, alpha=self.scale)


Component = tuple[str, int, int]
"""Role of a linear, and the numbers of rows and of columns of tiles of its core."""


def _parts(block: BlockSites) -> list[Component]:
    roles = ("qkv", "proj", "fc1", "fc2") if "qkv" in block.linears else ("fc1", "fc2")
    found = []
    for role in roles:
        inputs, outputs = widths(block.linear(role))
        if inputs % block.dim or outputs % block.dim:
            raise UserError(
                f"this adapter needs linears whose sizes are multiples of the width of the block, but {role} "
                f"is {outputs} x {inputs} and the width is {block.dim}: choose another adapter or backbone"
            )
        found.append((role, outputs // block.dim, inputs // block.dim))
    return found


Cores = Callable[[Attached, int, Component, int], Core]
"""Function of the declaration, the number of a block, a component and the number of its first slice that
returns the core of the component."""


Begin = Callable[[Attached, int, int], Cores]
"""Function of the declaration, a width and the number of slices of its blocks that returns their `Cores`."""


def _attach(sites: Sites, shape: Shape, config: FacTConfig, begin: Begin) -> Attached:
    if shape.quantized and shape.hidden < 2:
        raise UserError(
            "hidden=1: below 32 bits this adapter needs 2 or more; one number has no standard deviation"
        )
    attached = Attached()
    for width in dict.fromkeys(block.dim for block in sites.blocks):
        blocks = [(number, block) for number, block in enumerate(sites.blocks) if block.dim == width]
        parts = {number: _parts(block) for number, block in blocks}
        u, v = pair(attached, f"width{width}", width, width, shape)
        slices = sum(rows * columns for found in parts.values() for _, rows, columns in found)
        cores, first = begin(attached, width, slices), 0
        for number, block in blocks:
            for part in parts[number]:
                role, rows, columns = part
                core = cores(attached, number, part, first)
                first += rows * columns
                slot = block.linear(role)
                change = Factorized(u, v, core, shape.scale, config.dropout)
                slot.set(DeltaLinear(slot.get(), change))
    return attached


@adapter(
    "fact_tt",
    description="One matrix pair for all blocks, tensor-train cores per linear (FacT, arXiv 2212.03145).",
    config=FacTConfig,
    group="low-rank",
    tokenwise=True,
    unused={"float_bits": 32},
)
def attach_train(sites: Sites, shape: Shape, config: FacTConfig) -> Attached:
    """Attach FacT in tensor-train form: 2 * dim * r weights per width, 12 * r**2 per block and 0 floats.

    U and V are the matrices widthDIM.down and widthDIM.up. V is initialized with zeros, or near zero below 32
    bits, and all others as torch.nn.Linear. A block of ConvNeXt has 8 * r**2 weights.
    """
    rank = shape.hidden

    def core(attached: Attached, number: int, part: Component, first: int) -> Core:
        role, rows, columns = part
        names = dict.fromkeys(SLICES, 1) if role == "qkv" else {role: rows}
        tiles = [nn.Linear(columns * rank, tall * rank, bias=False) for tall in names.values()]
        attached.matrices.update({f"{number}.{name}": tile for name, tile in zip(names, tiles, strict=True)})
        return TrainCore(tiles)

    return _attach(sites, shape, config, lambda attached, width, slices: core)


@adapter(
    "fact_tk",
    description="One matrix pair for all blocks, Tucker cores per linear (FacT, arXiv 2212.03145).",
    config=FacTConfig,
    group="low-rank",
    tokenwise=True,
    unused={"float_bits": 32},
)
def attach_tucker(sites: Sites, shape: Shape, config: FacTConfig) -> Attached:
    """Attach FacT in Tucker form: 2 * dim * r + r**3 weights per width, 12 * r per block and 0 floats.

    U and V are the matrices widthDIM.down and widthDIM.up, C is stored as widthDIM.c (r**2, r) and P as
    widthDIM.p (r, slices). C and P are initialized by Xavier's uniform rule (C as a tensor: within
    sqrt(3) / r), U as torch.nn.Linear, and V with zeros, or near zero below 32 bits. A block of ConvNeXt has
    8 * r weights.
    """
    rank = shape.hidden

    def begin(attached: Attached, width: int, slices: int) -> Cores:
        c, p = nn.Linear(rank, rank * rank, bias=False), nn.Linear(slices, rank, bias=False)
        attached.matrices.update({f"width{width}.c": c, f"width{width}.p": p})
        attached.initializers[f"width{width}.c"] = initialization.uniform(math.sqrt(3) / rank)
        attached.initializers[f"width{width}.p"] = initialization.xavier

        def core(attached: Attached, number: int, part: Component, first: int) -> Core:
            role, rows, columns = part
            return TuckerCore(c, p, slice(first, first + rows * columns), role)

        return core

    return _attach(sites, shape, config, begin)
