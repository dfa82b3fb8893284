"""(IA)3 (Liu et al. 2022, arXiv 2205.05638): keys, values and the inputs of fc2 are multiplied by vectors.

    keys = (1 + s k) * keys,    values = (1 + s v) * values,    fc2(x) -> fc2((1 + s h) * x)

k, v (dim,) and h (inputs of fc2,) are trained in each block, `*` multiplies elements, and s is the fixed
scale; with s = 1 and l = 1 + k these are the source's formulas. The vectors are initialized with zeros, or
near zero below 32 bits, so that training starts at the frozen backbone.

Source: section 3.3 of arXiv 2205.05638; huggingface/peft, tuners/ia3. Storing the difference from 1,
quantized as any other matrix, is a choice of this project. Blocks without attention have h alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Mergeable, Shape, adapter
from petl_bench.adapters.outputs import change_slices
from petl_bench.adapters.rows import Stack, first_values
from petl_bench.backbones.sites import Sites, widths


@dataclass(frozen=True)
class IA3Config:
    """Settings of the method, which has none."""


class Multiplied(nn.Module):
    """Multiplication by 1 + scale * vector.

    Args:
        vector: module that returns the vector (1, width).
        scale: fixed factor.
    """

    def __init__(self, vector: nn.Module, scale: float) -> None:
        super().__init__()
        self.vector = vector
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., width) times the factors."""
        return x * (1 + self.scale * self.vector()[0]).to(x.dtype)


class MultipliedInputs(Mergeable):
    """A frozen linear whose inputs are multiplied.

    Args:
        linear: the frozen linear.
        factors: module that multiplies (..., inputs).
    """

    def __init__(self, linear: nn.Module, factors: Multiplied) -> None:
        super().__init__()
        self.linear = linear
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        """Map x (batch, ..., inputs) to (batch, ..., outputs)."""
        result: Tensor = self.linear(self.factors(x))
        return result

    @torch.no_grad()
    def merged(self) -> nn.Module:
        linear = self.linear
        assert isinstance(linear, nn.Linear)
        linear.weight = nn.Parameter(self.factors(linear.weight))
        return linear


@adapter(
    "ia3",
    description="Factors of keys, values and hidden units of the MLP ((IA)3, arXiv 2205.05638).",
    config=IA3Config,
    group="selective",
    tokenwise=True,
    unused={"hidden": 1, "start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: IA3Config) -> Attached:
    """Attach rows of `attention` (2 * blocks, dim) and `mlp` (blocks, inputs of fc2): 0 floats.

    On a ViT these are 2 * dim + 4 * dim weights per block.

    Raises:
        UserError: a block has no fc2.
    """
    attention, mlp = Stack(), Stack()

    def multiplied(stack: Stack, width: int) -> Multiplied:
        return Multiplied(stack.rows(1, width), shape.scale)

    for block in sites.blocks:
        slot = block.linear("fc2")
        slot.set(MultipliedInputs(slot.get(), multiplied(mlp, widths(slot)[0])))
        if "qkv" in block.linears:
            change_slices(block, "kv", partial(multiplied, attention))
    attached = Attached()
    attention.declare(attached, "attention", first_values(shape))
    mlp.declare(attached, "mlp", first_values(shape))
    return attached
