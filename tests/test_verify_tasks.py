"""`petl-bench data verify`: facts of single tasks, and what is kept between two calls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from petl_bench.config import plan_task
from petl_bench.data import manifests, resolve
from petl_bench.types import Cache
from tests.trees import vtab_task
from tests.verifying import (
    BOTH,
    TEST,
    TRAIN,
    copy_of,
    copy_over,
    edit,
    found,
    kinds,
    label,
    settings,
    verify,
    write,
)


def task_tree(root: Path, name: str, tests: int, seen: int = 0) -> Path:
    """One task with its 1,000 training images and a small test set; returns the override file."""
    manifest = manifests()[name]
    sizes = manifest.splits | {"test": tests}
    vtab_task(root / manifest.folders[0], manifest.classes, sizes, side=8, seen=seen)
    override = root / "override.yaml"
    override.write_text(yaml.safe_dump({name: {"splits": {"test": tests}}}))
    return override


def test_dsprites_repeats_itself_and_that_is_a_note(warm: Path, tmp_path: Path) -> None:
    override = task_tree(tmp_path, "vtab_dsprites_loc", 32)
    clean = found(verify("vtab_dsprites_loc", tmp_path, warm, override))[1]["tasks"][0]
    assert clean["notes"] == []
    for number in (4, 9):
        copy_over(tmp_path / "dsprites_loc", f"images/test/{number:06d}.jpg", TRAIN, number)
    copy_over(tmp_path / "dsprites_loc", "images/val200/000004.jpg", TRAIN, 5)
    problems, summary = found(verify("vtab_dsprites_loc", tmp_path, warm, override))
    assert problems == []
    (note,) = summary["tasks"][0]["notes"]
    assert note.startswith("2 test images are training images too")
    human = verify("vtab_dsprites_loc", tmp_path, warm, override, json=False)
    assert human.returncode == 0
    assert "vtab_dsprites_loc: note: 2 test images" in human.stdout


# The training images of VTAB-1K show 396 of sun397's 397 classes; another number means another draw of them.
@pytest.mark.parametrize(
    ("task", "seen", "right"),
    [("sun397", 396, 396), ("sun397", 395, 396), ("sun397", 397, 396), ("dtd", 46, 47)],
)
def test_training_images_have_all_classes(
    warm: Path, tmp_path: Path, task: str, seen: int, right: int
) -> None:
    manifest = manifests()[f"vtab_{task}"]
    override = task_tree(tmp_path, manifest.name, manifest.classes, seen)
    problems, _ = found(verify(manifest.name, tmp_path, warm, override))
    if seen == right:
        assert problems == []
        return
    (problem,) = problems
    assert (problem["split"], problem["kind"]) == (BOTH, "class_coverage")
    assert problem["path"] == str(tmp_path / f"{task}/train800val200.txt")
    assert f"{seen} classes, it should be {right}: wrong class count" in problem["message"]


def test_a_whole_test_set_is_held_to_its_classes(warm: Path, tmp_path: Path) -> None:
    # kitti is the smallest: 711 test images of 4 classes (arXiv 1910.04867), so that it needs no override.
    task = tmp_path / "kitti"
    vtab_task(task, 4, {"train": 800, "val": 200, "test": 711}, side=8)
    assert kinds(verify("vtab_kitti", tmp_path, warm)) == set()
    edit(task / "test.txt", lambda lines: [label(line, min(int(line[-1]), 2)) for line in lines])
    (problem,), _ = found(verify("vtab_kitti", tmp_path, warm))
    assert (problem["split"], problem["kind"]) == (TEST, "class_coverage")
    assert "3 classes, it should be 4" in problem["message"]


def test_both_sizes_of_caltech101_that_circulate_are_right(warm: Path, tmp_path: Path) -> None:
    task = tmp_path / "caltech101"
    vtab_task(task, 102, {"train": 800, "val": 200, "test": 204}, side=8)
    names = [f"images/test/{number:06d}.jpg" for number in range(6086)]
    for number, name in enumerate(names[204:], 204):
        os.link(task / names[number % 204], task / name)
    for count, right in ((6084, True), (6085, True), (6083, False)):  # data_manifests: 6084 or 6085
        edit(task / "test.txt", lambda _, n=count: [f"{name} {i % 102}" for i, name in enumerate(names[:n])])
        for path in names[count:]:
            (task / path).unlink(missing_ok=True)
        for number in range(204, count):
            if not (task / names[number]).exists():
                os.link(task / names[number % 204], task / names[number])
        problems, _ = found(verify("vtab_caltech101", tmp_path, warm))
        if right:
            assert problems == []
        else:
            assert [p["kind"] for p in problems] == ["count"]
            assert "6083 images, it should be 6084 or 6085" in problems[0]["message"]


# What is kept between two calls


def test_a_second_call_believes_size_and_time(clean: tuple[Path, Path], tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    copy_of(clean[0] / "dtd", root / "dtd")
    path = root / "dtd/images/test/000003.jpg"
    before = found(verify("vtab_dtd", root, cache, clean[1]))
    stat = path.stat()
    write(path, b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found(verify("vtab_dtd", root, cache, clean[1])) == before  # documented: nothing is read again
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    (problem,), _ = found(verify("vtab_dtd", root, cache, clean[1]))
    assert (problem["kind"], problem["path"]) == ("undecodable", str(path))
    assert found(verify("vtab_dtd", root, cache, clean[1]))[0] == [problem]  # and remembers what is wrong
    write(path, (clean[0] / "dtd/images/test/000003.jpg").read_bytes())
    assert found(verify("vtab_dtd", root, cache, clean[1])) == before


def test_a_sweeps_quick_look_does_not_stand_for_a_decoded_image(
    clean: tuple[Path, Path], tmp_path: Path
) -> None:
    # Planning hashes files without decoding them; verify must decode what only planning has seen.
    root, cache = tmp_path / "root", tmp_path / "cache"
    copy_of(clean[0] / "dtd", root / "dtd")
    path = root / "dtd/images/test/000003.jpg"
    write(path, path.read_bytes()[:-60])
    resolve(plan_task("vtab_dtd", settings(root, clean[1])), Cache(str(cache)))
    (problem,), _ = found(verify("vtab_dtd", root, cache, clean[1]))
    assert (problem["kind"], problem["path"]) == ("undecodable", str(path))
