"""Bundled tasks of drawn images: single sprites as in dSprites, and scenes of several shapes to count.

The images are the same on every machine: all arithmetic that decides a pixel uses integers, and random
numbers come from numpy's RandomState, whose stream is frozen. Lengths are in 1/256 of a canvas pixel.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from petl_bench.data.base import GENERATORS, Split

Integers = NDArray[np.int64]

UNIT = 256
CANVAS = 64  # twice the side of the image; means of 2x2 pixels give five grey levels
ORIENTATIONS = 40
POSITIONS = 32
WINDOW = 32  # of the canvas; the largest sprite reaches 15 pixels from its centre
SCALES = 6
BINS = 16

_ANGLES = [2 * math.pi * k / ORIENTATIONS for k in range(ORIENTATIONS)]
COSINE = np.array([round(math.cos(a) * UNIT) for a in _ANGLES], np.int64)
SINE = np.array([round(math.sin(a) * UNIT) for a in _ANGLES], np.int64)


def draw(
    kind: Integers, size: Integers, orientation: Integers, x: Integers, y: Integers, canvas: int
) -> NDArray[np.bool_]:
    """Return masks (N, canvas, canvas) of squares (kind 0), ellipses (1) and hearts (2).

    Args:
        kind: (N,).
        size: (N,) half the side of the square in units.
        orientation: (N,) number of the angle, from 0 to ORIENTATIONS - 1.
        x, y: (N,) center in units, from the left and from the top.
        canvas: side of the masks in pixels.
    """
    column = (slice(None), None, None)
    grid = np.arange(canvas, dtype=np.int64) * UNIT + UNIT // 2
    right, down = grid[None, None, :] - x[column], grid[None, :, None] - y[column]
    cosine, sine = COSINE[orientation][column], SINE[orientation][column]
    u = (right * cosine + down * sine) // size[column]  # 256 at the edge of the square
    v = (down * cosine - right * sine) // size[column]
    square = np.maximum(abs(u), abs(v)) <= UNIT
    ellipse = u * u + 4 * v * v <= UNIT * UNIT * 5 // 3
    a, b = np.clip(u, -600, 600), np.clip(-v + 40, -600, 600)
    ring = a * a + b * b - UNIT * UNIT
    heart = ring * ring * ring <= UNIT * a * a * b * b * b
    return np.choose(kind[column], [square, ellipse, heart])


def shrink(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return masks (N, 64, 64) as grey images (N, 1, 32, 32) by means of 2x2 pixels; the inside is 255."""
    pairs = mask[:, 0::2].astype(np.uint16) + mask[:, 1::2]
    covered = pairs[:, :, 0::2] + pairs[:, :, 1::2]
    return (covered * 255 // 4).astype(np.uint8)[:, None]


def first_of_each(images: NDArray[np.uint8], count: int) -> NDArray[np.intp]:
    """Return the indices of the first `count` distinct images, so that no image is in two splits."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(images):
        first.setdefault(image.tobytes(), index)
    assert len(first) >= count
    return np.array(list(first.values())[:count])


def _sprites(count: int, seed: int) -> tuple[NDArray[np.uint8], Integers, Integers]:
    """Return images, horizontal positions (0..31) and orientations (0..39) of distinct random sprites."""
    random = np.random.RandomState(seed)
    total = count + count // 10
    kind, scale = random.randint(3, size=total), random.randint(SCALES, size=total)
    orientation = random.randint(ORIENTATIONS, size=total)
    column, row = random.randint(POSITIONS, size=(2, total))
    sprites = _all_sprites()[kind, scale, orientation]
    masks = np.zeros((total, CANVAS, CANVAS), np.bool_)
    for mask, sprite, left, top in zip(masks, sprites, column, row, strict=True):
        mask[top : top + WINDOW, left : left + WINDOW] = sprite
    images = shrink(masks)
    chosen = first_of_each(images, count)
    return images[chosen], column[chosen], orientation[chosen]


def _all_sprites() -> NDArray[np.bool_]:
    """Return masks (kinds, scales, orientations, WINDOW, WINDOW) of sprites centered on pixel WINDOW / 2."""
    kind, scale, orientation = np.indices((3, SCALES, ORIENTATIONS)).reshape(3, -1)
    size = (scale + 5) * UNIT  # half side 5 to 10 pixels of the canvas
    centre = np.full(len(kind), WINDOW // 2 * UNIT + UNIT // 2)
    masks = draw(kind, size, orientation, centre, centre, WINDOW)
    return masks.reshape(3, SCALES, ORIENTATIONS, WINDOW, WINDOW)


@GENERATORS.register("sprites_loc")
def sprites_loc(count: int) -> Split:
    """Return single sprites labelled by horizontal position in 16 bins, as VTAB's dSprites location task."""
    images, column, _ = _sprites(count, seed=1)
    return Split(images, column * BINS // POSITIONS)


@GENERATORS.register("sprites_ori")
def sprites_ori(count: int) -> Split:
    """Return single sprites labelled by orientation in 16 bins, as VTAB's dSprites orientation task.

    A square looks the same at four orientations and an ellipse at two, so that no method can reach 100 %.
    """
    images, _, orientation = _sprites(count, seed=2)
    return Split(images, orientation * BINS // ORIENTATIONS)


@GENERATORS.register("shapes_count")
def shapes_count(count: int) -> Split:
    """Return scenes of 1 to 8 shapes labelled by their number minus 1.

    The shapes differ in kind, size and grey level and never touch.
    """
    random = np.random.RandomState(3)
    cell, cells = CANVAS // 4, 16
    number = random.randint(1, 9, size=count)
    places = np.argsort(random.randint(1 << 30, size=(count, cells)), axis=1, kind="stable")
    scene = np.zeros((count, 4, cell // 2, 4, cell // 2), np.uint8)
    for k in range(8):
        kind, orientation = random.randint(3, size=count), random.randint(ORIENTATIONS, size=count)
        size = random.randint(3 * UNIT, 4 * UNIT + UNIT // 4, size=count)  # leaves the cell's border free
        x, y = cell * UNIT // 2 + random.randint(-UNIT, UNIT, size=(2, count))
        grey = random.randint(100, 256, size=(count, 1, 1, 1))
        shown = np.flatnonzero(k < number)
        masks = draw(kind[shown], size[shown], orientation[shown], x[shown], y[shown], cell)
        shapes = shrink(masks) * grey[shown] // 255
        row, column = np.divmod(places[shown, k], 4)
        scene[shown, row, :, column] = shapes[:, 0]
    return Split(scene.reshape(count, 1, CANVAS // 2, CANVAS // 2), number - 1)
