"""C3A (Chen et al. 2024, arXiv 2407.19342): updates of weights made of circulant blocks.

    y = W x + bias + s * D x

W (outputs, inputs) and bias (outputs,) are the frozen projection of q or v. D consists of blocks (b, b), b =
`block`, and each block is a circulant matrix: entry [i, j] of it is entry (j - i) mod b of its trained kernel
(b,). A kernel of b numbers thus gives an update whose rank can be b. Kernels are divided by the number of
inputs, as in the source, times its square root, so that the size of an update does not depend on the width.

Kernels are initialized with zeros, or near zero below 32 bits. Source: huggingface/peft, tuners/c3a, where
kernels start from a Xavier distribution by default, away from the frozen backbone, and are applied by Fourier
transforms. Blocks without attention have the same updates on both linears of their MLP, a translation by this
project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import Delta, query_value
from petl_bench.adapters.rows import Stack, first_values
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError


@dataclass(frozen=True)
class C3AConfig:
    block: int = 0
    """Width of a circulant block, which divides inputs and outputs; 0 is the greatest width that does."""

    def __post_init__(self) -> None:
        if self.block < 0:
            raise ValueError(f"block must be at least 0, not {self.block}")


class CirculantDelta(Delta):
    """The update scale / sqrt(inputs) * D, where D consists of circulant blocks.

    Args:
        kernels: module that returns the kernels (blocks of rows * blocks of columns, block).
        size: shape (outputs, inputs) of the update.
        index: (j - i) mod block for the entries of a block, int64 (block, block).
        scale: fixed factor.
    """

    index: Tensor

    def __init__(self, kernels: nn.Module, size: tuple[int, int], index: Tensor, scale: float) -> None:
        super().__init__()
        self.kernels = kernels
        self.size = size
        self.factor = scale / math.sqrt(size[1])
        self.register_buffer("index", index, persistent=False)

    def product(self) -> Tensor:
        (outputs, inputs), block = self.size, len(self.index)
        blocks = self.kernels()[:, self.index].unflatten(0, (outputs // block, inputs // block))
        return self.factor * blocks.transpose(1, 2).reshape(outputs, inputs)


@cache
def circulant(block: int) -> Tensor:
    """Return (j - i) mod block for all i and j, int64 (block, block)."""
    steps = torch.arange(block, device="cpu")
    return (steps - steps[:, None]) % block


@adapter(
    "c3a",
    description="Updates of q and v made of circulant blocks (C3A, arXiv 2407.19342).",
    config=C3AConfig,
    group="reparameterized",
    tokenwise=True,
    unused={"hidden": 1, "start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: C3AConfig) -> Attached:
    """Attach inputs * outputs / block weights per linear, in the rows of the matrix `kernels`, and 0 floats.

    Raises:
        UserError: the width of blocks does not divide inputs and outputs of a linear.
    """
    stack = Stack()

    def update(name: str, inputs: int, outputs: int) -> CirculantDelta:
        block = config.block or math.gcd(inputs, outputs)
        if inputs % block or outputs % block:
            raise UserError(
                f"adapter.block={block} does not divide the {inputs} inputs and {outputs} outputs of {name}"
            )
        kernels = stack.rows(inputs * outputs // block**2, block)
        return CirculantDelta(kernels, (outputs, inputs), circulant(block), shape.scale)

    for number, block in enumerate(sites.blocks):
        query_value(block, number, update)
    attached = Attached()
    stack.declare(attached, "kernels", first_values(shape))
    return attached
