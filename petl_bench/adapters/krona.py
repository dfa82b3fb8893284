"""KronA (Edalati et al. 2022, arXiv 2212.10650): the update of a weight is one Kronecker product.

    W' = W + s * kron(left, right)

on every linear of a block, with W (m * p, n * q) frozen, left (m, n), right (p, q) and the fixed scale s. m
and n are the smallest divisors of the two widths that are at least their square roots: 32, 48 and 64 for
widths of 768, 2304 and 3072. The update starts at zero: left is initialized as torch.nn.Linear, right with
zeros, or near zero below 32 bits.

Source: arXiv 2212.10650, on language models. The sites in a vision transformer, the shapes and the
initializers are a translation by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import DeltaLinear, roles
from petl_bench.adapters.kronecker import Kronecker, factors
from petl_bench.backbones.sites import Sites, widths


@dataclass(frozen=True)
class KronAConfig:
    """Settings of the method, which has none."""


@adapter(
    "krona",
    description="One Kronecker product as the update of every linear (KronA, arXiv 2212.10650).",
    config=KronAConfig,
    group="reparameterized",
    tokenwise=True,
    unused={"hidden": 1, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: KronAConfig) -> Attached:
    """Attach one product per linear: m * n + p * q weights and 0 floats.

    The matrices are BLOCK.ROLE.left (m, n) and BLOCK.ROLE.right (p, q).
    """
    attached = Attached()
    for number, block in enumerate(sites.blocks):
        for role in roles(block):
            slot = block.linear(role)
            inputs, outputs = widths(slot)
            left, right = (nn.Linear(n, m, bias=False) for m, n in factors(outputs, inputs))
            name = f"{number}.{role}"
            attached.matrices.update({f"{name}.left": left, f"{name}.right": right})
            attached.initializers[f"{name}.right"] = (
                initialization.near_zero if shape.quantized else initialization.zero
            )
            slot.set(DeltaLinear(slot.get(), Kronecker([left], [right], shape.scale)))
    return attached
