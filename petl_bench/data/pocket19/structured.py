"""The eight structured tasks of suite `pocket19`: where, how large, how many, how far, which is highest."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.random import RandomState

from petl_bench.data.base import Pixels
from petl_bench.data.bundled import SIZE
from petl_bench.data.pocket19.drawing import (
    MIDDLE,
    UNIT,
    between,
    column,
    contrasting,
    line,
    noise,
    paint,
    scene,
    spot,
    stamp,
)
from petl_bench.data.pocket19.outlines import COSINE, FULL, ONE, SINE, disc, fill, polar
from petl_bench.data.pocket19.parts import Numbers, task
from petl_bench.data.pocket19.solids import AZIMUTHS, ELEVATIONS, SOLIDS, solids


@cache
def _shapes() -> Pixels:
    """Return masks of a disc, a square, a triangle and a star of about equal area; none fills its mask."""
    half = FULL // 2
    star = [half * (94 if k % 2 == 0 else 46) // 100 for k in range(10)]
    return np.stack(
        [
            fill([disc(half * 68 // 100)]),
            fill([polar([half * 85 // 100] * 4)]),
            fill([polar([half * 97 // 100] * 3)]),
            fill([polar(star)]),
        ]
    )


@task("location")
def location(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a shape on a photograph; the label is the cell of a grid of 5 x 5 in which its center lies."""
    image, _, level = scene(random, count, test)
    row, across = random.randint(5, size=(2, count))
    step = 24 * UNIT // 5
    x, y = (
        4 * UNIT + k * step + random.randint(UNIT // 4, step - UNIT // 4, size=count) for k in (across, row)
    )
    which, angle = random.randint(4, size=count), random.randint(360, size=count)
    shape = stamp(_shapes(), which, x, y, between(random, 7, 12, count), angle)
    return paint(image, shape, level), row * 5 + across


@cache
def _pointers() -> Pixels:
    """Return masks of three shapes that point to the right: an arrow, a drop and a wedge with a notch."""
    h = FULL // 2

    def scaled(*points: tuple[int, int]) -> Pixels:
        return fill([[(h + h * x // 100, h + h * y // 100) for x, y in points]])

    arrow = scaled((95, 0), (20, 65), (20, 25), (-90, 25), (-90, -25), (20, -25), (20, -65))
    wedge = scaled((90, 0), (-80, 60), (-40, 0), (-80, -60))
    drop = fill(
        [
            [(FULL * 95 // 100, h), (h, h + h * 42 // 100), (h, h - h * 42 // 100)],
            disc(h * 45 // 100, h * 80 // 100),
        ]
    )
    return np.stack([arrow, wedge, drop])


@task("orientation")
def orientation(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw an arrow, a drop or a wedge on a photograph; the label is its direction in twelve bins."""
    image, _, level = scene(random, count, test, busy=True)
    label = random.randint(12, size=count)
    angle = label * 30 + random.randint(-11, 12, size=count)
    x, y = MIDDLE + random.randint(-4 * UNIT, 4 * UNIT + 1, size=(2, count))
    which, size = random.randint(3, size=count), between(random, 11, 20, count)
    return paint(image, stamp(_pointers(), which, x, y, size, angle), level), label


@task("size")
def size(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a disc, square, triangle or star anywhere on a photograph; the label is its size, one of six."""
    image, _, level = scene(random, count, test)
    label = random.randint(6, size=count)
    side = (600 + 330 * label) * UNIT // 100 + random.randint(-UNIT, UNIT + 1, size=count)
    room = (30 * UNIT - side * 7 // 10) // 2
    share = random.randint(-100, 101, size=(2, count))
    x, y = MIDDLE + share * room // 100
    which, angle = random.randint(4, size=count), random.randint(360, size=count)
    return paint(image, stamp(_shapes(), which, x, y, side, angle), level), label


@task("count")
def number(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw one to eight small shapes on a photograph that do not touch; the label is their number minus 1."""
    image, mean, _ = scene(random, count, test)
    label = random.randint(8, size=count)
    places = np.argsort(random.randint(1 << 30, size=(count, 16)), axis=1, kind="stable")
    for k in range(8):
        level = contrasting(random, mean)
        row, across = np.divmod(places[:, k], 4)
        x, y = (
            c * 8 * UNIT + 4 * UNIT + random.randint(-UNIT // 2, UNIT // 2 + 1, size=count)
            for c in (across, row)
        )
        which, angle = random.randint(4, size=count), random.randint(360, size=count)
        shape = stamp(_shapes(), which, x, y, between(random, 5.5, 8, count), angle)
        image = paint(image, np.where((k <= label)[:, None, None], shape, 0), level)
    return image, label


@task("distance")
def distance(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw two small shapes on a photograph; the label is the distance of their centers, in six bins."""
    image, mean, _ = scene(random, count, test)
    label = random.randint(6, size=count)
    apart = (6 * UNIT + label * 3 * UNIT) + random.randint(UNIT // 4, 3 * UNIT - UNIT // 4, size=count)
    around = random.randint(360, size=count)
    a, b = apart * COSINE[around] // ONE // 2, apart * SINE[around] // ONE // 2
    share = random.randint(-100, 101, size=(2, count))
    x = MIDDLE + share[0] * (13 * UNIT - abs(a)) // 100
    y = MIDDLE + share[1] * (13 * UNIT - abs(b)) // 100
    for sign in (-1, 1):
        which, angle = random.randint(4, size=count), random.randint(360, size=count)
        shape = stamp(_shapes(), which, x + sign * a, y + sign * b, between(random, 6, 8, count), angle)
        image = paint(image, shape, contrasting(random, mean))
    return image, label


@task("bars")
def bars(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a diagram of five bars on a photograph; the label is the place of the highest bar, from the left.

    The highest bar is at least two pixels higher than the others. Bars differ in grey level.
    """
    image, mean, _ = scene(random, count, test)
    label = random.randint(5, size=count)
    top = between(random, 14, 26, count)
    left, bottom = between(random, 4.5, 7.5, count), between(random, 28, 30, count)
    width = between(random, 2.5, 3.5, count)
    for k in range(5):
        share = random.randint(20, 101, size=count)  # percent of the largest height that others may have
        height = np.where(label == k, top, (top - 2 * UNIT) * share // 100)
        bar = upright_bar(left + k * 5 * UNIT, width, bottom - height, bottom)
        image = paint(image, bar, contrasting(random, mean))
    return image, label


def upright_bar(x: Numbers, width: Numbers, top: Numbers, bottom: Numbers) -> Numbers:
    """Return the coverage (N, 32, 32) in 0..255 of upright bars: middle, width, top and bottom in units."""
    edge = np.arange(SIZE, dtype=np.int32) * UNIT
    left, right = column(x - width // 2), column(x + width // 2)
    across = np.clip(np.minimum(edge + UNIT, right) - np.maximum(edge, left), 0, UNIT)
    rows = edge[:, None]
    down = np.clip(np.minimum(rows + UNIT, column(bottom)) - np.maximum(rows, column(top)), 0, UNIT)
    return across * down * 255 // UNIT**2


@task("clock")
def clock(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a clock with two hands on a photograph; the label is the hour, from 0 to 11."""
    image, _, dial = scene(random, count, test)
    ink = contrasting(random, dial)
    hour, minute = random.randint(12, size=count), random.randint(60, size=count)
    radius = between(random, 10, 13, count)
    x, y = MIDDLE + random.randint(-2 * UNIT, 2 * UNIT + 1, size=(2, count))
    image = paint(image, spot(x, y, radius + UNIT), dial)
    for angle in range(0, 360, 90):
        image = paint(
            image, spot(*_tip(x, y, radius - UNIT, np.full(count, angle)), np.full(count, 160)), ink
        )
    zero = np.full(count, UNIT)
    image = paint(
        image, line(x, y, *_tip(x, y, radius * 52 // 100, hour * 30 + minute // 2), 2 * zero + 100), ink
    )
    return paint(image, line(x, y, *_tip(x, y, radius * 88 // 100, minute * 6), zero), ink), hour


def _tip(x: Numbers, y: Numbers, length: Numbers, angle: Numbers) -> tuple[Numbers, Numbers]:
    """Return the end of a hand of a clock whose angle is in degrees clockwise from the top."""
    return x + length * SINE[angle % 360] // ONE, y - length * COSINE[angle % 360] // ONE


@task("azimuth")
def azimuth(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a shaded solid on a turntable, seen from above; the label is its azimuth in nine bins."""
    faces, outline = solids()
    label = random.randint(9, size=count)
    turn = label * (AZIMUTHS // 9) + random.randint(AZIMUTHS // 9, size=count)
    kind, up = random.randint(SOLIDS, size=count), random.randint(ELEVATIONS, size=count)
    which = (kind * ELEVATIONS + up) * AZIMUTHS + turn
    image, _, _ = scene(random, count, test)
    x, y = MIDDLE + random.randint(-2 * UNIT, 2 * UNIT + 1, size=(2, count))
    side, zero = between(random, 24, 32, count), np.zeros(count, np.int64)
    covered = stamp(outline, which, x, y, side, zero)
    shade = stamp(faces, which, x, y, side, zero)  # already weighted by what is covered
    gain, offset = random.randint(60, 101, size=count), random.randint(20, 60, size=count)
    solid = column(gain) * shade // 100 + column(offset) * covered // 255
    return image * (255 - covered) // 255 + solid + noise(random, count, 4), label
