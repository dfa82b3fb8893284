"""Costs of adapter methods on ViT-B/16, computed from their declarations without weights of a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch

from petl_bench.adapters import Shape, declare
from petl_bench.backbones.sharing import Resident
from petl_bench.model import Component
from petl_bench.types import FLOAT_BITS, BackboneSpec, RunSettings, completed, declarations, method

VIT_B16 = BackboneSpec("vit_base_patch16_224", "random", 224)


@dataclass(frozen=True)
class Cost:
    """Costs of one adapter method with its default settings, without the head.

    Attributes:
        name: name of the method.
        group: kind of the method (petl_bench.types.method_facts.GROUPS).
        hidden: hidden (rank), or the value that stands in its column where the method does not use it.
        params: number of trainable parameters.
        bytes_1_bit: bytes of the adapter's section of a file at 1 bit per weight, not entropy-coded.
        bytes_32_bit: the same at 32 bits per weight; equal where the method has no choice of bits.
    """

    name: str
    group: str
    hidden: int
    params: int
    bytes_1_bit: int
    bytes_32_bit: int


def costs(names: Iterable[str]) -> Iterator[Cost]:
    """Yield the costs of the named adapters, in the order of the names."""
    meta = torch.device("meta")
    with meta:
        built = Resident(VIT_B16, "fp32", meta)
    for name in names:
        sites = built.copy().sites
        unused = method(name).unused
        hidden = unused.get("hidden", declarations(RunSettings)["hidden"].default)
        attached = declare(name, completed(name, {}).settings, sites, Shape(hidden, 1.0, quantized=True))
        matrices = (matrix.weight for matrix in attached.matrices.values())
        trained = chain(matrices, attached.unstored, *attached.floats.values())
        small, large = (
            sum(entry.nbytes for entry in Component(attached, unused.get("bits", bits), "").entries)
            for bits in (1, FLOAT_BITS)
        )
        params = sum(parameter.numel() for parameter in trained)
        yield Cost(name, method(name).group, hidden, params, small, large)
