"""Manifests agree with published facts, bundled tasks with manifests, and drawings with drawings by hand."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
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
from petl_bench.types import SPLITS, TRAINVAL, Cache, DataSettings, Manifest, TaskSpec
from tests import golden

SETTINGS = DataSettings()
NO_CACHE = Cache(f"{os.devnull}/none")
"""A folder that cannot be created, because bundled tasks must not write to a cache."""
GROUPS = {"natural", "specialized", "structured"}  # VTAB's three (arXiv 1910.04867)
BUNDLED = {
    name: plan_task(name, SETTINGS) for name, manifest in manifests().items() if manifest.suite == "pocket"
}
"""Suite `pocket19` has tests of its own, because its images take seconds to draw."""
every_manifest = pytest.mark.parametrize("manifest", manifests().values(), ids=list(manifests()))
every_task = pytest.mark.parametrize("task", BUNDLED.values(), ids=list(BUNDLED))


def load(task: TaskSpec | str, split: str) -> data.Split:
    task = BUNDLED[task] if isinstance(task, str) else task
    return data.load(task, split, 32, NO_CACHE)


# Facts of all manifests


def test_the_bundled_tasks_are_those_whose_images_are_the_same_everywhere() -> None:
    assert set(BUNDLED) == {"digits", "surfaces", "sprites_loc", "sprites_ori", "shapes_count"}
    assert {m.suite for m in manifests().values() if m.fingerprint} == {"pocket", "pocket19"}
    assert {manifest.source for manifest in manifests().values() if manifest.fingerprint} == set(
        data.GENERATORS
    )


@every_manifest
def test_a_manifest_says_what_a_table_needs(manifest: Manifest) -> None:
    assert manifest.metric == "accuracy"
    assert {"title", "licence"} <= set(manifest.about)
    assert all(manifest.about.values())
    if manifest.suite == "own":  # the user's own: counted in the files
        assert (manifest.classes, manifest.splits, manifest.group) == (0, {}, "own")
        assert manifest.name == manifest.source
        return
    assert {"origin", "version"} <= set(manifest.about)
    if manifest.suite == "fgvc":
        assert manifest.group == "fgvc"
        assert set(manifest.splits) == {"val", "test"}  # the training lists differ in length
        return
    assert manifest.suite in ("vtab", "pocket", "pocket19")
    assert manifest.group in GROUPS
    assert set(manifest.splits) == set(SPLITS)
    assert manifest.splits["train"] + manifest.splits["val"] == 1000  # VTAB-1K
    assert (manifest.shots, manifest.split_seeds, manifest.lists) == ([], [], {})


# Folder (as in repository ZhangYuanhan-AI/NOAH), group, classes, test images (arXiv 1910.04867).
VTAB = """
    cifar                 natural      100  10000
    caltech101            natural      102   6084
    dtd                   natural       47   1880
    oxford_flowers102     natural      102   6149
    oxford_iiit_pet       natural       37   3669
    svhn                  natural       10  26032
    sun397                natural      397  21750
    patch_camelyon        specialized    2  32768
    eurosat               specialized   10   5400
    resisc45              specialized   45   6300
    diabetic_retinopathy  specialized    5  42670
    clevr_count           structured     8  15000
    clevr_dist            structured     6  15000
    dmlab                 structured     6  22735
    kitti                 structured     4    711
    dsprites_loc          structured    16  73728
    dsprites_ori          structured    16  73728
    smallnorb_azi         structured    18  12150
    smallnorb_ele         structured     9  12150
