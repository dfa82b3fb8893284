"""Latent weights: the float32 weights that training updates, kept apart from the linears that use them.

Latent weights of equal shape are stacked into one parameter, which is quantized and cast in one operation
before each forward pass. A matrix that several modules share is quantized once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from petl_bench.quantizers.base import FakeQuantize


class LatentStack:
    """The latent weights of linears of one shape.

    Args:
        linears: bias-free linears with weights (outputs, inputs) of one shape; their weights are removed
            until `materialize` is called.
        quantizer: on `device`; None leaves the weights as they are.
        dtype: dtype that the linears compute in.
        device: device of the latent weights.

    Attributes:
        latent: parameter (linears, outputs, inputs), float32.
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
        """Give each linear its quantized weight (outputs, inputs), differentiable in the latent weights."""
        weights = self.latent if self.quantizer is None else self.quantizer(self.latent)
        for linear, weight in zip(self.linears, weights.to(self.dtype).unbind(), strict=True):
            setattr(linear, "weight", weight)  # noqa: B010 - a tensor where nn.Linear declares a Parameter


def stack_by_shape(
    linears: Iterable[nn.Linear], quantizer: FakeQuantize | None, dtype: torch.dtype, device: torch.device
) -> list[LatentStack]:
    """Return one stack per shape of weight, in the order of the first linear of each shape.

    Args:
        linears: bias-free linears, whose weights are removed.
        quantizer: on `device`; None leaves the weights as they are.
        dtype: dtype that the linears compute in.
        device: device of the latent weights.
    """
    shapes: dict[torch.Size, list[nn.Linear]] = {}
    for linear in linears:
        shapes.setdefault(linear.weight.shape, []).append(linear)
    return [LatentStack(same, quantizer, dtype, device) for same in shapes.values()]
