"""FacT (Jie and Deng 2023, arXiv 2212.03145; repository JieShibo/PETL-ViT): one pair U, V for all blocks.

U is (r, dim), V (dim, r), r = hidden; blocks of one width share them. Each linear has a core M between the
two, of r x r tiles: one for each dim of its outputs by one for each dim of its inputs. The change of its
weight is

    s * (I x V) M (I x U)    with x the Kronecker product

so qkv has 3 x 1 tiles, proj 1 x 1, fc1 4 x 1, fc2 1 x 4, and dropout stands between M and V.

fact_tt   tensor train: the tiles are matrices of their own: q, k, v, proj (r, r), fc1 (4r, r), fc2 (r, 4r).
fact_tk   Tucker: K = C P, C (r, r, r) and P (r, 12 columns a block), gives r x r slices: one each for q, k,
          v, proj, four for fc1, four for fc2. The tiles of q, k, v, proj are the slices transposed. The four
          slices (r, r, 4) of fc1 and of fc2 are read row-major as (r, 4r), as the repository has it, so that
          a tile takes entries of all four; those of fc1 are transposed.

Swin has a U and a V (and a C and a P) for each width of its stages. ConvNeXt has fc1 and fc2 alone.
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
    """Dropout between the core and V."""


class Core(nn.Module, ABC):
    """What stands between U and V of one linear."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """(rows * r, columns * r)."""


class TrainCore(Core):
    """Matrices of their own, one below the other."""

    def __init__(self, tiles: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.tiles = nn.ModuleList(tiles)

    def matrix(self) -> Tensor:
        return torch.cat([tile.weight for tile in cast(Sequence[nn.Linear], self.tiles)])


class TuckerCore(Core):
    """Slices of C P.

    Args:
        c: (r * r, r), C with its first two axes in one.
        p: (r, columns).
        columns: those of this linear.
        kind: which way the slices become tiles.
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
    """scale * (I x V) M (I x U), with dropout between M and V."""

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
"""A linear's role, and its rows and columns of tiles."""


def _parts(block: BlockSites) -> list[Component]:
    roles = ("qkv", "proj", "fc1", "fc2") if "qkv" in block.linears else ("fc1", "fc2")
    found = []
    for role in roles:
        inputs, outputs = widths(block.linear(role))
        if inputs % block.dim or outputs % block.dim:
            raise UserError(
                f"this adapter cuts {role} ({outputs} x {inputs}) into pieces of the block's width, of which "
                f"it is no multiple ({block.dim}): choose another adapter or backbone"
            )
        found.append((role, outputs // block.dim, inputs // block.dim))
    return found


Cores = Callable[[Attached, int, Component, int], Core]
"""Gives the core of a linear: what is attached, block's number, part, number of the part's first slice."""


Begin = Callable[[Attached, int, int], Cores]
"""The cores of a width, given how many slices all its blocks have together."""


def _attach(sites: Sites, shape: Shape, config: FacTConfig, begin: Begin) -> Attached:
    if shape.quantized and shape.hidden < 2:
        raise UserError(
            "hidden=1: below 32 bits this adapter needs 2, for a core of one number has no spread"
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


@adapter("fact_tt", config=FacTConfig, group="low-rank", tokenwise=True)
def attach_train(sites: Sites, shape: Shape, config: FacTConfig) -> Attached:
    """2 * dim * r weights a width, widthDIM.down and widthDIM.up (U, V), and 12 * r**2 a transformer's block.

    V (`up`) starts at zero, near it when quantized, the others as torch's Linear.
    """
    rank = shape.hidden

    def core(attached: Attached, number: int, part: Component, first: int) -> Core:
        role, rows, columns = part
        names = dict.fromkeys(SLICES, 1) if role == "qkv" else {role: rows}
        tiles = [nn.Linear(columns * rank, tall * rank, bias=False) for tall in names.values()]
        attached.matrices.update({f"{number}.{name}": tile for name, tile in zip(names, tiles, strict=True)})
        return TrainCore(tiles)

    return _attach(sites, shape, config, lambda attached, width, slices: core)


@adapter("fact_tk", config=FacTConfig, group="low-rank", tokenwise=True)
def attach_tucker(sites: Sites, shape: Shape, config: FacTConfig) -> Attached:
    """2 * dim * r weights a width, r**3 of C, and of P r times the slices: 12 a transformer's block.

    C is stored as (r**2, r). C and P start as Xavier's (of C as a tensor: within sqrt(3) / r), U as torch's
    Linear, V (`up`) at zero, near it when quantized.
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
