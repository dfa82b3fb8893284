"""What adapter methods cost on ViT-B/16, as they declare it: no weight of the backbone is made."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch

from petl_bench.adapters import ADAPTERS, Shape, declare
from petl_bench.backbones import families
from petl_bench.config import completed, default, group_config
from petl_bench.model import Component
from petl_bench.types import FLOAT_BITS, BackboneSpec

VIT_B16 = BackboneSpec("vit_base_patch16_224", "random", 224)


@dataclass(frozen=True)
class Cost:
    """Of one method with its default settings, without the head.

    Attributes:
        hidden: its hidden units, or what it stands at where it has no use for them.
        params: numbers that are trained.
        bytes_1_bit, bytes_32_bit: of the file's part, no codes coded; equal where no bits are to choose.
    """

    name: str
    group: str
    hidden: int
    params: int
    bytes_1_bit: int
    bytes_32_bit: int


def costs(names: Iterable[str]) -> Iterator[Cost]:
    """The costs of adapters, in the order of their names here."""
    with torch.device("meta"):
        built = families.build(VIT_B16)
    for name in names:
        _, sites = copy.deepcopy(built)
        unused = group_config("adapter", name).get("unused", {})
        hidden = unused.get("hidden", default("hidden"))
        attached = declare(name, completed(name, {}).settings, sites, Shape(hidden, 1.0, quantized=True))
        trained = chain((matrix.weight for matrix in attached.matrices.values()), *attached.floats.values())
        small, large = (
            sum(entry.nbytes for entry in Component(attached, unused.get("bits", bits), "").entries)
            for bits in (1, FLOAT_BITS)
        )
        params = sum(parameter.numel() for parameter in trained)
        yield Cost(name, ADAPTERS.get(name).group, hidden, params, small, large)
