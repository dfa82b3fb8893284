"""PiSSA (Meng et al. 2024, arXiv 2404.02948): the leading singular components of the weights are trained.

On every linear of a block, with W = U S V^T and the r = hidden leading triplets U_r, S_r, V_r:

    up_0 = U_r sqrt(S_r),    down_0 = sqrt(S_r) V_r^T
    y = W x + bias + s * (up down - up_0 down_0) x

W (outputs, inputs) and bias (outputs,) are frozen; up (outputs, r) and down (r, inputs) are trained and
initialized with up_0 and down_0; s is the fixed scale. With s = 1 this is the frozen residual
W - up_0 down_0 of the source plus its trained product up down.

Source: section 3 of arXiv 2404.02948; repository GraphPKU/PiSSA. Translations by this project: the sites in a
vision transformer, `allocation` and quantization. up_0 and down_0 are quantized as the trained pair is, so
that training starts at the frozen network at every bit-width. Weight decay pulls the leading components of W
to zero, so that 0 is the best choice for it.

up_0 and down_0 are not stored. They are computed again from W when a file is loaded, in float64 on the CPU
and with fixed signs (petl_bench.adapters.decomposed). If the arithmetic of the reader differs from that of
the writer, an entry may be rounded to another code.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.decomposed import Components, Moved, Start, components, fitting
from petl_bench.adapters.delta import DeltaLinear, roles
from petl_bench.adapters.lowrank import allocated, pair
from petl_bench.backbones.sites import Sites, widths


@dataclass(frozen=True)
class PiSSAConfig:
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""


def halves(found: Components) -> tuple[Tensor, Tensor]:
    """Split components into two factors that share the singular values evenly.

    Args:
        found: r components of a matrix (rows, columns).

    Returns:
        down (r, columns) and up (rows, r), float32.
    """
    root = found.values.sqrt()
    down, up = (found.right * root).t(), found.left * root
    return down.float().contiguous(), up.float().contiguous()


@adapter(
    "pissa",
    description="Leading singular components of every linear, trained (PiSSA, arXiv 2404.02948).",
    config=PiSSAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: PiSSAConfig) -> Attached:
    """Attach one pair per linear: (inputs + outputs) * hidden weights and 0 floats.

    The matrices are BLOCK.ROLE.down (r, inputs) and BLOCK.ROLE.up (outputs, r).

    Raises:
        UserError: a rank is greater than the number of components of a linear.
    """
    attached = Attached(float32=True)
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        for role in roles(block):
            slot = block.linear(role)
            name = f"{number}.{role}"
            fitting(name, rank, min(widths(slot)))
            matrices = pair(attached, name, *widths(slot), shape, rank)
            weight = slot.get().weight
            assert isinstance(weight, Tensor)
            begun = halves(components(weight)[:rank])
            for part, values in zip(("down", "up"), begun, strict=True):
                attached.initializers[f"{name}.{part}"] = initialization.given(values)
            down, up = (Start(shape.rounded(values)) for values in begun)
            slot.set(DeltaLinear(slot.get(), Moved(*matrices, down, up, shape.scale)))
    return attached
