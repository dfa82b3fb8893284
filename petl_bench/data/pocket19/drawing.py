"""Images from masks, lines and photographs, in integers.

Lengths are in units of 1/256 of a pixel of the 32x32 image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.random import RandomState
from PIL import Image

from petl_bench.data.base import Pixels
from petl_bench.data.bundled import SIZE, luma, package_file
from petl_bench.data.pocket19.outlines import COSINE, MASK, ONE, SINE
from petl_bench.data.pocket19.parts import Numbers

UNIT = 256
MIDDLE = SIZE // 2 * UNIT
"""Parts of a pixel that positions are counted in, and the middle of an image in them."""
FINE = 2
"""Samples per pixel and axis."""
_SHIFT = 12
assert 1 << _SHIFT == ONE

TRAINING_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
TEST_PHOTOGRAPHS = ("camera", "coins", "motorcycle_left")


def column(values: Numbers) -> Numbers:
    """Return numbers (N,) as (N, 1, 1), 32 bits wide, to combine them with images."""
    return values.astype(np.int32)[:, None, None]


def stamp(masks: Pixels, which: Numbers, x: Numbers, y: Numbers, size: Numbers, angle: Numbers) -> Numbers:
    """Return the coverage (N, 32, 32) in 0..255 of masks that are scaled, turned and placed.

    Args:
        masks: (K, S, S).
        which: (N,) index of the mask.
        x, y: (N,) centers in units, from the left and from the top.
        size: (N,) side of the whole mask in units.
        angle: (N,) degrees, clockwise.
    """
    side = masks.shape[1]
    grid = (np.arange(SIZE * FINE, dtype=np.int32) * 2 + 1) * (UNIT // FINE // 2)
    right, down = grid[None, None, :] - column(x), grid[None, :, None] - column(y)
    cosine, sine = column(COSINE[angle % 360]), column(SINE[angle % 360])
    scale = column((side << _SHIFT) // size)
    u = (((right * cosine + down * sine) >> _SHIFT) * scale >> _SHIFT) + side // 2
    v = (((down * cosine - right * sine) >> _SHIFT) * scale >> _SHIFT) + side // 2
    inside = (u >= 0) & (u < side) & (v >= 0) & (v < side)
    found = masks.reshape(-1)[np.where(inside, (column(which) * side + v) * side + u, 0)]
    return _means(np.where(inside, found, 0))


def _means(fine: Numbers) -> Numbers:
    """Return the means of FINE x FINE samples, rounded down: (N, 64, 64) -> (N, 32, 32)."""
    pairs = fine[:, 0::2].astype(np.int32) + fine[:, 1::2]
    return (pairs[:, :, 0::2] + pairs[:, :, 1::2]) // FINE**2


def line(x0: Numbers, y0: Numbers, x1: Numbers, y1: Numbers, width: Numbers) -> Numbers:
    """Return the coverage (N, 32, 32) in 0..255 of straight strokes with round ends.

    Args:
        x0, y0, x1, y1: (N,) ends in units.
        width: (N,) width of the stroke in units.
    """
    grid = np.arange(SIZE, dtype=np.int32) * UNIT + UNIT // 2
    right, down = grid[None, None, :] - column(x0), grid[None, :, None] - column(y0)
    a, b = column(x1 - x0), column(y1 - y0)
    share = (right * a + down * b) // np.maximum((a * a + b * b) >> 8, 1)  # 0 to 256 along the stroke
    share = np.clip(share, 0, 256)
    right, down = right - (a * share >> 8), down - (b * share >> 8)
    return _soft(right * right + down * down, column(width) // 2)


def _soft(squared: Numbers, radius: Numbers) -> Numbers:
    """Return the coverage of discs by squared distance; it falls from 255 to 0 within about one pixel."""
    inner, outer = np.maximum(radius - UNIT // 2, 0), radius + UNIT // 2
    span = outer * outer - inner * inner
    return np.clip((outer * outer - squared) * 8 // (span // 32 + 1), 0, 255)


def spot(x: Numbers, y: Numbers, radius: Numbers) -> Numbers:
    """Return the coverage (N, 32, 32) in 0..255 of discs with center and radius in units."""
    grid = np.arange(SIZE, dtype=np.int32) * UNIT + UNIT // 2
    right, down = grid[None, None, :] - column(x), grid[None, :, None] - column(y)
    return _soft(right * right + down * down, column(radius))


def paint(image: Numbers, coverage: Numbers, level: Numbers) -> Numbers:
    """Return images (N, 32, 32) after painting a grey level (N,) where it covers them."""
    return image + (column(level) - image) * coverage // 255


@cache
def photograph(name: str) -> Pixels:
    """Return a photograph of scikit-image in grey."""
    return luma(np.asarray(Image.open(package_file("skimage", f"data/{name}.png")))).astype(np.uint8)


def crops(
    random: RandomState, names: Sequence[str], which: Numbers, test: bool | None, stripe: int = 64
) -> Numbers:
    """Return square pieces (N, 32, 32) of photographs, mirrored at random.

    Args:
        names: the photographs.
        which: (N,) index of the photograph.
        test: cut from each third vertical stripe only, or, if False, from the other stripes; None: from
            anywhere.
        stripe: width of a stripe in pixels.
    """
    pieces = np.empty((len(which), SIZE, SIZE), np.int32)
    for piece, index in zip(pieces, which, strict=True):
        image = photograph(names[index])
        height, width = image.shape
        top = random.randint(height - SIZE + 1)
        left = random.randint(width - SIZE + 1)
        if test is not None:
            stripes = [k for k in range(width // stripe) if (k % 3 == 2) == test]
            left = stripes[random.randint(len(stripes))] * stripe + random.randint(stripe - SIZE + 1)
        piece[:] = image[top : top + SIZE, left : left + SIZE]
        if random.randint(2):
            piece[:] = piece[:, ::-1].copy()
    return pieces


def scene(
    random: RandomState, count: int, test: bool, busy: bool = False
) -> tuple[Numbers, Numbers, Numbers]:
    """Return pieces of photographs with low contrast, as backgrounds, and grey levels that stand out.

    Args:
        test: cut from the photographs of test images.
        busy: keep more of the photographs' contrast.

    Returns:
        Images (N, 32, 32); their mean grey levels (N,); and levels (N,) that are 70 to 110 lighter or darker.
    """
    names = TEST_PHOTOGRAPHS if test else TRAINING_PHOTOGRAPHS
    pieces = crops(random, names, random.randint(len(names), size=count), None)
    mean = random.randint(50, 206, size=count)
    share = random.randint(60 if busy else 20, 180 if busy else 90, size=count)  # contrast in 1/256
    deviation = pieces - pieces.sum(axis=(1, 2), keepdims=True) // SIZE**2
    images = np.clip(column(mean) + (deviation * column(share) >> 8), 0, 255)
    return images, mean, contrasting(random, mean)


def contrasting(random: RandomState, mean: Numbers) -> Numbers:
    """Return grey levels (N,) that are 70 to 110 lighter or darker than given ones."""
    step = random.randint(70, 111, size=len(mean))
    lighter = np.where(mean < 110, True, np.where(mean > 145, False, random.randint(2, size=len(mean)) == 1))
    return np.clip(np.where(lighter, mean + step, mean - step), 0, 255)


def noise(random: RandomState, count: int, most: int) -> Numbers:
    """Return noise (N, 32, 32): the sum of two uniform numbers from -most to most."""
    first, second = random.randint(-most, most + 1, size=(2, count, SIZE, SIZE))
    return (first + second).astype(np.int32)


def between(random: RandomState, low: float, high: float, count: int) -> Numbers:
    """Return random lengths (N,) in units, between two lengths in pixels."""
    return random.randint(round(low * UNIT), round(high * UNIT) + 1, size=count)


assert MASK << _SHIFT < 1 << 31