"""


def test_vtab_is_the_published_one() -> None:
    facts = [line.split() for line in VTAB.strip().splitlines()]
    expected = {
        f"vtab_{folder}": (folder, group, int(classes), {"train": 800, "val": 200, "test": int(test)})
        for folder, group, classes, test in facts
    }
    tasks = {name: manifest for name, manifest in manifests().items() if manifest.suite == "vtab"}
    assert len(expected) == 19
    assert {
        name: (task.folders[0], task.group, task.classes, task.splits) for name, task in tasks.items()
    } == expected
    # The circulated archive of caltech101 has one more; the training images of sun397 show 396 classes.
    assert {name: task.also_test for name, task in tasks.items() if task.also_test} == {
        "vtab_caltech101": [6085]
    }
    assert {name: task.train_classes for name, task in tasks.items() if task.train_classes} == {
        "vtab_sun397": 396
    }
    # The released code of arXiv 2307.16867 resizes straight to the square that the backbone takes.
    assert {(task.source, task.resize, task.fingerprint) for task in tasks.values()} == {
        ("vtab", "stretch", "")
    }


# Classes, val, test, folders of lists and of images: repository ZhangYuanhan-AI/NOAH, data/few-shot.
FEW_SHOT = {
    "fgvc_aircraft": (100, 3333, 3333, "fgvc-aircraft", "fgvc_aircraft/images"),
    "fgvc_food101": (101, 20200, 30300, "food101", "food-101/images"),
    "fgvc_flowers102": (102, 1633, 2463, "oxford-flowers102", "oxford_flowers/images"),
    "fgvc_pets": (37, 736, 3669, "oxford-pets", "oxford_pets/images"),
    "fgvc_cars": (196, 1635, 8041, "standford-cars", "stanford_cars"),  # sic
}


def few_shot_tasks() -> dict[str, Manifest]:
    return {name: manifest for name, manifest in manifests().items() if manifest.suite == "fgvc"}


def test_few_shot_sets_are_noahs() -> None:
    assert set(few_shot_tasks()) == set(FEW_SHOT)
    for name, task in few_shot_tasks().items():
        classes, val, test, folder, images = FEW_SHOT[name]
        assert (task.classes, task.splits) == (classes, {"val": val, "test": test})
        assert (task.folders[0], task.images[0]) == (f"few-shot/{folder}", images)
        assert (task.shots, task.split_seeds) == ([1, 2, 4, 8, 16], [0, 1, 2])
        # NOAH evaluates on the centre crop of 224 after the short side is resized to 256.
        assert (task.source, task.resize, task.fingerprint) == ("few_shot", "crop", "")


# SHA-256 of the lines "FILE LINES SHA256", sorted, of the 17 lists of each set in repository
# ZhangYuanhan-AI/NOAH, folder data/few-shot.
LISTS = {
    "fgvc_aircraft": "108e4c740773da352b8221717a0e1967fdb9c7181fee07247e0501eb676108d2",
    "fgvc_food101": "4fe159e97bd65e796d8a0834ec1e69cb64bff76c140d77d1dae2e22926f51bdd",
    "fgvc_flowers102": "5d4eb000a44c5d83dbfd143c90b98737b2ba763bef5bdeb13154092a0bfe1cc7",
    "fgvc_pets": "3aa6210a03669f4460a067f6b691153131512af6c0285d6ddefac4cc8c493b92",
    "fgvc_cars": "fe4738ced61af07a0566828d707cc02f767a886a02f8902561c31818c7d11b42",
}


def test_few_shot_lists_are_those_of_their_authors() -> None:
    for name, task in few_shot_tasks().items():
        lines = sorted(f"{file} {facts.lines} {facts.sha256}\n" for file, facts in task.lists.items())
        assert len(lines) == 17  # 5 numbers of shots with 3 seeds, val and test
        assert hashlib.sha256("".join(lines).encode()).hexdigest() == LISTS[name], name
    table = golden.AUTHORS / "noah-few-shot-lists.csv"
    if table.is_file():
        with table.open() as file:
            for row in csv.DictReader(file):
                if row["file"] == "train_meta.list":
                    continue  # of oxford-pets alone: all its training images, which no run takes
                (name,) = [task for task, facts in FEW_SHOT.items() if facts[3] == row["dataset"]]
                facts = few_shot_tasks()[name].lists[row["file"]]
                assert asdict(facts) == {"lines": int(row["lines"]), "sha256": row["sha256"]}
                assert int(row["classes"]) == FEW_SHOT[name][0]


def test_few_shot_lists_hold_so_many_images_a_class() -> None:
    for name, task in few_shot_tasks().items():
        for shots in task.shots:
            # Lists of one shot of oxford-pets name each of the 37 images twice, which fills a batch of 64.
            lines = shots * task.classes * (2 if (name, shots) == ("fgvc_pets", 1) else 1)
            for seed in task.split_seeds:
                assert task.lists[f"train_meta.list.num_shot_{shots}.seed_{seed}"].lines == lines
        for split, count in task.splits.items():
            assert task.lists[f"{split}_meta.list"].lines == count


# The bundled tasks


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
