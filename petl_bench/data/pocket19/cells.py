"""Outlines of cells, for task `cells` of suite `pocket19`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.random import RandomState

from petl_bench.data.base import Pixels
from petl_bench.data.pocket19.outlines import COSINE, FULL, ONE, SINE, Outline, disc, fill, polar

VARIANTS = 16
"""Number of cells of each kind."""
HALF, MIDDLE = FULL * 45 // 100, FULL // 2
Cell = tuple[list[Outline], list[Outline]]
"""Outlines of the body and of the nuclei."""


def _round(random: RandomState) -> Outline:
    """Return a nearly round outline with two to four bulges."""
    lobes, wobble, phase = random.randint(2, 5), random.randint(2, 6), random.randint(360)
    wave = np.array([int(COSINE[(k * lobes + phase) % 360]) for k in range(360)])
    return polar(HALF * (ONE * 100 + wobble * wave) // (ONE * 106))


def _one_nucleus(random: RandomState) -> Cell:
    body, radius = [_round(random)], HALF * random.randint(38, 55) // 100
    return body, [disc(radius, MIDDLE + HALF * random.randint(-15, 16) // 100)]


def _two_nuclei(random: RandomState) -> Cell:
    spread, radius = HALF * random.randint(34, 44) // 100, HALF * random.randint(22, 30) // 100
    return [_round(random)], [disc(radius, MIDDLE + sign * spread) for sign in (-1, 1)]


def _three_lobes(random: RandomState) -> Cell:
    spread, radius = HALF * random.randint(34, 44) // 100, HALF * random.randint(22, 30) // 100
    thirds = [(int(COSINE[k]), int(SINE[k])) for k in (0, 120, 240)]
    nuclei = [disc(radius, MIDDLE + spread * x // ONE, MIDDLE + spread * y // ONE) for x, y in thirds]
    return [_round(random)], nuclei


def _spindle(random: RandomState) -> Cell:
    thin = random.randint(25, 40)
    body = [(x, MIDDLE + (y - MIDDLE) * thin // 100) for x, y in _round(random)]
    return [body], [disc(HALF * thin // 170)]


def _spiky(random: RandomState) -> Cell:
    spikes, deep = random.randint(9, 13), random.randint(20, 32)
    wave = np.array([int(COSINE[k * spikes % 360]) for k in range(360)])
    return [polar(HALF * (ONE * 100 - deep * (ONE - wave) // 2) // (ONE * 100))], []


def _sickle(random: RandomState) -> Cell:
    cut, circle = random.randint(45, 75), list(disc(HALF))
    outer = circle[27:] + circle[:10]  # the right half
    return [outer + [(MIDDLE + (x - MIDDLE) * cut // 100, y) for x, y in reversed(outer)]], []


KINDS: tuple[Callable[[RandomState], Cell], ...] = (
    _one_nucleus,
    _two_nuclei,
    _three_lobes,
    _spindle,
    _spiky,
    _sickle,
)


@cache
def cell_masks() -> tuple[Pixels, Pixels]:
    """Return masks of the bodies and of the nuclei: both (kinds * VARIANTS, MASK, MASK)."""
    random = RandomState(5)
    cells = [kind(random) for kind in KINDS for _ in range(VARIANTS)]
    return np.stack([fill(body) for body, _ in cells]), np.stack([fill(nuclei) for _, nuclei in cells])
