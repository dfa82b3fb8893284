"""Suite `pocket19`: what its manifests state, and drawings against closed forms and independent renderers."""

from __future__ import annotations

import hashlib
from collections import Counter
from math import pi
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageDraw, ImageFont

from petl_bench.config import group_config, plan, plan_task
from petl_bench.data import GENERATORS, Split, digest, generate, manifests
from petl_bench.data.bundled import SURFACES, package_file
from petl_bench.data.pocket19 import DRAWS, SUITE, part
from petl_bench.data.pocket19.cells import KINDS
from petl_bench.data.pocket19.drawing import TEST_PHOTOGRAPHS, TRAINING_PHOTOGRAPHS, UNIT, line, spot, stamp
from petl_bench.data.pocket19.natural import FONTS, LETTERS, PHOTOGRAPHS, SCRIPTS
from petl_bench.data.pocket19.outlines import FULL, MASK, SUB, disc, fill, glyph, polar
from petl_bench.data.pocket19.solids import AZIMUTHS, solids
from petl_bench.data.pocket19.specialized import TYPEFACES
from petl_bench.types import DataSettings
from tests.conftest import long

TASKS = {name: manifest for name, manifest in manifests().items() if manifest.suite == SUITE}
every_task = pytest.mark.parametrize("name", TASKS)
HANDFUL = 12
FILES = "ff1668b449a719b2f104aaed0b9d2d58b8172e557f7c98af5b8a08531dd2ba5b"
CHEAP = ("pocket19_clock", "pocket19_location", "pocket19_terrain")


def arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(split.images, np.ndarray)
    return split.images, split.labels


def test_the_suite_has_the_groups_of_vtab() -> None:
    assert Counter(task.group for task in TASKS.values()) == {"natural": 7, "specialized": 4, "structured": 8}
    assert sorted(task.position for task in TASKS.values()) == list(range(1, 20))
    ordered = sorted(TASKS.values(), key=lambda task: task.position)
    assert [task.group for task in ordered] == ["natural"] * 7 + ["specialized"] * 4 + ["structured"] * 8
    assert set(TASKS) == set(DRAWS)
    for task in TASKS.values():
        assert task.splits == {"train": 800, "val": 200, "test": 2000}
        assert task.about["asks"].endswith("?")


@every_task
def test_a_plain_network_learns_each_task_much_better_than_chance(name: str) -> None:
    """The bound in the manifest comes from petl_bench.dev.upper_bound."""
    bound, chance = float(TASKS[name].about["upper_bound"]), 100 / TASKS[name].classes
    assert 100 >= bound > max(60, 2.5 * chance)


def test_the_sweep_that_has_the_power_to_conclude() -> None:
    runs = plan(["sweep=power", "seed=0"]).runs
    assert len(runs) == 19 * (2 + 4 * 4)  # linear, full, and four methods at four bit-widths
    assert {(run.task.suite, run.protocol.name, run.train.epochs) for run in runs} == {(SUITE, "fixed", 30)}
    assert group_config("sweep", "power")["hydra"]["sweeper"]["params"]["seed"] == "0,1,2"


@every_task
def test_a_handful_of_each_task(name: str) -> None:
    images, labels = arrays(part(name, HANDFUL, test=False))
    others, _ = arrays(part(name, HANDFUL, test=True))
    assert (images.shape, images.dtype) == ((HANDFUL, 1, 32, 32), np.uint8)
    assert (labels.shape, labels.dtype) == ((HANDFUL,), np.int64)
    assert labels.min() >= 0
    assert labels.max() < TASKS[name].classes
    fewer, labels_of_fewer = arrays(part(name, 5, test=False))
    np.testing.assert_array_equal(fewer, images[:5])  # the first images do not depend on how many are drawn
    np.testing.assert_array_equal(labels_of_fewer, labels[:5])
    every = np.concatenate([images, others])
    assert len({image.tobytes() for image in every}) == len(every)
    assert (images.std(axis=(1, 2, 3)) > 3).all()  # something is to be seen


