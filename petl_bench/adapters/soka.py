"""SoKA (arXiv 2506.15251): a sum of Kronecker products that starts at the leading ones of the frozen weight.

On every linear of a block, with r terms of the shapes that KronA has (petl_bench.adapters.krona):

    y = W x + bias + s * sum over k of (left_k x right_k - start_left_k x start_right_k) x

The starts are W's Kronecker singular value decomposition: of W as a matrix (m * n, p * q), see `rearranged`,
the triplets u, sigma, v; left sqrt(sigma) u as (m, n), right sqrt(sigma) v as (p, q). The abstract says "of
the full weight update", of which there is none at the start: W in its place, the frozen rest of it as in
PiSSA, the sites in a vision transformer and the rule for the terms are inferred. The start is rounded term by
term as what is trained, so that training begins at the frozen network at any bit-width. Weight decay is best
set to 0.

r is hidden, or, with rank=spectrum, the least of: hidden; the terms that hold `energy` of the sum of squared
singular values; the elbow, the term farthest below the chord of the curve of singular values.

The start is not stored, and neither is r. A file is read by computing both again from W, in float64 on the
CPU, with the signs fixed (petl_bench.adapters.decomposed): other arithmetic than the writer's might round an
entry to another code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.decomposed import Start, components, fitting
from petl_bench.adapters.delta import DeltaLinear, roles
from petl_bench.adapters.kronecker import Kronecker, factors, rearranged
from petl_bench.adapters.lowrank import allocated
from petl_bench.backbones.sites import Sites, Slot, widths
from petl_bench.errors import UserError

RANKS = ("hidden", "spectrum")


@dataclass(frozen=True)
class SoKAConfig:
    rank: str = "hidden"
    """Terms of a linear: hidden, or what its spectrum asks for, hidden at most."""
    energy: float = 0.9
    """Share of the squared singular values that is enough, with rank=spectrum."""
    allocation: str = "uniform"
    """Hidden by depth, of one sum; see petl_bench.adapters.lowrank.ALLOCATIONS."""

    def __post_init__(self) -> None:
        if self.rank not in RANKS:
            raise ValueError(f"rank is one of {', '.join(RANKS)}, not {self.rank!r}")
        if not 0 < self.energy <= 1:
            raise ValueError(f"energy={self.energy} is no share: more than 0, at most 1")


def enough(values: Tensor, energy: float) -> int:
    """How many terms a spectrum asks for: values (terms,), descending; see the module."""
    squares = values.square().cumsum(0)
    by_energy = int((squares < energy * squares[-1]).sum()) + 1
    chord = torch.linspace(values[0].item(), values[-1].item(), len(values), dtype=values.dtype)
    return min(by_energy, int((chord - values).argmax()) + 1)


def _terms(
    attached: Attached, name: str, slot: Slot, rank: int, shape: Shape, config: SoKAConfig
) -> Kronecker:
    inputs, outputs = widths(slot)
    shapes = factors(outputs, inputs)
    weight = slot.get().weight
    assert isinstance(weight, Tensor)
    found = components(rearranged(weight, shapes))
    fitting(name, rank, len(found.values))
    if config.rank == "spectrum":
        rank = min(rank, enough(found.values, config.energy))
    root = found.values[:rank].sqrt()
    sides, starts = [], []
    for side, vectors, size in zip(("left", "right"), (found.left, found.right), shapes, strict=True):
        begun = [(vectors[:, k] * root[k]).float().view(size) for k in range(rank)]
        linear = [nn.Linear(size[1], size[0], bias=False) for _ in range(rank)]
        names = [f"{name}.{side}.{k}" for k in range(rank)]
        attached.matrices.update(zip(names, linear, strict=True))
        attached.initializers.update((n, initialization.given(b)) for n, b in zip(names, begun, strict=True))
        sides.append(linear)
        starts.append(Start(torch.stack([shape.rounded(values) for values in begun])))
    return Kronecker(sides[0], sides[1], shape.scale, (starts[0], starts[1]))


@adapter("soka", config=SoKAConfig, group="reparameterized", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: SoKAConfig) -> Attached:
    """BLOCK.ROLE.left.k (m, n), k from 0, then BLOCK.ROLE.right.k (p, q), of each linear.

    Raises:
        UserError: hidden is more than a linear has, or less than 1.
    """
    if shape.hidden < 1:
        raise UserError(f"hidden={shape.hidden} is out of range: this adapter needs at least 1 term")
    attached = Attached(float32=True)
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        for role in roles(block):
            slot = block.linear(role)
            terms = _terms(attached, f"{number}.{role}", slot, rank, shape, config)
            slot.set(DeltaLinear(slot.get(), terms))
    return attached
