"""SSF (Lian et al. 2022, arXiv 2210.08823; repository dongzelian/SSF): scale and shift after every operation.

    y -> scale * y + shift, of each channel, after every linear, convolution and norm

Both start at random, so that training does not begin at the frozen backbone. The source has its last pair
of ConvNeXt before the pooling and the norm of the head; here it is after that norm, an operation as any
other, so that every pair merges exactly into the operation before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Mergeable, Shape, adapter
from petl_bench.backbones.sites import Sites

DEVIATION = 0.02
"""Of scales around 1 and of shifts around 0 at the start."""


@dataclass(frozen=True)
class SSFConfig:
    """No settings."""


class ScaleShift(Mergeable):
    """A frozen operation, then scale * y + shift with a number for each channel.

    Attributes:
        scale, shift: (channels,).
    """

    def __init__(
        self, operation: nn.Module, scale: nn.Parameter, shift: nn.Parameter, channels_first: bool
    ) -> None:
        super().__init__()
        self.operation = operation
        self.scale = scale
        self.shift = shift
        self.after = (1, 1) if channels_first else ()

    def forward(self, x: Tensor) -> Tensor:
        """What the operation takes; result (batch, ..., channels), or (batch, channels, height, width)."""
        scale, shift = (value.view(-1, *self.after) for value in (self.scale, self.shift))
        return torch.addcmul(shift, self.operation(x), scale)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The operation, its outputs scaled and shifted by its own weight and bias."""
        operation = self.operation
        assert isinstance(operation, nn.Linear | nn.Conv2d | nn.LayerNorm)
        operation.weight *= self.scale.view(-1, *[1] * (operation.weight.dim() - 1))
        bias = self.shift if operation.bias is None else self.scale * operation.bias + self.shift
        operation.bias = nn.Parameter(bias.clone())
        return operation


@adapter("ssf", config=SSFConfig, group="selective", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: SSFConfig) -> Attached:
    """One pair an operation, in float32: 8 bytes a channel."""
    channels = [operation.channels for operation in sites.operations]

    def started(name: str, mean: float) -> list[nn.Parameter]:
        values = mean + initialization.normal(DEVIATION)(shape.seed, f"adapter.{name}", (1, sum(channels)))
        return [nn.Parameter(piece) for piece in torch.from_numpy(values[0]).split(channels)]

    scales, shifts = started("scales", 1.0), started("shifts", 0.0)
    for operation, scale, shift in zip(sites.operations, scales, shifts, strict=True):
        slot = operation.slot
        slot.set(ScaleShift(slot.get(), scale, shift, operation.channels_first))
    return Attached(floats={"scales": scales, "shifts": shifts})
