"""Files that appear whole, with the permissions that the umask of the process gives new files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from petl_bench.atomic import staged, write_atomic
from petl_bench.store import Store
from petl_bench.store.claims import Claims
from petl_bench.types import Cache
from tests.decoding import fill, pictures


@pytest.fixture(params=[0o002, 0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, set[int]]:
    """Return the permissions of all files and of all folders below a folder."""
    found: dict[str, set[int]] = {"files": set(), "folders": set()}
    for path in folder.rglob("*"):
        found["folders" if path.is_dir() else "files"].add(path.stat().st_mode & 0o777)
    return found


def test_files_and_folders_of_a_shared_cache_or_store_follow_the_umask(tmp_path: Path, umask: int) -> None:
    home = tmp_path / "home"
    cache = Cache(str(home / "cache"))
    fill(pictures(tmp_path / "images", 3, 12, cache), 8, cache)
    Store(home / "store").create()
    with Claims(home / "store").take("0123456789ab", heartbeat=5):
        write_atomic(home / "store/row.json", b"{}")
        assert modes(home) == {"files": {0o666 & ~umask}, "folders": {0o777 & ~umask}}


def test_a_mode_that_is_given_is_kept(tmp_path: Path, umask: int) -> None:
    write_atomic(tmp_path / "file", b"", mode=0o640)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_what_is_not_placed_is_removed(tmp_path: Path) -> None:
    files = {tmp_path / name: name.encode() for name in ("one", "two")}
    with staged(files) as place:
        place(tmp_path / "two")
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
