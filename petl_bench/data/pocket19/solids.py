"""Shaded solids: blocks under parallel projection, in integers."""

from __future__ import annotations

from functools import cache

import numpy as np

from petl_bench.data.base import Pixels
from petl_bench.data.pocket19.outlines import COSINE, ONE, SINE

SIDE = 64
AZIMUTHS, ELEVATIONS = 36, 3
Box = tuple[int, int, int, int, int, int]
BOXES: tuple[tuple[Box, ...], ...] = (
    ((-40, 40, -22, 22, -25, 0), (8, 40, -22, 22, 0, 28)),  # a chair: a seat and a back
    ((-40, 40, -12, 12, -20, 5), (-40, -16, -12, 38, -20, 5)),  # an L on the ground
    ((-36, 36, -20, 20, -25, -5), (-36, -10, -20, 4, -5, 30)),  # a tower in one corner
)
"""Solids of boxes: lowest and highest x, y and z, about the origin, with z up."""
SOLIDS = len(BOXES)
FINE = 64
"""Units of a ray's coordinates per unit of a box."""
LIGHTS = (95, 255, 160)
"""Grey level of faces to the left of, towards and to the right of the viewer; tops are in between."""


@cache
def solids() -> tuple[Pixels, Pixels]:
    """Return grey levels (0 outside) and masks, both (SOLIDS * ELEVATIONS * AZIMUTHS, SIDE, SIDE)."""
    grey = [
        _render(boxes, 10 * azimuth, 20 + 15 * up)
        for boxes in BOXES
        for up in range(ELEVATIONS)
        for azimuth in range(AZIMUTHS)
    ]
    images = np.stack(grey)
    return images, np.where(images > 0, 255, 0).astype(np.uint8)


def _render(boxes: tuple[Box, ...], azimuth: int, elevation: int) -> Pixels:
    """Return one view of a solid: for each pixel the face that its ray meets first.

    The ray of pixel (u, v) starts at u * right + v * up, and runs along `view` in both directions.
    """
    cosine, sine = int(COSINE[azimuth]), int(SINE[azimuth])
    high, flat = int(SINE[elevation]), int(COSINE[elevation])
    right = (-sine, cosine, 0)
    above = (-cosine * high // ONE, -sine * high // ONE, flat)
    view = (cosine * flat // ONE, sine * flat // ONE, high)  # towards the viewer
    across = (2 * np.arange(SIDE) + 1 - SIDE) * 54 * FINE // SIDE
    u, v = across[None, :], -across[:, None]
    best = np.full((SIDE, SIDE), -(1 << 40), np.int64)
    image = np.zeros((SIDE, SIDE), np.int64)
    for box in boxes:
        nearest, farthest = np.full_like(best, 1 << 40), np.full_like(best, -(1 << 40))
        shade = np.zeros_like(image)
        for axis in range(3):
            start = (u * right[axis] + v * above[axis]) // ONE
            low, up = box[2 * axis] * FINE - start, box[2 * axis + 1] * FINE - start
            if abs(view[axis]) < ONE // 1000:
                nearest = np.where((low <= 0) & (up >= 0), nearest, -(1 << 40))
                continue
            front, back = (up, low) if view[axis] > 0 else (low, up)
            enter, leave = front * ONE // view[axis], back * ONE // view[axis]
            shade = np.where(enter < nearest, _shade(axis, view[axis] > 0, right), shade)
            nearest, farthest = np.minimum(nearest, enter), np.maximum(farthest, leave)
        seen = (nearest > farthest) & (nearest > best)
        best, image = np.where(seen, nearest, best), np.where(seen, shade, image)
    return image.astype(np.uint8)


def _shade(axis: int, positive: bool, right: tuple[int, int, int]) -> int:
    """Return the grey level of a face by how far it looks to the left, where the light is."""
    if axis == 2:
        return 235
    leftward = -right[axis] if positive else right[axis]
    return 130 + 90 * leftward // ONE
