"""The seven natural tasks of suite `pocket19`: things recognized by their looks."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.random import RandomState

from petl_bench.data.base import Pixels
from petl_bench.data.bundled import SIZE, digit_scans, leveled
from petl_bench.data.pocket19.drawing import (
    MIDDLE,
    UNIT,
    between,
    contrasting,
    crops,
    line,
    noise,
    paint,
    scene,
    spot,
    stamp,
)
from petl_bench.data.pocket19.outlines import COSINE, FULL, ONE, fill, glyph, polar
from petl_bench.data.pocket19.parts import Numbers, task


@task("digits")
def digits(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw scanned handwritten digits on photographs; the label is the digit.

    Test images show other scans, on other photographs, than training images.
    """
    scans, labels = digit_scans()
    which = random.randint(1000, len(scans), size=count) if test else random.randint(1000, size=count)
    image, _, level = scene(random, count, test)
    x, y = MIDDLE + random.randint(-3 * UNIT, 3 * UNIT + 1, size=(2, count))
    size, angle = between(random, 18, 27, count), random.randint(-15, 16, size=count)
    return paint(image, stamp(scans, which, x, y, size, angle), level), labels[which]


FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSansMono-Oblique",
    "STIXGeneral",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@cache
def _letters() -> Pixels:
    return np.stack([glyph(font, letter) for letter in LETTERS for font in FONTS])


@task("letters")
def letters(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a printed capital letter in one of eight typefaces on a photograph; the label is the letter."""
    label, font = random.randint(len(LETTERS), size=count), random.randint(len(FONTS), size=count)
    image, _, level = scene(random, count, test, busy=True)
    x, y = MIDDLE + random.randint(-5 * UNIT, 5 * UNIT + 1, size=(2, count))
    size, angle = between(random, 14, 22, count), random.randint(-25, 26, size=count)
    shape = stamp(_letters(), label * len(FONTS) + font, x, y, size, angle)
    return paint(image, shape, level), label


SCRIPTS = (
    "abdefghkmnpqrstuyz",  # Latin
    "βγδζηθλμξπρσφχψω",  # Greek
    "աբգդեզէթժիլխծկհձ",  # Armenian
    "אבגדהזחטכלמנעפצקרשת",  # Hebrew
    "ابجدرسصطعقكلمنهو",  # Arabic
    "აბგდევზთიკლმნოპჟრსტ",  # Georgian
    "ⴰⴱⴳⴷⴹⴻⴼⴽⵀⵃⵄⵅⵇⵉⵊⵍⵎⵏ",  # Tifinagh
    "ᐁᐃᐅᐊᐯᐱᐳᐸᑌᑎᑐᑕᑫᑭᑯᑲ",  # Canadian syllabics
)


@cache
def _scripts() -> Pixels:
    return np.stack([glyph("DejaVuSans", character) for script in SCRIPTS for character in script[:16]])


@task("scripts")
def scripts(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw four characters of one script on a photograph; the label is the script, one of eight."""
    label = random.randint(len(SCRIPTS), size=count)
    image, _, level = scene(random, count, test)
    left, top = random.randint(-UNIT, UNIT + 1, size=(2, count))
    size = between(random, 11, 14, count)
    for across, down in ((9, 9), (23, 9), (9, 23), (23, 23)):
        x = across * UNIT + left + random.randint(-UNIT, UNIT + 1, size=count)
        y = down * UNIT + top + random.randint(-UNIT, UNIT + 1, size=count)
        which = label * 16 + random.randint(16, size=count)
        angle = random.randint(-8, 9, size=count)
        image = paint(image, stamp(_scripts(), which, x, y, size, angle), level)
    return image, label


CHARACTERS = 20
_CORNERS = np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)])
_PEN = RandomState(7)
_ALPHABET = np.stack([_CORNERS[_PEN.permutation(9)[:5]] for _ in range(CHARACTERS)])
"""(CHARACTERS, 5, 2): the points that the pen visits."""


