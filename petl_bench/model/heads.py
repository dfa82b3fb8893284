"""Heads: linear classifiers on the features of the backbone, in float32 or with few bits per weight."""

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
    """A classifier and how it is stored.

    Attributes:
        module: linear from features to classes.
        bits: bits per weight of the stored weight matrix.
        floats: parameters stored in float32, as in petl_bench.model.Component.
    """

    module: nn.Linear
    bits: int
    floats: dict[str, list[nn.Parameter]] = field(default_factory=dict)


HEADS: Registry[Callable[[int, int], Head]] = Registry("head", "HEADS")


def build(name: str, features: int, classes: int, seed: int) -> Head:
    """Build a head.

    Args:
        name: name of a head in HEADS.
        features: number of features of the backbone.
        classes: number of classes of the task.
        seed: seed of the weight's initialization; a bias is initialized by torch's global generator.

    Raises:
        UserError: there is no such head.
    """
    head = HEADS.get(name)(features, classes)
    with torch.no_grad():
        head.module.weight.copy_(
            torch.from_numpy(initialization.linear(seed, "head.weight", (classes, features)))
        )
    return head


@HEADS.register("linear")
def linear(features: int, classes: int) -> Head:
    """Build a head of float32 weight and bias; it takes 4 * (features + 1) * classes bytes."""
    module = nn.Linear(features, classes)
    return Head(module, FLOAT_BITS, {"bias": [module.bias]})


@HEADS.register("binary")
def binary(features: int, classes: int) -> Head:
    """Build a head of 1 bit per weight without bias; it takes features * classes / 8 + 8 bytes.

    Source: "bi-head" of the released code of arXiv 2307.16867 (JieShibo/PETL-ViT).
    """
    return Head(nn.Linear(features, classes, bias=False), 1)


@HEADS.register("bits2")
def bits2(features: int, classes: int) -> Head:
    """Build a head of 2 bits per weight without bias; before coding it takes 2 / 8 bytes per weight + 8."""
    return Head(nn.Linear(features, classes, bias=False), 2)


@HEADS.register("bits3")
def bits3(features: int, classes: int) -> Head:
    """Build a head of 3 bits per weight without bias; before coding it takes 3 / 8 bytes per weight + 8."""
    return Head(nn.Linear(features, classes, bias=False), 3)


@HEADS.register("bits4")
def bits4(features: int, classes: int) -> Head:
    """Build a head of 4 bits per weight without bias; before coding it takes 4 / 8 bytes per weight + 8."""
    return Head(nn.Linear(features, classes, bias=False), 4)


@HEADS.register("bits8")
def bits8(features: int, classes: int) -> Head:
    """Build a head of 8 bits per weight without bias; before coding it takes 8 / 8 bytes per weight + 8."""
    return Head(nn.Linear(features, classes, bias=False), 8)
