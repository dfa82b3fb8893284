"""SoKA (arXiv 2506.15251): a sum of Kronecker products, initialized with the leading ones of the weight.

On every linear of a block, with r terms:

    y = W x + bias + s * sum over k of (kron(left_k, right_k) - kron(left_k0, right_k0)) x

W (m * p, n * q) and bias (m * p,) are frozen; left_k (m, n) and right_k (p, q) are trained, with the shapes
of KronA (petl_bench.adapters.krona), and initialized with left_k0 and right_k0; s is the fixed scale. The
initial factors come from the Kronecker singular value decomposition of W: with the singular triplets u_k,
sigma_k, v_k of W rearranged to (m * n, p * q), left_k0 is sqrt(sigma_k) u_k as (m, n), and right_k0 is
sqrt(sigma_k) v_k as (p, q).

r is hidden or, with rank=spectrum, the smallest of three numbers: hidden; the number of terms that hold the
share `energy` of the sum of squared singular values; and the elbow, the term farthest below the straight line
between the ends of the curve of singular values.

Source: the abstract of arXiv 2506.15251. It decomposes the full weight update, which does not exist before
training. That W takes its place, the frozen residual as in PiSSA, the sites in a vision transformer and the
rule for r are inferred. Translations by this project: `allocation`, and quantization, for which initial
factors are quantized term by term as the trained ones are, so that training starts at the frozen network at
every bit-width. The best choice of the weight decay is 0.

Neither the initial factors nor r are stored. Both are computed again from W when a file is loaded, in float64
on the CPU and with fixed signs (petl_bench.adapters.decomposed). If the arithmetic of the reader differs from
that of the writer, an entry may be rounded to another code.
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
    """Number of terms per linear: hidden, or spectrum (as the singular values require, at most hidden)."""
    energy: float = 0.9
    """Share of the sum of squared singular values that the terms must hold with rank=spectrum; above 0
    and at most 1."""
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""

    def __post_init__(self) -> None:
        if self.rank not in RANKS:
            raise ValueError(f"rank must be one of {', '.join(RANKS)}, not {self.rank!r}")
        if not 0 < self.energy <= 1:
            raise ValueError(f"energy={self.energy} must be above 0 and at most 1")


def enough(values: Tensor, energy: float) -> int:
    """Return the number of terms that rank=spectrum chooses without its limit, as the module describes.

    Args:
        values: singular values (terms,), descending.
        energy: share of the sum of squared singular values that the terms must hold.
    """
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


@adapter(
    "soka",
    description="Kronecker products that start at the leading ones of every linear (SoKA, arXiv 2506.15251).",
    config=SoKAConfig,
    group="reparameterized",
    tokenwise=True,
    unused={"start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: SoKAConfig) -> Attached:
    """Attach r terms per linear: r * (m * n + p * q) weights and 0 floats.

    The matrices are BLOCK.ROLE.left.k (m, n), k from 0, then BLOCK.ROLE.right.k (p, q).

    Raises:
        UserError: hidden is less than 1, or a rank is greater than the number of terms of a linear.
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
