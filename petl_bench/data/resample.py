"""Bicubic enlargement of 8-bit images on any device, bit-identical to PIL's.

Small images are kept in their native size and enlarged here, batch by batch. Pillow resizes in two passes,
with filter weights rounded to 22 fractional bits and a result rounded and clipped to 8 bits after each pass.
The filter is Keys' cubic convolution with a = -0.5, widened along an axis that shrinks. Enlargements process
the columns first; since Pillow 13 some reductions of the height process the rows first, so that only
enlargements are the same in all versions.

Source: Pillow, src/libImaging/Resample.c.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

PRECISION = 22
"""Fractional bits of filter weights."""

A = -0.5
"""Parameter of the cubic filter."""


def bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Enlarge images as PIL.Image.resize with BICUBIC does.

    Args:
        images: (..., H, W), uint8.
        height, width: new size in pixels.

    Returns:
        The enlarged images (..., height, width), uint8.
    """
    if images.shape[-1] != width:
        images = _rounded(images.double() @ _weights(images.shape[-1], width, images.device).T)
    if images.shape[-2] != height:
        images = _rounded(_weights(images.shape[-2], height, images.device) @ images.double())
    return images


def _rounded(sums: Tensor) -> Tensor:
    """Round fixed-point sums, which are exact in float64, to 8 bits."""
    return ((sums + (1 << (PRECISION - 1))) / (1 << PRECISION)).floor_().clamp_(0, 255).to(torch.uint8)


@cache
def _weights(old: int, new: int, device: torch.device) -> Tensor:
    """Return the fixed-point weights (new, old) of each source position in each target position, float64.

    They are kept, so that a training copies them to its device once.
    """
    step = old / new
    widened = max(step, 1.0)
    reach = 2 * widened
    weights = torch.zeros(new, old, dtype=torch.float64)
    for target in range(new):
        centre = (target + 0.5) * step
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), old)
        values = [_cubic((source - centre + 0.5) / widened) for source in range(first, last)]
        total = sum(values)
        for source, value in enumerate(values, first):
            scaled = value / total * (1 << PRECISION)
            weights[target, source] = int(scaled - 0.5) if scaled < 0 else int(scaled + 0.5)
    return weights.to(device)


def _cubic(x: float) -> float:
    """Return the value of Keys' cubic filter."""
    x = abs(x)
    if x < 1:
        return ((A + 2) * x - (A + 3)) * x * x + 1
    if x < 2:
        return (((x - 5) * x + 8) * x - 4) * A
    return 0.0
