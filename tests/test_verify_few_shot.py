"""`petl-bench data verify`: few-shot sets with their circulated lists."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from petl_bench.config import plan_task
from petl_bench.data import resolve
from petl_bench.types import Cache
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

GOLDEN = Path(os.environ.get("PETL_BENCH_GOLDEN", Path(__file__).parents[2] / "shared/golden"))
golden = pytest.mark.skipif(
    not (GOLDEN / "noah-few-shot").is_dir(), reason=f"no circulated few-shot lists in {GOLDEN}"
)


HELD = 37
"""Lines left in the val and test lists of pets: fewer images to make."""
SHOT = "train_meta.list.num_shot_{}.seed_{}"


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pets") / "root"
    return root, few_shot(root, GOLDEN / "noah-few-shot", ["oxford-pets"], HELD)


def pets_copy(pets: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy and its folder of lists."""
    root = copy_of(pets[0], tmp_path / "root")
    return root, root / "few-shot/oxford-pets/annotations"


@golden
def test_a_clean_few_shot_set_passes(pets: tuple[Path, Path], warm: Path) -> None:
    # Also: the 74 lines of the 1-shot lists, each of 37 images twice, are as circulated and no fault.
    problems, summary = found(verify("fgvc_pets", pets[0], warm, pets[1]))
    assert problems == []
    (task,) = summary["tasks"]
    lists = (pets[0] / "few-shot/oxford-pets/annotations").iterdir()
    images = {line.rsplit(" ", 1)[0] for path in lists for line in path.read_text().splitlines()}
    assert task["images"] == len(images)
    assert task["formats"] == {"JPEG": len(images)}
    assert task["jpeg_quality"] == [90, 90, 90]
    assert re.fullmatch("[0-9a-f]{64}", task["fingerprint"])
    # Every training list is one that a run can be made from.
    for shots in (1, 16):
        settled = resolve(plan_task("fgvc_pets", settings(*pets), shots, 2), Cache(str(warm)))
        assert settled.splits == {"train": 37 * max(shots, 2), "val": HELD, "test": HELD}


@golden
def test_an_edited_few_shot_list_is_named(pets: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    name = SHOT.format(2, 1)
    edit(lists / name, lambda lines: [lines[1], lines[0], *lines[2:]])  # the same images in another order
    problems, _ = found(verify("fgvc_pets", root, warm, pets[1]))
    (problem,) = problems
    assert (problem["split"], problem["kind"], problem["path"]) == (name, "list_hash", str(lists / name))
    assert "not the circulated list" in problem["message"]
    assert "edited" in problem["message"]


@golden
def test_swapped_few_shot_lists_are_named(pets: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    same, other = [SHOT.format(1, 0), SHOT.format(1, 2)], [SHOT.format(4, 1), SHOT.format(16, 1)]
    for first, second in (same, other):
        swap(lists / first, lists / second)
    problems, _ = found(verify("fgvc_pets", root, warm, pets[1]))
    hashes = {p["split"]: p for p in problems if p["kind"] == "list_hash"}
    assert set(hashes) == {*same, *other}
    for first, second in (same, other):
        for one, held in ((first, second), (second, first)):
            assert f"it holds {held}: swapped?" in hashes[one]["message"]
            assert hashes[one]["path"] == str(lists / one)
    # 4 and 16 images of each of 37 classes
    counts = {p["split"]: p["message"] for p in problems if p["kind"] == "count"}
    assert set(counts) == set(other)
    assert "lists 592 images, it should be 148" in counts[other[0]]
    assert "lists 148 images, it should be 592" in counts[other[1]]
    assert len(problems) == 6


@golden
def test_other_faults_of_a_few_shot_set_are_named(
    pets: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
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
    edit(lists / "test_meta.list", lambda lines: [*lines[:-1], label(lines[-1], 37)])
    problems, _ = found(verify("fgvc_pets", root, warm, pets[1]))
    told = {(p["kind"], p["path"]): p["message"] for p in problems}
    assert set(told) == {
        ("missing_list", str(lists / SHOT.format(1, 2))),
        ("missing_file", str(images / gone)),
        ("undecodable", str(images / cut)),
        ("duplicate", str(images / tests[5])),
        ("label_range", str(lists / "test_meta.list")),
    }
    assert leaked in told["duplicate", str(images / tests[5])]
    assert "37 classes are 0 to 36" in told["label_range", str(lists / "test_meta.list")]
    assert len(problems) == 5


@golden
def test_a_few_shot_set_without_its_images_is_said(
    pets: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    root, _ = pets_copy(pets, tmp_path)
    shutil.rmtree(root / "oxford_pets")
    (problem,), _ = found(verify("fgvc_pets", root, warm, pets[1]))
    assert problem["kind"] == "missing_folder"
    assert "images of fgvc_pets; looked for oxford_pets/images" in problem["message"]


@golden
def test_paths_may_hold_spaces(pets: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    images = root / "oxford_pets/images"
    old = (lists / "test_meta.list").read_text().splitlines()[3].rsplit(" ", 1)[0]
    new = "a folder with spaces/the cat 1 .jpg"
    (images / new).parent.mkdir()
    (images / old).rename(images / new)
    edit(lists / "test_meta.list", lambda lines: [line.replace(f"{old} ", f"{new} ") for line in lines])
    problems, summary = found(verify("fgvc_pets", root, warm, pets[1]))
    assert problems == []
    before = found(verify("fgvc_pets", pets[0], warm, pets[1]))[1]
    assert summary["tasks"] == before["tasks"]  # the same images: names do not count
    (images / new).unlink()
    (problem,), _ = found(verify("fgvc_pets", root, warm, pets[1]))
    assert (problem["kind"], problem["path"]) == ("missing_file", str(images / new))
