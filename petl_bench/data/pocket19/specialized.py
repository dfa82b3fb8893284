"""The four specialized tasks of suite `pocket19`: materials, relief of terrain, typefaces and cells."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from petl_bench.data.base import Pixels
from petl_bench.data.bundled import SIZE, SURFACES, leveled, package_file
from petl_bench.data.pocket19.cells import KINDS, VARIANTS, cell_masks
from petl_bench.data.pocket19.drawing import UNIT, between, column, contrasting, crops, noise, paint, stamp
from petl_bench.data.pocket19.outlines import COSINE, ONE, SINE, glyph
from petl_bench.data.pocket19.parts import Numbers, task

MIDDLE = SIZE // 2 * UNIT


@task("surfaces")
def surfaces(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Cut pieces from photographs of brick, grass, gravel, tissue and the moon; the label is the material.

    Test pieces come from each third vertical stripe of a photograph, training pieces from the others. They
    are turned by multiples of 90 degrees, have equal mean and contrast, and noise is added.
    """
    label = random.randint(len(SURFACES), size=count)
    pieces = crops(random, SURFACES, label, test).astype(np.int64)
    turn = random.randint(4, size=count)
    even = [leveled(np.rot90(piece, k)) for piece, k in zip(pieces, turn, strict=True)]
    return np.stack(even).astype(np.int32) + noise(random, count, 20), label


@cache
def _elevation() -> NDArray[np.int64]:
    """Return the elevation model (344, 403) of the Jacksboro fault in metres."""
    with np.load(package_file("matplotlib", "mpl-data/sample_data/jacksboro_fault_dem.npz")) as file:
        return file["elevation"].astype(np.int64)


@task("terrain")
def terrain(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw relief maps, lit from above left and darker with height; the label is where the ground falls to.

    The label is one of eight directions: that of the mean slope of the middle of the piece. Test pieces come
    from each third vertical stripe of the elevation model, training pieces from the others.
    """
    height = _elevation()
    images, labels = np.empty((count, SIZE, SIZE), np.int32), np.empty(count, np.int64)
    stripes = [k for k in range(6) if (k % 3 == 2) == test]
    for image, index in zip(images, range(count), strict=True):
        top = random.randint(height.shape[0] - SIZE - 1)
        left = stripes[random.randint(len(stripes))] * 66 + random.randint(66 - SIZE - 1)
        piece = np.rot90(height[top : top + SIZE + 1, left : left + SIZE + 1], random.randint(4))
        if random.randint(2):
            piece = piece.T
        east, south = piece[:-1, 1:] - piece[:-1, :-1], piece[1:, :-1] - piece[:-1, :-1]
        image[:] = leveled(east + south) // 2 + leveled(-piece[:-1, :-1]) // 2
        labels[index] = _direction(int(-east[8:24, 8:24].sum()), int(-south[8:24, 8:24].sum()))
    return images + noise(random, count, 6), labels


def _direction(x: int, y: int) -> int:
    """Return the nearest of eight directions: 0 to the right, 2 down, 4 to the left, 6 up."""
    along = [x * int(COSINE[45 * k]) + y * int(SINE[45 * k]) for k in range(8)]
    return along.index(max(along))


TYPEFACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralItalic",
    "cmtt10",
)
LOWER = "abcdefghijklmnopqrstuvwxyz"


@cache
def _typefaces() -> Pixels:
    return np.stack([glyph(font, letter, whole_em=True) for font in TYPEFACES for letter in LOWER])


@task("typeface")
def typeface(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw four printed letters on grained paper; the label is the typeface, one of eight."""
    label = random.randint(len(TYPEFACES), size=count)
    mean = random.randint(40, 216, size=count)
    image: Numbers = column(mean) + noise(random, count, 8)
    level = contrasting(random, mean)
    size, zero = between(random, 20, 25, count), np.zeros(count, np.int64)
    left, top = random.randint(-UNIT, UNIT + 1, size=(2, count))
    for across, down in ((9, 9), (23, 9), (9, 24), (23, 24)):
        which = label * len(LOWER) + random.randint(len(LOWER), size=count)
        shape = stamp(_typefaces(), which, across * UNIT + left, down * UNIT + top, size, zero)
        image = paint(image, shape, level)
    return image, label


@task("cells")
def cells(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw cells as under a microscope; the label is the kind of the cell in the middle, one of six.

    The kinds have one nucleus, two nuclei or a nucleus of three lobes, or are spindles, spiky or sickles.
    Parts of other cells reach into the image; the light is uneven.
    """
    bodies, nuclei = cell_masks()
    mean = random.randint(150, 216, size=count)
    slope = random.randint(-40, 41, size=(2, count))
    ramp = np.arange(SIZE, dtype=np.int32) - SIZE // 2
    image = (
        column(mean)
        + (column(slope[0]) * ramp[None, None, :] + column(slope[1]) * ramp[None, :, None]) // SIZE
    )
    body, nucleus = random.randint(30, 60, size=count), random.randint(75, 110, size=count)
    label = random.randint(len(KINDS), size=count)
    for other in range(3):
        kind = label if other == 2 else random.randint(len(KINDS), size=count)
        which = kind * VARIANTS + random.randint(VARIANTS, size=count)
        x, y = MIDDLE + random.randint(-2 * UNIT, 2 * UNIT + 1, size=(2, count))
        if other < 2:  # at the border
            around = random.randint(360, size=count)
            x, y = x + COSINE[around] * UNIT * 19 // ONE, y + SINE[around] * UNIT * 19 // ONE
        size, angle = between(random, 16, 23, count), random.randint(360, size=count)
        image = paint(image, stamp(bodies, which, x, y, size, angle), mean - body)
        image = paint(image, stamp(nuclei, which, x, y, size, angle), mean - nucleus)
    return image + noise(random, count, 12), label
