"""`data prepare` and archives that are not made by accident: deep, nameless, endless, or of another kind."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from petl_bench.data.prepare import STAGING, prepare
from tests.archives import FOLDERS, add, below, pack, refusal, silent, task, tree, write_tree
from tests.conftest import error_of, quickly

DEEP = "cifar/" + "d/" * 3000 + "x.jpg"
NAMES = {
    "deep": (DEEP, "3,001 folders deep, more than 64"),
    "just too deep": ("d/" * 65 + "x.jpg", "65 folders deep, more than 64"),
    "empty": ("", "has no name"),
    "slashes": (".//.", "has no name"),
    "long part": ("cifar/" + "x" * 256, "longer than"),
    "long whole": ("cifar/" + ("y" * 200 + "/") * 6 + "x.jpg", "longer than"),
}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_no_folder_can_hold_is_refused_and_the_root_stays_usable(
    case: str, suffix: str, tmp_path: Path
) -> None:
    name, said = NAMES[case]
    source, root = tmp_path / f"evil{suffix}", tmp_path / "root"
    files = below("cifar", task())
    if suffix == ".zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name), b"x")
    else:
        with tarfile.open(source, "w", format=tarfile.PAX_FORMAT) as tar:
            add(tar, name, b"x")
    message = refusal(source, root)
    assert said in message
    assert len(message) < 1000
    assert prepare(pack(tmp_path / "good.zip", files), root, FOLDERS, silent) == ["cifar"]
    assert tree(root) == files


def test_a_member_as_deep_as_allowed_is_unpacked(tmp_path: Path) -> None:
    files = {**below("cifar", task()), "cifar/" + "d/" * 63 + "x.jpg": b"x"}
    prepare(pack(tmp_path / "deep.tar", files), tmp_path / "root", FOLDERS, silent)
    assert tree(tmp_path / "root") == files


@pytest.fixture
def deep_folder(tmp_path: Path) -> Iterator[Callable[[Path, int], None]]:
    """Nest folders; they are removed at the end by a program that can, which pytest cannot."""
    yield nest
    subprocess.run(["rm", "-rf", *map(str, tmp_path.iterdir())], check=True)


def nest(top: Path, depth: int) -> None:
    """Make nested folders without paths, which end at 4,096 bytes, and beyond Python's recursion limit."""
    top.mkdir(parents=True)
    handle = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(os.open("x.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)


def test_remains_of_any_depth_are_removed_and_no_longer_poison_the_root(tmp_path: Path, deep_folder) -> None:
    root, files = tmp_path / "root", below("cifar", task())
    deep_folder(root / STAGING / "cifar", 1200)
    (root / STAGING / "link").symlink_to(tmp_path)
    assert prepare(pack(tmp_path / "good.zip", files), root, FOLDERS, silent) == ["cifar"]
    assert tree(root) == files
    assert not (root / STAGING).exists()
    assert (tmp_path / "good.zip").is_file()  # what a link in it leads to is left alone


def test_a_deep_folder_as_source_is_refused(tmp_path: Path, deep_folder) -> None:
    deep_folder(tmp_path / "got/cifar", 1200)
    assert "65 folders deep" in refusal(tmp_path / "got", tmp_path / "root")
    write_tree(tmp_path / "fine", below("cifar", task()))
    assert prepare(tmp_path / "fine", tmp_path / "root", FOLDERS, silent) == ["cifar"]


def make(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "itself":
        path.symlink_to(path)
    elif kind == "circle":
        path.symlink_to(path.with_name("other"))
        path.with_name("other").symlink_to(path)
    else:
        with path.open("wb") as file:
            file.truncate(10**12)


KINDS = {
    "pipe": "is a pipe, not a regular file",
    "zeros": "is a device, not a regular file",
    "itself": "Too many levels of symbolic links",
    "circle": "Too many levels of symbolic links",
    "sparse": "",
}


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_source_of_another_kind_is_refused_unread(kind: str, suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"a{suffix}"
    make(kind, source)
    done = quickly("data", "prepare", "vtab", "--archive", source, "--root", tmp_path / "root")
    message = error_of(done) if kind != "sparse" else done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert str(source) in message
    assert KINDS[kind] in message


def test_an_archive_that_holds_itself_is_unpacked_one_level_deep_only(tmp_path: Path) -> None:
    """Members of archives inside an archive are not unpacked, whatever they hold."""
    inner = b""
    for _ in range(50):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("self.zip", inner)
        inner = packed.getvalue()
    (tmp_path / "self.zip").write_bytes(inner)
    message = refusal(tmp_path / "self.zip", tmp_path / "root")
    assert "holds none of the folders" in message


def test_a_root_that_cannot_be_is_said(tmp_path: Path) -> None:
    source = pack(tmp_path / "a.zip", below("cifar", task()))
    (tmp_path / "loop").symlink_to("loop")
    for root in (tmp_path / "loop", source):
        message = error_of(quickly("data", "prepare", "vtab", "--archive", source, "--root", root))
        assert str(root) in message
