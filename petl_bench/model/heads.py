"""Classifiers on the frozen features: float32, or 1 bit without bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from petl_bench import initialization
from petl_bench.registry import Registry
from petl_bench.types import FLOAT_BITS


@dataclass(frozen=True)
class Head:
    """A classifier module and how its weight is stored: at `bits`, biases always in float32.

    `floats` is as in petl_bench.model.Component.
    """

    module: nn.Linear
    bits: int
    floats: dict[str, list[nn.Parameter]] = field(default_factory=dict)


HEADS: Registry[Callable[[int, int], Head]] = Registry("head")


def build(name: str, features: int, classes: int, seed: int) -> Head:
    """Head `name`, its weight initialized from `seed`; a bias starts as torch's generator has it.

    Raises:
        UserError: unknown head.
    """
    head = HEADS.get(name)(features, classes)
    with torch.no_grad():
        head.module.weight.copy_(
            torch.from_numpy(initialization.linear(seed, "head.weight", (classes, features)))
        )
    return head


@HEADS.register("linear")
def linear(features: int, classes: int) -> Head:
    """Float32 weight and bias: 4 * (features + 1) * classes bytes."""
    module = nn.Linear(features, classes)
    return Head(module, FLOAT_BITS, {"bias": [module.bias]})


@HEADS.register("binary")
def binary(features: int, classes: int) -> Head:
    """The "bi-head" of the released code: always 1 bit, no bias: features * classes / 8 + 8 bytes."""
    return Head(nn.Linear(features, classes, bias=False), 1)
