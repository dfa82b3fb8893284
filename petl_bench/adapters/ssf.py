"""SSF (Lian et al. 2022, arXiv 2210.08823; repository dongzelian/SSF): scale and shift after every operation.

    y' = scale * y + shift    with y (..., channels), scale and shift (channels,)

y is the output of a linear, convolution or norm of the frozen backbone. Scales are drawn from a normal
distribution around 1 and shifts from one around 0, both with standard deviation 0.02, so that training does
not start exactly at the frozen backbone. Every pair merges exactly into the operation before it.

Differences from the source: in ConvNeXt, the repository applies the last pair before pooling and the norm of
the head, where it does not merge. Here it follows that norm, as it follows every other operation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Mergeable, Shape, adapter
from petl_bench.backbones.sites import Sites

STD = 0.02
"""Standard deviation of the initial scales around 1 and of the initial shifts around 0."""


@dataclass(frozen=True)
class SSFConfig:
    """Settings of the method, which has none."""


class ScaleShift(Mergeable):
    """A frozen operation, followed by scale * y + shift with one scale and one shift per channel.

    Args:
        operation: linear, convolution or layer norm.
        scale, shift: (channels,).
        channels_first: whether outputs are (batch, channels, height, width), not (batch, ..., channels).
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
        """Map an input of the operation to (batch, ..., channels), or to (batch, channels, height, width)."""
        scale, shift = (value.view(-1, *self.after) for value in (self.scale, self.shift))
        return torch.addcmul(shift, self.operation(x), scale)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Return the operation after scale and shift have been merged into its weight and bias."""
        operation = self.operation
        assert isinstance(operation, nn.Linear | nn.Conv2d | nn.LayerNorm)
        scale = self.scale.view(-1, *[1] * (operation.weight.dim() - 1))
        operation.weight = nn.Parameter(operation.weight * scale)
        bias = self.shift if operation.bias is None else self.scale * operation.bias + self.shift
        operation.bias = nn.Parameter(bias.clone())
        return operation


@adapter(
    "ssf",
    description="Scale and shift after every operation of the backbone, in float32 (arXiv 2210.08823).",
    config=SSFConfig,
    group="selective",
    tokenwise=True,
    unused={"hidden": 0, "scale": 1.0, "bits": 32},
)
def attach(sites: Sites, shape: Shape, config: SSFConfig) -> Attached:
    """Add a scale and a shift to every operation: 0 weights and 2 * channels floats per operation.

    Floats are stored in 4 bytes each: `scales` of all operations, then `shifts`.
    """
    channels = [operation.channels for operation in sites.operations]

    def started(name: str, mean: float) -> list[nn.Parameter]:
        values = mean + initialization.normal(STD)(shape.seed, f"adapter.{name}", (1, sum(channels)))
        return [nn.Parameter(piece) for piece in torch.from_numpy(values[0]).split(channels)]

    scales, shifts = started("scales", 1.0), started("shifts", 0.0)
    for operation, scale, shift in zip(sites.operations, scales, shifts, strict=True):
        slot = operation.slot
        slot.set(ScaleShift(slot.get(), scale, shift, operation.channels_first))
    return Attached(floats={"scales": scales, "shifts": shifts})
