"""PiSSA (Meng et al. 2024, arXiv 2404.02948; repository GraphPKU/PiSSA): W's leading part is trained.

On every linear of a block, of W = U S V^T with r = hidden the leading triplets:

    start_up = U_r sqrt(S_r), start_down = sqrt(S_r) V_r^T
    y = W x + bias + s * (up down - start_up start_down) x,  up and down begin at their starts

which for s = 1 is the source's frozen residual plus its trained product. The sites in a vision transformer
are a translation (ours), and so is the quantization: the start is rounded as the trained pair is, so that
training begins at the frozen network at any bit-width. Weight decay pulls the leading part of W to zero: best
set to 0.

The start is not stored. A file is read by computing it again from W, in float64 on the CPU, with the signs
fixed (petl_bench.adapters.decomposed): other arithmetic than the writer's might round an entry to another
code.
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
    """Ranks by depth, of one sum; see petl_bench.adapters.lowrank.ALLOCATIONS."""


def halves(found: Components) -> tuple[Tensor, Tensor]:
    """down (r, columns) and up (rows, r), float32, the singular values shared evenly."""
    root = found.values.sqrt()
    down, up = (found.right * root).t(), found.left * root
    return down.float().contiguous(), up.float().contiguous()


@adapter("pissa", config=PiSSAConfig, group="low-rank", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: PiSSAConfig) -> Attached:
    """BLOCK.ROLE.down (r, inputs) and BLOCK.ROLE.up (outputs, r) of each linear.

    Raises:
        UserError: a rank is more than a linear has.
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
