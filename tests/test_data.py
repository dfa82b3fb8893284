"""Manifests agree with published facts, bundled tasks with manifests, and drawings with drawings by hand."""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import asdict

import pytest

from petl_bench import data
from petl_bench.config import plan_task
from petl_bench.data import manifests
from petl_bench.types import SPLITS, Cache, DataSettings, Manifest, TaskSpec
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