def check_whole(name: str) -> None:
    splits = generate(TASKS[name].source, TASKS[name].splits)
    assert digest(splits) == TASKS[name].fingerprint == plan_task(name, DataSettings()).fingerprint
    assert set(splits["train"].labels) == set(range(TASKS[name].classes))
    images = np.concatenate([arrays(split)[0] for split in splits.values()])
    assert len({image.tobytes() for image in images}) == 3000  # no image is in two splits


@pytest.mark.parametrize("name", CHEAP)
def test_the_images_have_the_fingerprint_of_the_manifest(name: str) -> None:
    check_whole(name)


@long
@pytest.mark.parametrize("name", sorted(set(TASKS) - set(CHEAP)))
def test_all_images_have_the_fingerprints_of_the_manifests(name: str) -> None:
    check_whole(name)


def test_generators_begin_with_training_images() -> None:
    splits = generate("pocket19_size", {"train": 4, "val": 2, "test": 0})
    images, _ = arrays(part("pocket19_size", 6, test=False))
    np.testing.assert_array_equal(np.concatenate([splits["train"].images, splits["val"].images]), images)
    assert set(DRAWS) <= set(GENERATORS)


def test_the_files_are_those_of_the_oldest_releases_allowed() -> None:
    """Fonts, terrain and photographs are those of Matplotlib 3.9.0 and scikit-image 0.24.0.

    The expected number is the SHA-256 of the lines "NAME SHA256", computed from the wheels of these releases.
    """
    fonts = [f"mpl-data/fonts/ttf/{font}.ttf" for font in {*FONTS, *TYPEFACES}]
    files = [
        package_file("matplotlib", name) for name in [*fonts, "mpl-data/sample_data/jacksboro_fault_dem.npz"]
    ]
    photographs = {*PHOTOGRAPHS, *SURFACES, *TRAINING_PHOTOGRAPHS, *TEST_PHOTOGRAPHS}
    files += [package_file("skimage", f"data/{name}.png") for name in photographs]
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(files)]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == FILES


# Outlines


