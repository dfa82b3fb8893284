"""KronA (Edalati et al. 2022, arXiv 2212.10650): the change of a weight is one Kronecker product.

    W' = W + s * left x right

on every linear of a block (sites and shapes are a translation, ours): left (m, n), right (p, q), of widths (m
* p, n * q). m and n are the least divisors of the widths that are no less than their roots; of 768, 2304 and
3072 these are 32, 48 and 64. As a change it begins at zero: left as torch's Linear, right at zero, near it
when quantized.
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
    """No settings."""


@adapter("krona", config=KronAConfig, group="reparameterized", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: KronAConfig) -> Attached:
    """BLOCK.ROLE.left (m, n) and BLOCK.ROLE.right (p, q) of each linear."""
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
