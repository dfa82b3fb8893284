"""Files and folders beside images that are none: litter, and suffixes of images."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench.data import manifest_of, resolve
from petl_bench.data.layouts import LAYOUTS, located
from petl_bench.data.tree import IMAGES, is_litter
from petl_bench.types import TRAINVAL, Cache
from tests.test_own_folders import cached, classes, planned, verified  # noqa: F401 - fixtures
from tests.trees import picture, save

LITTER = [
    ".ipynb_checkpoints/a.png", "._1.png", ".DS_Store", "@eaDir/a.png", "@eaDir/1.png@SynoEAStream",
    "__MACOSX/a.png", "Thumbs.db", "thumbs.db", "desktop.ini", ".git/a.png", ".hidden.png",
    "__pycache__/a.png", "#recycle/a.png", "$RECYCLE.BIN/a.png", "System Volume Information/a.png",
]  # fmt: skip


@pytest.mark.parametrize("where", ["", "rose/"])
@pytest.mark.parametrize("name", LITTER)
def test_litter_is_neither_an_image_nor_a_class(name: str, where: str, tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"daisy": 6, "rose": 6})
    clean = resolve(planned("tree", root), cached)
    save(picture(0, 99, 8), root / where / Path(name).parent / "a.png")
    if Path(name).parent == Path():
        (root / where / "a.png").rename(root / where / name)
    assert is_litter(Path(name).parts[0])
    said: list[str] = []
    found = resolve(planned("tree", root), cached, warn=said.append)
    assert (found.classes, found.fingerprint) == (2, clean.fingerprint)
    assert said == []


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20))
def test_only_hidden_names_and_known_ones_are_litter(name: str) -> None:
    known = {Path(known).parts[0].lower() for known in LITTER} | {"lost+found", "ehthumbs.db", "icon\r"}
    assert is_litter(name) == (name.startswith(".") or name.lower() in known)


def test_files_that_are_passed_over_are_told(tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"daisy": 6, "rose": 6})
    for name in ("rose/a.heic", "rose/b.HEIC", "rose/notes", "loose.png", "daisy/.hidden"):
        (root / name).write_bytes(b"x")
    (root / "rose/more").symlink_to(root / "daisy")
    said: list[str] = []
    resolve(planned("tree", root), cached, warn=said.append)
    (line,) = said
    for part in (
        "2 files with suffix .heic",
        "1 files without suffix",
        "1 links to folders",
        "1 files in no",
    ):
        assert part in line
    assert f"petl-bench data verify tree --root {root}" in line
    problems, task = verified("tree", root, "data.images=8")
    assert problems == []
    left = {held["reason"]: (held["files"], held["first"]) for held in task["left_out"]}
    assert left["files with suffix .heic"][0] == 2
    assert left["files in no class folder"] == (1, "loose.png")
    assert left["hidden files and files of systems and tools"] == (1, "daisy/.hidden")


@pytest.mark.parametrize("suffix", sorted(IMAGES))
def test_every_suffix_is_read_in_any_case(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for spelled in (suffix, suffix.upper()):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"x{spelled}").write_bytes(b"")
    listings = listings_of(tmp_path, images=2)
    names = sorted(name for part in (TRAINVAL, "test") for name in listings[part].names)
    assert len(names) == 4


def test_the_suffixes_that_were_passed_over_are_there() -> None:
    assert {".jfif", ".avif", ".webp", ".tif", ".tiff", ".jpe", ".jp2"} <= IMAGES


def listings_of(root: Path, images: int, seed: int = 0) -> dict:
    task = planned("tree", root, images, seed)
    return LAYOUTS.get("tree").listings(located(task, manifest_of(task)))
