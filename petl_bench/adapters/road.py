"""RoAd (Liao and Monz 2024, arXiv 2409.00119): pairs of outputs are rotated and stretched.

    (u, w) -> (1 + s a) * (cos(s t) u - sin(s t) w,  sin(s t) u + cos(s t) w)

for the outputs of the projections of queries and values. u and w are the first and the second half of each
group of 64 neighboring outputs, or of all outputs if 64 does not divide them; t and a (outputs / 2,) are
trained, `*` multiplies elements, and s is the fixed scale. t and a are initialized with zeros, or near zero
below 32 bits, so that training starts at the frozen backbone.

Source: huggingface/peft, tuners/road, variant road_1, where the pairs have an angle and a length of their own
and s is 1. Blocks without attention have the same change on both linears of their MLP, a translation by this
project, as is the quantization of t and of the difference a of the length from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.outputs import ChangedOutputs, change_slices
from petl_bench.adapters.rows import Rows, Stack, first_values
from petl_bench.backbones.sites import Sites, widths
from petl_bench.errors import UserError

GROUP = 64
"""Number of outputs of a group."""


@dataclass(frozen=True)
class RoAdConfig:
    """Settings of the method, which has none."""


class Rotated(nn.Module):
    """Rotation and stretching of pairs.

    Args:
        angles, lengths: modules that return t and a (1, width / 2).
        group: width of a group, whose halves form pairs.
        scale: fixed factor of t and a.
    """

    def __init__(self, angles: Rows, lengths: Rows, group: int, scale: float) -> None:
        super().__init__()
        self.angles = angles
        self.lengths = lengths
        self.group = group
        self.scale = scale

    def forward(self, y: Tensor) -> Tensor:
        """Return y (..., width) with its pairs changed."""
        angles, lengths = (self.scale * rows()[0] for rows in (self.angles, self.lengths))
        parts = ((1 + lengths) * angles.cos(), (1 + lengths) * angles.sin())
        cos, sin = (part.to(y.dtype).view(-1, self.group // 2) for part in parts)
        u, w = y.unflatten(-1, (-1, self.group)).chunk(2, -1)
        return torch.cat([cos * u - sin * w, sin * u + cos * w], -1).flatten(-2)


@adapter(
    "road",
    description="Pairs of outputs of q and v are rotated and stretched (RoAd, arXiv 2409.00119).",
    config=RoAdConfig,
    group="selective",
    tokenwise=True,
    unused={"hidden": 1, "start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: RoAdConfig) -> Attached:
    """Attach rows of `angles` and `lengths` (linears, outputs / 2): outputs weights per linear and 0 floats.

    Raises:
        UserError: a linear has an odd number of outputs.
    """
    angles, lengths = Stack(), Stack()

    def rotated(width: int) -> Rotated:
        if width % 2:
            raise UserError(f"this adapter pairs outputs, but a linear has {width}: choose another one")
        pairs = angles.rows(1, width // 2), lengths.rows(1, width // 2)
        return Rotated(*pairs, width if width % GROUP else GROUP, shape.scale)

    for block in sites.blocks:
        if "qkv" in block.linears:
            change_slices(block, "qv", rotated)
            continue
        for role in ("fc1", "fc2"):
            slot = block.linear(role)
            slot.set(ChangedOutputs(slot.get(), {"all": rotated(widths(slot)[1])}))
    attached = Attached(float32=True)  # small angles vanish in bfloat16
    angles.declare(attached, "angles", first_values(shape))
    lengths.declare(attached, "lengths", first_values(shape))
    return attached
