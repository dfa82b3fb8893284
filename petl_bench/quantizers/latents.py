"""Latent weights: the float32 weights that training updates, kept apart from the linears that use them.

Latent weights of equal shape are stacked into one parameter, which is quantized and cast in one operation
before each forward pass. A matrix that several modules share is quantized once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

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


class JointStack:
    """The latent weights of linears of any shapes that are standardized together, by one mean and one std.

    Args:
        linears: bias-free linears; their weights are removed until `materialize` is called.
        quantizer: on `device`.
        dtype: dtype that the linears compute in.
        device: device of the latent weights.

    Attributes:
        latent: parameter (1, weights), float32: the weights of all linears, one after another.
    """

    def __init__(
        self, linears: Sequence[nn.Linear], quantizer: FakeQuantize, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.linears = linears
        self.quantizer = quantizer
        self.dtype = dtype
        self.shapes = [linear.weight.shape for linear in linears]
        values = torch.cat([linear.weight.detach().flatten() for linear in linears])
        self.latent = nn.Parameter(values[None].to(device))
        for linear in linears:
            del linear.weight

    def materialize(self) -> None:
        """Give each linear its quantized weight (outputs, inputs), differentiable in the latent weights."""
        weights = self.split(self.quantizer(self.latent).to(self.dtype))
        for linear, weight in zip(self.linears, weights, strict=True):
            setattr(linear, "weight", weight)  # noqa: B010 - a tensor where nn.Linear declares a Parameter

    def split(self, values: Tensor) -> list[Tensor]:
        """Return the values (1, weights) of each linear in the shape of its weight, sharing memory."""
        pieces = values[0].split([shape.numel() for shape in self.shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


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
