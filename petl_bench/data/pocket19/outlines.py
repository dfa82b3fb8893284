"""Masks of outlines: polygons, and glyphs of the fonts that Matplotlib ships, filled in exact arithmetic.

FreeType is not used, because its pixels differ from release to release.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from petl_bench.data.base import Pixels
from petl_bench.data.bundled import package_file
from petl_bench.data.pocket19.parts import Numbers

MASK = 96
"""Side of a mask in pixels."""
SUB = 16
"""Units of an outline's coordinates per pixel of the mask."""
FULL = MASK * SUB
"""Side of a mask in units."""
DEGREES = 360
ONE = 4096
COSINE = np.array([round(math.cos(math.radians(k)) * ONE) for k in range(DEGREES)], np.int32)
SINE = np.array([round(math.sin(math.radians(k)) * ONE) for k in range(DEGREES)], np.int32)

Outline = Sequence[tuple[int, int]]
"""Corners of one closed polygon, x to the right and y down."""


def fill(outlines: Iterable[Outline]) -> Pixels:
    """Return the mask (MASK, MASK) of polygons by the non-zero winding rule: 255 inside, 0 outside.

    Args:
        outlines: polygons with coordinates from 0 to FULL; what lies outside is cut off.
    """
    winding = np.zeros((MASK, MASK + 1), np.int32)
    edges = [edge for outline in outlines for edge in pairwise([*outline, outline[0]])]
    x0, y0, x1, y1 = np.array(edges, np.int64).reshape(-1, 4, 1).transpose(1, 0, 2)
    middle = np.arange(MASK) * SUB + SUB // 2
    edge, row = np.nonzero((middle >= np.minimum(y0, y1)) & (middle < np.maximum(y0, y1)))
    x0, y0, x1, y1 = (each[edge, 0] for each in (x0, y0, x1, y1))
    cross = x0 + (middle[row] - y0) * (x1 - x0) // (y1 - y0)
    column = np.clip((cross + SUB // 2) // SUB, 0, MASK)  # the first pixel whose middle lies to the right
    np.add.at(winding, (row, column), np.where(y1 > y0, 1, -1))
    return np.where(winding[:, :MASK].cumsum(axis=1) != 0, 255, 0).astype(np.uint8)


def polar(radius: Sequence[int] | Numbers, x: int = FULL // 2, y: int = FULL // 2) -> Outline:
    """Return the polygon around (x, y) whose corners lie at equal angles and at the given radii in units."""
    angle = [k * DEGREES // len(radius) for k in range(len(radius))]
    return [
        (x + int(r) * int(COSINE[a]) // ONE, y + int(r) * int(SINE[a]) // ONE)
        for r, a in zip(radius, angle, strict=True)
    ]


def disc(radius: int, x: int = FULL // 2, y: int = FULL // 2) -> Outline:
    """Return a disc as a polygon of 36 corners."""
    return polar([radius] * 36, x, y)


@cache
def glyph(font: str, character: str, whole_em: bool = False) -> Pixels:
    """Return the mask of a character.

    Args:
        font: name of a font file of Matplotlib, without `.ttf`.
        character: the character.
        whole_em: keep the font's proportions: the em square, a little enlarged, fills the mask. Otherwise the
            character itself fills the mask.
    """
    contours = _contours(font, character)
    points = np.array([point for contour in contours for point in contour])
    low, high = points.min(axis=0), points.max(axis=0)
    side = int((high - low).max())
    if whole_em:
        side = _font(font)["head"].unitsPerEm * _FLAT
        low[1], high[1] = -side // 4, side * 3 // 4
    offset = (low + high) // 2
    scale = FULL * 15 // 16
    return fill(
        [
            (
                FULL // 2 + (x - int(offset[0])) * scale // side,
                FULL // 2 - (y - int(offset[1])) * scale // side,
            )
            for x, y in contour
        ]
        for contour in contours
    )


_STEPS = 5
"""Lines by which a curve of an outline is replaced."""
_FLAT = 2 * _STEPS * _STEPS
"""Factor by which a font's units are refined, so that points of curves are whole numbers."""


@cache
def _font(name: str) -> Any:  # fontTools is untyped
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it reports odd dates in some of the files
    return TTFont(package_file("matplotlib", f"mpl-data/fonts/ttf/{name}.ttf"))


def _contours(font: str, character: str) -> list[Outline]:
    """Return the outlines of a character in units of the font times `_FLAT`, y up, curves as lines."""
    file = _font(font)
    table = file["glyf"]
    name = file.getBestCmap()[ord(character)]
    coordinates, ends, flags = table[name].getCoordinates(table)
    contours: list[Outline] = []
    start = 0
    for end in ends:
        points = [(2 * int(x), 2 * int(y)) for x, y in coordinates[start : end + 1]]
        contours.append(_flat(points, [bool(flag & 1) for flag in flags[start : end + 1]]))
        start = end + 1
    return contours


def _flat(points: Sequence[tuple[int, int]], on: Sequence[bool]) -> Outline:
    """Return a contour of TrueType as a polygon; points are doubled coordinates, results times `_STEPS`².

    Between two control points off the curve lies a point on the curve that the file leaves out.
    """
    full: list[tuple[tuple[int, int], bool]] = []
    for here, is_on, before, was_on in zip(
        points, on, [points[-1], *points[:-1]], [on[-1], *on[:-1]], strict=True
    ):
        if not is_on and not was_on:
            full.append((((here[0] + before[0]) // 2, (here[1] + before[1]) // 2), True))
        full.append((here, is_on))
    first = next(index for index, (_, is_on) in enumerate(full) if is_on)
    full = full[first:] + full[: first + 1]
    flat: list[tuple[int, int]] = []
    for index, (here, is_on) in enumerate(full[:-1]):
        if is_on:
            flat.append((here[0] * _STEPS**2, here[1] * _STEPS**2))
        else:
            (a, _), (c, _) = full[index - 1], full[index + 1]
            for k in range(1, _STEPS):
                s = _STEPS - k
                flat.append(
                    (
                        s * s * a[0] + 2 * s * k * here[0] + k * k * c[0],
                        s * s * a[1] + 2 * s * k * here[1] + k * k * c[1],
                    )
                )
    return flat
