"""Latent weights in stacks: same-shape matrices are one parameter, apart from the linears that use them.

Before each forward pass a stack is quantized and cast to what its linears compute in, in one operation, and
they get their weights; a matrix that several modules share is quantized once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from petl_bench.quantizers.base import FakeQuantize


class LatentStack:
    """Matrices of one shape.

    Attributes:
        latent: (matrices, outputs, inputs) float32, what training updates.
    """

    def __init__(
        self,
        linears: Sequence[nn.Linear],
        quantizer: FakeQuantize | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.linears = linears
        self.quantizer = quantizer
        self.dtype = dtype
        self.latent = nn.Parameter(torch.stack([linear.weight.detach() for linear in linears]).to(device))
        for linear in linears:
            del linear.weight

    def materialize(self) -> None:
        """Give each linear its weight, (outputs, inputs) of the dtype, differentiable in the latent."""
        weights = self.latent if self.quantizer is None else self.quantizer(self.latent)
        for linear, weight in zip(self.linears, weights.to(self.dtype).unbind(), strict=True):
            setattr(linear, "weight", weight)  # noqa: B010 - a tensor where nn.Linear declares a Parameter


def stack_by_shape(
    linears: Iterable[nn.Linear], quantizer: FakeQuantize | None, dtype: torch.dtype, device: torch.device
) -> list[LatentStack]:
    """One stack a shape, in the order of each shape's first matrix.

    Args:
        quantizer: on the device; None leaves the weights as they are.
        dtype: what the linears compute in.
    """
    shapes: dict[torch.Size, list[nn.Linear]] = {}
    for linear in linears:
        shapes.setdefault(linear.weight.shape, []).append(linear)
    return [LatentStack(same, quantizer, dtype, device) for same in shapes.values()]
