"""`petl-bench data verify`: few-shot sets with their circulated lists."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from petl_bench.config import plan_task
from petl_bench.data import resolve
from petl_bench.types import Cache
from tests.golden import FEW_SHOT_SETS, FewShotSet
from tests.trees import few_shot
from tests.verifying import (
    copy_of,
    edit,
    found,
    label,
    settings,
    swap,
    verify,
    write,
)

SHOT = "train_meta.list.num_shot_{}.seed_{}"


@dataclass(frozen=True)
class Pets:
    """A set in the place of oxford-pets: its folder and the file that states the sizes of val and test."""

    root: Path
    override: Path
    chosen: FewShotSet

    @property
    def classes(self) -> int:
        return self.chosen.manifest.classes


@pytest.fixture(scope="module", params=FEW_SHOT_SETS, ids=str)
def pets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pets]:
    root = tmp_path_factory.mktemp("pets") / "root"
    with request.param.in_use():
        yield Pets(root, few_shot(root, request.param), request.param)


def pets_copy(pets: Pets, tmp_path: Path) -> tuple[Path, Path]:
    """A copy and its folder of lists."""
    root = copy_of(pets.root, tmp_path / "root")
    return root, root / "few-shot/oxford-pets/annotations"


def test_a_clean_few_shot_set_passes(pets: Pets, warm: Path) -> None:
    # Lists of one shot name each image twice, as circulated, which is no fault.
    problems, summary = found(verify("fgvc_pets", pets.root, warm, pets.override))
    assert problems == []
    (task,) = summary["tasks"]
    lists = (pets.root / "few-shot/oxford-pets/annotations").iterdir()
    images = {line.rsplit(" ", 1)[0] for path in lists for line in path.read_text().splitlines()}
    assert task["images"] == len(images)
    assert task["formats"] == {"JPEG": len(images)}
    assert task["jpeg_quality"] == [90, 90, 90]
    assert re.fullmatch("[0-9a-f]{64}", task["fingerprint"])
    # A run can be made from every training list.
    held = pets.chosen.held
    for shots in (1, 16):
        settled = resolve(
            plan_task("fgvc_pets", settings(pets.root, pets.override), shots, 2), Cache(str(warm))
        )
        assert settled.splits == {"train": pets.chosen.lines(shots), "val": held, "test": held}


def test_an_edited_few_shot_list_is_named(pets: Pets, warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    name = SHOT.format(2, 1)
    edit(lists / name, lambda lines: [lines[1], lines[0], *lines[2:]])  # the same images in another order
    problems, _ = found(verify("fgvc_pets", root, warm, pets.override))
    (problem,) = problems
    assert (problem["split"], problem["kind"], problem["path"]) == (name, "list_hash", str(lists / name))
    assert "not the circulated list" in problem["message"]
    assert "edited" in problem["message"]


def test_swapped_few_shot_lists_are_named(pets: Pets, warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    same, other = [SHOT.format(1, 0), SHOT.format(1, 2)], [SHOT.format(4, 1), SHOT.format(16, 1)]
    for first, second in (same, other):
        swap(lists / first, lists / second)
    problems, _ = found(verify("fgvc_pets", root, warm, pets.override))
    hashes = {p["split"]: p for p in problems if p["kind"] == "list_hash"}
    assert set(hashes) == {*same, *other}
    for first, second in (same, other):
        for one, held in ((first, second), (second, first)):
            assert f"it holds {held}: swapped?" in hashes[one]["message"]
            assert hashes[one]["path"] == str(lists / one)
    # 4 and 16 images of each class
    few, many = 4 * pets.classes, 16 * pets.classes
    counts = {p["split"]: p["message"] for p in problems if p["kind"] == "count"}
    assert set(counts) == set(other)
    assert f"lists {many} images, it should be {few}" in counts[other[0]]
    assert f"lists {few} images, it should be {many}" in counts[other[1]]
    assert len(problems) == 6


def test_other_faults_of_a_few_shot_set_are_named(pets: Pets, warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    images = root / "oxford_pets/images"
    first = [line.rsplit(" ", 1)[0] for line in (lists / SHOT.format(16, 0)).read_text().splitlines()]
    tests = [line.rsplit(" ", 1)[0] for line in (lists / "test_meta.list").read_text().splitlines()]
    shared = {line.rsplit(" ", 1)[0] for line in (lists / SHOT.format(1, 2)).read_text().splitlines()}
    gone, cut, leaked = [name for name in first if name not in shared][:3]
    (lists / SHOT.format(1, 2)).unlink()
    (images / gone).unlink()
    write(images / cut, (images / cut).read_bytes()[:-60])
    write(images / leaked, (images / tests[5]).read_bytes())
    edit(lists / "test_meta.list", lambda lines: [*lines[:-1], label(lines[-1], pets.classes)])
    problems, _ = found(verify("fgvc_pets", root, warm, pets.override))
    told = {(p["kind"], p["path"]): p["message"] for p in problems}
    assert set(told) == {
        ("missing_list", str(lists / SHOT.format(1, 2))),
        ("missing_file", str(images / gone)),
        ("undecodable", str(images / cut)),
        ("duplicate", str(images / tests[5])),
        ("label_range", str(lists / "test_meta.list")),
    }
    assert leaked in told["duplicate", str(images / tests[5])]
    assert (
        f"{pets.classes} classes are 0 to {pets.classes - 1}"
        in told["label_range", str(lists / "test_meta.list")]
    )
    assert len(problems) == 5


def test_a_few_shot_set_without_its_images_is_said(pets: Pets, warm: Path, tmp_path: Path) -> None:
    root, _ = pets_copy(pets, tmp_path)
    shutil.rmtree(root / "oxford_pets")
    (problem,), _ = found(verify("fgvc_pets", root, warm, pets.override))
    assert problem["kind"] == "missing_folder"
    assert "images of fgvc_pets; looked for oxford_pets/images" in problem["message"]


def test_paths_may_hold_spaces(pets: Pets, warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    images = root / "oxford_pets/images"
    old = (lists / "test_meta.list").read_text().splitlines()[3].rsplit(" ", 1)[0]
    new = "a folder with spaces/the cat 1 .jpg"
    (images / new).parent.mkdir()
    (images / old).rename(images / new)
    edit(lists / "test_meta.list", lambda lines: [line.replace(f"{old} ", f"{new} ") for line in lines])
    problems, summary = found(verify("fgvc_pets", root, warm, pets.override))
    assert problems == []
    before = found(verify("fgvc_pets", pets.root, warm, pets.override))[1]
    assert summary["tasks"] == before["tasks"]  # the same images: names do not count
    (images / new).unlink()
    (problem,), _ = found(verify("fgvc_pets", root, warm, pets.override))
    assert (problem["kind"], problem["path"]) == ("missing_file", str(images / new))
