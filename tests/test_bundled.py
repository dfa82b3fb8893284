"""The bundled tasks: their images, labels, digests and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from petl_bench import data
from petl_bench.config import plan_task
from petl_bench.data import manifests
from petl_bench.data.base import concatenate
from petl_bench.data.sprites import CANVAS, UNIT, draw, shrink
from petl_bench.errors import UserError
from petl_bench.types import SPLITS, TRAINVAL, DataSettings, TaskSpec
from tests.test_data import BUNDLED, NO_CACHE, every_task, load


@every_task
def test_the_data_are_those_of_the_manifest(task: TaskSpec) -> None:
    splits = {name: load(task, name) for name in SPLITS}
    assert (
        {name: len(split) for name, split in splits.items()} == task.splits == manifests()[task.name].splits
    )
    assert data.digest(splits) == task.fingerprint == manifests()[task.name].fingerprint
    for split in splits.values():
        assert isinstance(split.images, np.ndarray)
        assert split.images.dtype == np.uint8
        assert split.images.shape[0] == len(split.labels)
        assert split.images.shape[1] in (1, 3)
        assert split.labels.dtype == np.int64
        assert split.labels.min() >= 0
        assert split.labels.max() < task.classes
    # Each class can be learnt (all of the bundled tasks; sun397 would be the exception).
    assert set(splits["train"].labels) == set(range(task.classes))


@every_task
def test_a_planned_task_says_what_its_manifest_says(task: TaskSpec) -> None:
    manifest = manifests()[task.name]
    for key in ("name", "suite", "group", "classes", "source", "splits", "fingerprint", "resize"):
        assert getattr(task, key) == getattr(manifest, key)
    # what other kinds of task need: few-shot lists, folder trees, folders
    assert (task.shots, task.split_seed, task.drawn, task.override, task.place) == (0, 0, 0, "", {})
    assert plan_task(task.name, DataSettings(root="elsewhere", images=7), 4, 2) == task
    assert data.resolve(task, NO_CACHE) == task  # nothing is left to be found out


@every_task
def test_no_image_is_in_two_splits(task: TaskSpec) -> None:
    seen: dict[bytes, str] = {}
    for name in SPLITS:
        for image in load(task, name).images:
            assert seen.setdefault(image.tobytes(), name) == name


@every_task
def test_training_takes_both_training_splits(task: TaskSpec) -> None:
    both = load(task, TRAINVAL)
    parts = concatenate(load(task, "train"), load(task, "val"))
    assert len(both) == 1000
    np.testing.assert_array_equal(both.images, parts.images)
    np.testing.assert_array_equal(both.labels, parts.labels)


DIGESTS = """
import json, petl_bench.data as data
from petl_bench.data import manifests
tasks = [t for t in manifests().values() if t.suite == "pocket"]
print(json.dumps({t.name: data.digest(data.generate(t.source, t.splits)) for t in tasks}))
"""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_new_process_makes_the_same_images(threads: str) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, threads) | {"PYTHONHASHSEED": threads}
    command = [sys.executable, "-c", DIGESTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {task.name: task.fingerprint for task in BUNDLED.values()}


def test_other_data_than_the_manifests_are_refused() -> None:
    task = BUNDLED["digits"]
    with pytest.raises(UserError, match=r"task digits: the data have fingerprint .* its manifest says 0000"):
        load(replace(task, fingerprint="0" * 64), "test")
    with pytest.raises(UserError, match=r"task digits: .*fingerprint"):
        load(replace(task, splits={**task.splits, "test": 796}), "test")
    with pytest.raises(UserError, match="task digits: labels reach 9, its manifest says 9 classes"):
        load(replace(task, classes=9), "test")


def test_an_unknown_source_is_answered_with_the_near_ones() -> None:
    with pytest.raises(UserError, match="unknown data source 'digit': did you mean 'digits'"):
        data.generate("digit", BUNDLED["digits"].splits)


def test_an_unknown_layout_is_answered_with_all_of_them(tmp_path: Path) -> None:
    task = replace(BUNDLED["digits"], source="nothing", place={"root": str(tmp_path)})
    for act in (lambda: load(task, "test"), lambda: data.resolve(task, NO_CACHE)):
        with pytest.raises(UserError, match=r"unknown data layout 'nothing'.*few_shot, folder, tree, vtab"):
            act()


def test_the_digest_sees_every_part() -> None:
    splits = {name: load("digits", name)[:3] for name in SPLITS}
    changed = []
    for name in SPLITS:
        image, label = splits[name].images.copy(), splits[name].labels.copy()
        image[2, 0, 31, 31] ^= 1
        label[2] += 1
        changed += [splits | {name: replace(splits[name], images=image)}]
        changed += [splits | {name: replace(splits[name], labels=label)}]
    digests = {data.digest(each) for each in [splits, *changed]}
    assert len(digests) == 7  # the original and six changes


def test_digits_are_scikit_learns_scans() -> None:
    from sklearn.datasets import load_digits

    scans = load_digits()
    found = concatenate(load("digits", TRAINVAL), load("digits", "test"))
    assert len(found) == len(scans.target) == 1797  # all of them, each once
    np.testing.assert_array_equal(np.bincount(found.labels), np.bincount(scans.target))
    # The means of 4x4 pixels are near the scan's pixels: each image finds its scan, and with it its label.
    small = found.images[:, 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    distance = ((small[:50, None] - np.minimum(scans.images * 16, 255)[None]) ** 2).sum(axis=(2, 3))
    np.testing.assert_array_equal(found.labels[:50], scans.target[distance.argmin(axis=1)])


def square(half: int, x: int, y: int) -> np.ndarray:
    """Draw a filled square of side 2 * half + 1 around canvas pixel (x, y) by hand, in 2x2 means."""
    canvas = np.zeros((64, 64), int)
    canvas[y - half : y + half + 1, x - half : x + half + 1] = 1
    covered = canvas[0::2, 0::2] + canvas[1::2, 0::2] + canvas[0::2, 1::2] + canvas[1::2, 1::2]
    return np.array([0, 63, 127, 191, 255])[covered]  # quarters of 255, rounded down


@pytest.mark.parametrize(("half", "x", "y"), [(5, 32, 26), (10, 16, 47), (7, 47, 16), (6, 21, 21)])
def test_an_upright_square_is_drawn_as_by_hand(half: int, x: int, y: int) -> None:
    centre = [np.array([place * UNIT + UNIT // 2]) for place in (x, y)]
    mask = draw(np.array([0]), np.array([half * UNIT]), np.array([0]), *centre, CANVAS)
    np.testing.assert_array_equal(shrink(mask)[0, 0], square(half, x, y))


def test_the_tasks_hold_such_squares_with_their_labels() -> None:
    # sprites_loc: centres at canvas pixels 16 to 47, the label is the centre's bin of two columns;
    # sprites_ori: an upright square has orientation 0, 10, 20 or 30 of 40, so bin 0, 4, 8 or 12 of 16.
    by_hand = {
        square(half, x, y).astype(np.uint8).tobytes(): (x - 16) // 2
        for half in range(5, 11)
        for x in range(16, 48)
        for y in range(16, 48)
    }
    counts = {}
    for name in ("sprites_loc", "sprites_ori"):
        images, labels = load(name, "test").images, load(name, "test").labels
        found = [
            (label, by_hand[i.tobytes()])
            for i, label in zip(images, labels, strict=True)
            if i.tobytes() in by_hand
        ]
        counts[name] = len(found)
        for label, place in found:
            assert label == place if name == "sprites_loc" else label in (0, 4, 8, 12)
    assert min(counts.values()) > 10  # a third are squares, at least 1 of 40 orientations of those upright


def test_the_label_of_a_scene_counts_its_shapes() -> None:
    split = load("shapes_count", "test")
    touching = np.ones((3, 3))  # pixels that meet at a corner touch
    counts = [scipy.ndimage.label(image[0] > 0, touching)[1] for image in split.images[:500]]
    np.testing.assert_array_equal(split.labels[:500], np.array(counts) - 1)
    assert set(counts) == set(range(1, 9))


def test_surfaces_cannot_be_told_by_brightness_or_contrast() -> None:
    split = load("surfaces", TRAINVAL)
    means = split.images.mean(axis=(1, 2, 3))
    # levelled to mean 128 (petl_bench.data.bundled); clipping at 0 and 255 moves it by a little
    assert abs(means - 128).max() < 16