@pytest.mark.parametrize("radius", [FULL // 8, FULL // 4, FULL // 2 - SUB])
def test_a_disc_covers_the_area_of_its_polygon(radius: int) -> None:
    expected = 36 / 2 * radius**2 * np.sin(2 * pi / 36)  # area of the regular polygon with 36 corners
    assert fill([disc(radius)]).sum() / 255 * SUB**2 == pytest.approx(expected, rel=0.01)


def test_polygons_are_filled_as_by_pillow() -> None:
    random = np.random.RandomState(0)
    for _ in range(20):
        outline = polar(random.randint(FULL // 8, FULL // 2, size=9))
        canvas = Image.new("L", (FULL, FULL))
        ImageDraw.Draw(canvas).polygon(outline, fill=255)
        by_pillow = np.asarray(canvas)[SUB // 2 :: SUB, SUB // 2 :: SUB]
        assert (fill([outline]) != by_pillow).mean() < 0.01


def test_an_inner_outline_in_the_other_direction_is_a_hole() -> None:
    ring = fill([disc(FULL // 2 - SUB), disc(FULL // 4)[::-1]])
    assert ring[MASK // 2, MASK // 2] == 0
    assert ring[MASK // 2, MASK // 8] == 255
    assert fill([disc(FULL // 2 - SUB), disc(FULL // 4)])[MASK // 2, MASK // 2] == 255  # non-zero winding


@pytest.mark.parametrize(
    ("font", "character"), [("DejaVuSans", "B"), ("STIXGeneral", "g"), ("DejaVuSans", "Ж")]
)
def test_glyphs_are_those_of_freetype(font: str, character: str) -> None:
    """Source: Pillow's FreeType, at ten times the size, cut to the glyph and resized."""
    path = Path(matplotlib.get_data_path()) / f"fonts/ttf/{font}.ttf"
    mask = ImageFont.truetype(str(path), 800).getmask(character)
    drawn = Image.frombytes("L", mask.size, bytes(mask))
    drawn = drawn.crop(drawn.getbbox())
    ours = Image.fromarray(glyph(font, character))
    ours = ours.crop(ours.getbbox())
    theirs = np.asarray(drawn.resize(ours.size, Image.Resampling.BOX)) > 127
    found = np.asarray(ours) > 127
    assert (found & theirs).sum() / (found | theirs).sum() > 0.93  # intersection over union


# Drawings


def numbers(*values: float) -> list[np.ndarray]:
    return [np.array([round(value)]) for value in values]


@pytest.mark.parametrize("angle", [0, 37, 90, 200])
@pytest.mark.parametrize(("x", "y", "size"), [(16, 16, 20), (11.5, 20.25, 14)])
def test_a_stamp_has_the_place_and_the_size_asked_for(x: float, y: float, size: float, angle: int) -> None:
    square = np.full((1, MASK, MASK), 255, np.uint8)
    covered = stamp(square, *numbers(0, x * UNIT, y * UNIT, size * UNIT, angle))[0] / 255
    assert covered.sum() == pytest.approx(size**2, rel=0.04)
    center = scipy.ndimage.center_of_mass(covered)
    assert center == pytest.approx((y - 0.5, x - 0.5), abs=0.2)  # index 0 is the middle of the first pixel


def test_a_stamp_turns_clockwise() -> None:
    mask = np.zeros((1, MASK, MASK), np.uint8)
    mask[:, :, MASK // 2 :] = 255  # what lies to the right
    quarter = stamp(mask, *numbers(0, 16 * UNIT, 16 * UNIT, 20 * UNIT, 90))[0]
    assert scipy.ndimage.center_of_mass(quarter) == pytest.approx((15.5 + 5, 15.5), abs=0.3)  # is now below


@pytest.mark.parametrize("ends", [(8, 8, 24, 8), (6, 20, 25, 9), (16, 5, 16, 27)])
@pytest.mark.parametrize("width", [2.5, 3.5, 5])
def test_a_stroke_covers_its_area(ends: tuple[float, ...], width: float) -> None:
    covered = line(*numbers(*(UNIT * end for end in ends), UNIT * width))[0] / 255
    length = np.hypot(ends[2] - ends[0], ends[3] - ends[1])
    assert covered.sum() == pytest.approx(length * width + pi * width**2 / 4, rel=0.15)


def test_a_spot_covers_its_area() -> None:
    for radius in (2, 5, 9):
        covered = spot(*numbers(16 * UNIT, 15 * UNIT, radius * UNIT))[0] / 255
        assert covered.sum() == pytest.approx(pi * radius**2, rel=0.06)
        assert scipy.ndimage.center_of_mass(covered) == pytest.approx((14.5, 15.5), abs=0.05)


def test_a_solid_covers_about_the_same_area_from_behind() -> None:
    """Seen from the opposite side, a solid covers about the same area (exactly so at the horizon)."""
    _, outline = solids()
    areas = outline.reshape(-1, AZIMUTHS, 64 * 64).astype(bool).sum(axis=2)
    assert areas.min() > 300
    np.testing.assert_allclose(areas[0, :18], areas[0, 18:], rtol=0.35)


# Labels


def test_terrain_falls_to_where_numpy_says() -> None:
    """The map gets darker with height, so brightness rises in the direction of the label."""
    images, labels = arrays(part("pocket19_terrain", 100, test=False))
    right = 0
    for image, label in zip(images[:, 0].astype(float), labels, strict=True):
        down, across = (g[8:24, 8:24].mean() for g in np.gradient(scipy.ndimage.gaussian_filter(image, 3)))
        right += abs((np.degrees(np.arctan2(down, across)) / 45 - label + 4) % 8 - 4) < 1.5
    assert right > 60  # the shading of slopes misleads in the others


def test_the_number_of_classes_is_that_of_the_drawings() -> None:
    known = {"letters": len(LETTERS), "scripts": len(SCRIPTS), "scenes": len(PHOTOGRAPHS)}
    known |= {"typeface": len(TYPEFACES), "cells": len(KINDS)}
    assert {name: TASKS[f"{SUITE}_{name}"].classes for name in known} == known
