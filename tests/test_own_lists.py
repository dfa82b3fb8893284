"""Draws from class folders, lists of the user's own images, and files of other kinds in their place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench.data import resolve
from petl_bench.data.tree import draw
from petl_bench.types import Cache
from tests.conftest import error_of, quickly
from tests.test_own_folders import cached, classes, folder, planned, refusal, verified  # noqa: F401 - fixtures
from tests.trees import picture, save


@settings(max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.integers(0, 2**32 - 1), st.randoms())
def test_a_draw_has_the_classes_in_proportion(counts: list[int], seed: int, random) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    random.shuffle(labels)
    order = draw(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for taken in range(len(counts), len(labels) + 1):
        found = np.bincount(labels[order[:taken]], minlength=len(counts))
        assert found.min() >= 1
        # The first images of all classes come first, and move every quota by less than one image a class.
        quota = taken * np.array(counts) / len(labels)
        assert (abs(found - quota) <= 1 + len(counts) * np.array(counts) / len(labels)).all()


def test_a_draw_of_equal_classes_is_even() -> None:
    labels = np.tile(np.arange(10), 50)
    for seed in range(3):
        order = draw(labels, seed)
        for part, each in ((order[:80], 8), (order[80:100], 2), (order[100:], 40)):
            assert np.bincount(labels[part]).tolist() == [each] * 10
    assert (draw(labels, 0) != draw(labels, 1)).any()


def test_verify_shows_what_a_sweep_would_use(tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"daisy": 20, "rose": 10})
    save(picture(0, 3, 8), root / "rose/again.png")  # as daisy/3.png
    for images, seed in ((15, 0), (21, 3)):
        found = resolve(planned("tree", root, images, seed), cached)
        _, task = verified("tree", root, f"data.images={images}", f"split_seed={seed}")
        assert task["fingerprint"] == found.fingerprint
        for split in ("train", "val", "test"):
            assert sum(held[split] for held in task["classes"]) == found.splits[split]
        assert [held["class"] for held in task["classes"]] == ["daisy", "rose"]
        assert [sum(held[s] for s in ("train", "val", "test")) for held in task["classes"]] == [20, 11]
        assert task["modes"] == {"RGB": 31}
        assert task["sizes"] == ["8x8"] * 3
        assert any("the same image with several labels: 1" in note for note in task["notes"])
    done = quickly("data", "info", "tree", "data.images=15", "--root", root)
    assert "daisy" in done.stdout
    assert "modes: RGB 31; sizes: 8x8" in done.stdout
    for setting in ("adapter=lora", "data.root=x", "data.imges=3"):
        message = error_of(quickly("data", "verify", "tree", setting, "--root", root))
        assert setting in message
        assert "data.images, split_seed" in message
    assert "only own data" in error_of(quickly("data", "verify", "vtab", "data.images=3", "--root", root))


# Lists


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_labels_are_right_exactly_if_every_class_is_trained(
    tmp_path_factory, train: list[int], val: list[int], test: list[int]
) -> None:
    root = folder(tmp_path_factory.mktemp("folder"), train, val, test)
    cache = Cache(str(root / "cache"))
    highest = max(train + val + test)
    if highest > 0 and {*train, *val} == {*range(highest + 1)}:
        assert resolve(planned("folder", root), cache).classes == highest + 1
    else:
        message = refusal("folder", root, cache)
        assert "single class" in message if highest == 0 else "without gaps" in message


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, 2, 3], "found are 1 to 3"),  # counted from 1
        ([0, 1, 5], "3 of 6 classes have no training image, the first is label 2"),
        ([0, 1, 100_000], "99998 of 100001 classes"),
        ([0, 1, 999_999_999], "999999997 of 1000000000 classes"),
        ([7, 7, 7], "found are 7, labels must be"),
        ([0, 0, 0], "single class"),
        ([0, 1, -1], "out of range"),
    ],
)
def test_labels_that_make_empty_classes_are_refused(
    labels: list[int], said: str, tmp_path: Path, cached: Cache
) -> None:
    root = folder(tmp_path / "root", labels, labels, labels)
    assert said in refusal("folder", root, cached)
    problems, task = verified("folder", root)
    assert any(said in problem["message"] for problem in problems)
    assert len(task["classes"]) <= 10


ALTERED = {
    "other labels": ("train800val200", lambda lines: [f"{line[:-1]}{1 - int(line[-1])}" for line in lines]),
    "fewer": ("train800val200", lambda lines: lines[1:]),
    "a test image": ("train800val200", lambda lines: [*lines, "images/6.png 0"]),
    "train twice": ("train800", lambda lines: [*lines, lines[0]]),
    "two labels": ("train800", lambda lines: [*lines, f"{lines[0][:-1]}1"]),
    "test, two labels": ("test", lambda lines: [*lines, f"{lines[0][:-1]}1"]),
    "val in place of train": ("train800", lambda lines: ["images/4.png 0", *lines[1:]]),
}


@pytest.mark.parametrize("case", ALTERED)
def test_lists_that_contradict_each_other_are_refused_as_verify_does(
    case: str, tmp_path: Path, cached: Cache
) -> None:
    """The final model is trained on the third list: other images or labels there are another task."""
    root, (name, change) = folder(tmp_path / "root", [0, 1, 0, 1], [0, 1], [0, 1]), ALTERED[case]
    resolve(planned("folder", root), cached)
    lines = change((root / f"{name}.txt").read_text().splitlines())
    (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    problems, _ = verified("folder", root)
    found = {problem["kind"] for problem in problems} & {"trainval_differs", "repeated_line"}
    message = refusal("folder", root, cached)
    assert found
    assert any(problem["message"] in message for problem in problems if problem["kind"] in found)


def test_one_image_with_two_labels_is_told(tmp_path: Path, cached: Cache) -> None:
    root = folder(tmp_path / "root", [0, 1, 0, 1], [0, 1], [0, 1])
    (root / "images/1.png").write_bytes((root / "images/0.png").read_bytes())
    said: list[str] = []
    resolve(planned("folder", root), cached, warn=said.append)
    assert said == ["root: the same image with several labels: 1; the first is images/0.png"]


def test_images_that_no_list_names_are_told(tmp_path: Path, cached: Cache) -> None:
    root = folder(tmp_path / "root", [0, 1], [0, 1], [0, 1])
    save(picture(0, 50, 8), root / "images/more.webp")
    problems, task = verified("folder", root)
    assert problems == []
    (left,) = task["left_out"]
    assert left == {"reason": "images that no list names", "files": 1, "first": "images/more.webp"}
    assert [held["train"] for held in task["classes"]] == [1, 1]


# Files that are none


@pytest.mark.parametrize("kind", ["pipe", "zeros", "sparse"])
@pytest.mark.parametrize("what", ["image", "list"])
def test_a_file_of_another_kind_is_refused_unread(
    what: str, kind: str, tmp_path: Path, cached: Cache
) -> None:
    root = folder(tmp_path / "root", [0, 1], [0, 1], [0, 1])
    path = root / ("images/1.png" if what == "image" else "val200.txt")
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(10**12)
    said = {"pipe": "is a pipe", "zeros": "is a device", "sparse": "has 1,000,000,000,000 bytes, more than"}
    message = refusal("folder", root, cached)
    assert str(path) in message
    assert said[kind] in message
    problems, _ = verified("folder", root)
    assert any(said[kind] in problem["message"] for problem in problems)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_with_a_byte_order_mark_is_read(encoding: str, tmp_path: Path, cached: Cache) -> None:
    root = folder(tmp_path / "root", [0, 1], [0, 1], [0, 1])
    before = resolve(planned("folder", root), cached).fingerprint
    text = (root / "test.txt").read_text()
    (root / "test.txt").write_text(text, encoding=encoding)
    assert resolve(planned("folder", root), cached).fingerprint == before