@task("strokes")
def strokes(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a character of an invented alphabet as if by hand, on a photograph; the label is the character.

    Each of the twenty characters is a line through five points, which an unsteady hand misses.
    """
    label = random.randint(CHARACTERS, size=count)
    image, _, level = scene(random, count, test, busy=True)
    spread = between(random, 5, 8, count)[:, None, None]
    points = _ALPHABET[label] * spread + random.randint(-5 * UNIT // 2, 5 * UNIT // 2 + 1, size=(count, 5, 2))
    points += MIDDLE + random.randint(-5 * UNIT, 5 * UNIT + 1, size=(count, 1, 2))
    width = between(random, 1.2, 3, count)
    ink = np.zeros((count, SIZE, SIZE), np.int32)
    for k in range(4):
        ends = points[:, k, 0], points[:, k, 1], points[:, k + 1, 0], points[:, k + 1, 1]
        ink = np.maximum(ink, line(*ends, width))
    return paint(image, ink, level), label


SPECIES = ((3, 40), (4, 30), (4, 60), (5, 25), (5, 55), (6, 45), (7, 30), (8, 55), (9, 35), (12, 30))
"""Number of petals, and depth of the gaps between them in percent of the radius."""


@cache
def _flowers() -> Pixels:
    """Return masks of all species with petals that are round, pointed and notched."""
    masks = []
    for petals, depth in SPECIES:
        for kind in range(3):
            wave = np.array([int(COSINE[k * petals % 360]) for k in range(360)]) + ONE  # 0 to 2 ONE
            if kind == 1:
                wave = wave * wave // (2 * ONE)
            if kind == 2:
                notch = np.array([int(COSINE[2 * k * petals % 360]) for k in range(360)]) + ONE
                wave = wave - notch // 6
            radius = FULL * 47 // 100 * (200 * ONE - depth * (2 * ONE - wave)) // (200 * ONE)
            masks.append(fill([polar(radius)]))
    return np.stack(masks)


@task("flowers")
def flowers(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a flower on a photograph; the label is its species, by the number and the depth of its petals."""
    label, kind = random.randint(len(SPECIES), size=count), random.randint(3, size=count)
    image, mean, level = scene(random, count, test, busy=True)
    x, y = MIDDLE + random.randint(-5 * UNIT, 5 * UNIT + 1, size=(2, count))
    size, angle = between(random, 16, 25, count), random.randint(360, size=count)
    image = paint(image, stamp(_flowers(), label * 3 + kind, x, y, size, angle), level)
    return paint(image, spot(x, y, size * random.randint(8, 16, size=count) // 100), mean), label


@task("faces")
def faces(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Draw a face on a photograph; the label is its expression.

    The expressions are happy, sad, surprised, angry, asleep and winking. Place, size, width of the face and
    distances within it differ.
    """
    label = random.randint(6, size=count)
    image, _, level = scene(random, count, test, busy=True)
    ink = contrasting(random, level)
    unit = between(random, 0.85, 1.25, count)  # a tenth of the radius
    x, y = MIDDLE + random.randint(-4 * UNIT, 4 * UNIT + 1, size=(2, count))
    head = fill([polar([FULL // 2] * 36)])[None]
    zero = np.zeros(count, np.int64)
    image = paint(image, stamp(head, zero, x, y, 22 * unit, zero), level)
    eye, high = random.randint(36, 46, size=(2, count)) * unit // 10
    pen = np.maximum(unit * 2, UNIT * 3 // 2)
    happy, sad, surprised, angry, asleep, winking = (label == k for k in range(6))
    for side in (-1, 1):
        closed = asleep | (winking & (side == np.where(random.randint(2, size=count), 1, -1)))
        here = x + side * eye
        lid = line(here - 2 * unit, y - high, here + 2 * unit, y - high, pen)
        ball = spot(here, y - high, unit * 3 // 2)
        image = paint(image, np.where(closed[:, None, None], lid, ball), ink)
        inner, outer = y - high - unit * np.where(angry, 2, 4), y - high - unit * np.where(angry, 5, 4)
        brow = line(here - side * 2 * unit, inner, here + side * 2 * unit, outer, pen)
        image = paint(image, np.where((angry | surprised)[:, None, None], brow, 0), ink)
    low = y + random.randint(40, 56, size=count) * unit // 10
    bend = np.select([happy | winking, sad | angry], [2 * unit, -2 * unit], 0)
    half = np.where(asleep, 2, 4) * unit
    for side in (-1, 1):
        mouth = line(x, low + bend // 2, x + side * half, low - bend, pen)
        image = paint(image, np.where(surprised[:, None, None], 0, mouth), ink)
    image = paint(image, np.where(surprised[:, None, None], spot(x, low, unit * 5 // 2), 0), ink)
    return image, label


PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "motorcycle_left", "cell", "page")


@task("scenes")
def scenes(random: RandomState, count: int, test: bool) -> tuple[Numbers, Numbers]:
    """Cut pieces from eight photographs; the label is the photograph.

    Test pieces come from each third vertical stripe of a photograph, training pieces from the others. All
    have equal mean and contrast, and a little noise.
    """
    label = random.randint(len(PHOTOGRAPHS), size=count)
    pieces = crops(random, PHOTOGRAPHS, label, test, stripe=40)
    even = np.stack([leveled(piece) for piece in pieces.astype(np.int64)]).astype(np.int32)
    return even + noise(random, count, 6), label
