"""The cache of decoded images: damaged files, the limit of its size, and disks that cannot be written."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petl_bench.errors import UserError
from petl_bench.types import Cache
from tests.conftest import mounted
from tests.decoding import Images, fill, in_cache, pictures
from tests.test_decoded_cache import child, run_together

ONE = 10 * 3 * 24 * 24
"""Bytes of ten images of 24 x 24, without the file's header."""
HEADERS = 1000
"""More than the headers of four .npy files (128 bytes each)."""


def tens(folder: Path, cache: Cache, count: int) -> list[Images]:
    return [pictures(folder, 10, 24, cache, first=10 * number) for number in range(count)]


def age(cache: Cache, seconds: int) -> None:
    """As if all files of the cache had last been used so long ago, or longer."""
    for path in (Path(cache.directory) / "decoded").glob("*.npy*"):
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_a_file_cut_short_is_made_again(tmp_path: Path, cache: Cache) -> None:
    images = pictures(tmp_path / "images", 5, 12, cache)
    expected = np.array(fill(images, 8, cache))
    (path,) = (Path(cache.directory) / "decoded").glob("*.npy")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    np.testing.assert_array_equal(fill(images, 8, cache), expected)


def overwritten_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(bytes(200))


def as_floats(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float32))


def of_another_shape(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def without_digest(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").unlink()


def with_another_digest(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").write_text("0" * 64)


DAMAGES = [
    lambda path: np.save(path, np.zeros_like(np.load(path))),  # zeros of the right shape
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"PK\3\4" + bytes(100)),
    lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    overwritten_in_place,
    as_floats,
    of_another_shape,
    without_digest,
    with_another_digest,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("known", [True, False], ids=["this process", "another process"])
def test_a_file_that_is_not_what_was_written_is_made_again(
    damage, known: bool, tmp_path: Path, cache: Cache, monkeypatch
) -> None:
    images = pictures(tmp_path / "images", 5, 12, cache)
    expected = np.array(fill(images, 8, cache))
    (path,) = (Path(cache.directory) / "decoded").glob("*.npy")
    whole = path.read_bytes()
    fill(images, 8, cache)
    time.sleep(0.01)  # the clock of file times ticks every few milliseconds
    damage(path)
    if not known or damage in (without_digest, with_another_digest):
        monkeypatch.setattr("petl_bench.data.decoded._believed", set())
    np.testing.assert_array_equal(fill(images, 8, cache), expected)
    assert path.read_bytes() == whole
    assert path.with_name(f"{path.name}.sha256").read_text() == hashlib.sha256(whole).hexdigest()


def test_a_digest_is_computed_once_in_a_process(tmp_path: Path, cache: Cache, monkeypatch) -> None:
    images = pictures(tmp_path / "images", 5, 12, cache)
    fill(images, 8, cache)
    fill(images, 8, cache)
    monkeypatch.setattr(hashlib, "file_digest", None)  # another computation would fail
    fill(images, 8, cache)


def test_the_least_recently_used_file_makes_room(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"), 2 * ONE + HEADERS)
    first, second, third = tens(tmp_path, cache, 3)
    made = {}
    for name, images in (("first", first), ("second", second)):
        fill(images, 48, cache)
        (made[name],) = set(in_cache(cache)[0]) - set(made.values())
        age(cache, 1000)
    fill(first, 48, cache)  # made first, but used last
    found = fill(third, 48, cache)
    files, temporary = in_cache(cache)
    assert made["first"] in files
    assert made["second"] not in files
    assert (len(files), temporary) == (2, [])
    assert sum(path.stat().st_size for path in (tmp_path / "cache/decoded").glob("*.npy")) <= cache.limit
    again = fill(second, 48, cache)  # what was removed is made again
    np.testing.assert_array_equal(again, [np.asarray(Image.open(p)).transpose(2, 0, 1) for p in second.paths])
    np.testing.assert_array_equal(found, [np.asarray(Image.open(p)).transpose(2, 0, 1) for p in third.paths])


def test_a_removed_file_can_still_be_read_by_who_has_it(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"), ONE + HEADERS)
    first, second = tens(tmp_path, cache, 2)
    held = fill(first, 48, cache)
    fill(second, 48, cache)
    assert len(in_cache(cache)[0]) == 1
    np.testing.assert_array_equal(held, [np.asarray(Image.open(p)).transpose(2, 0, 1) for p in first.paths])


def test_more_than_the_limit_is_refused_and_takes_nothing_else_away(tmp_path: Path) -> None:
    small = Cache(str(tmp_path / "cache"), ONE + HEADERS)
    images, more = tens(tmp_path, small, 1)[0], pictures(tmp_path / "more", 30, 24, small)
    fill(images, 48, small)
    before = in_cache(small)
    with pytest.raises(UserError) as caught:
        fill(more, 48, small)
    # The setting's name and value (18280 bytes), what is needed (3 * ONE = 51840 bytes), and the way out.
    assert re.match(r"data\.cache_gb=1\.828e-05: .* 0\.00 GB; raise the limit$", str(caught.value))
    assert in_cache(small) == before
    assert fill(more, 48, Cache(small.directory)).shape == (30, 3, 24, 24)


def test_processes_that_crowd_each_other_out_still_get_their_images(tmp_path: Path) -> None:
    # The limit holds one of three sets, and every process wants them in turn, in another order.
    cache, start = Cache(str(tmp_path / "cache"), ONE + HEADERS), tmp_path / "start"
    names = [images.listing.names for images in tens(tmp_path / "images", cache, 3)]
    orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2]]
    processes = [
        child(tmp_path / "images", cache, start, 48, [names[i] for i in order], 40) for order in orders
    ]
    results = run_together(processes, start)
    expected = [
        hashlib.sha256(
            np.stack(
                [np.asarray(Image.open(tmp_path / "images" / n)).transpose(2, 0, 1) for n in own]
            ).tobytes()
        ).hexdigest()
        for own in names
    ]
    for order, (shas, _) in zip(orders, results, strict=True):
        assert shas == [expected[i] for i in order] * 40
    assert in_cache(cache)[1] == []


# A cache that cannot be written


@pytest.mark.parametrize("blocked", ["", "decoded"], ids=["a file is the folder", "a file inside it"])
def test_a_folder_that_cannot_be_is_said(tmp_path: Path, cache: Cache, blocked: str) -> None:
    images = pictures(tmp_path / "images", 2, 24, cache)
    shutil.rmtree(cache.directory)
    path = Path(cache.directory, blocked)
    path.parent.mkdir(exist_ok=True)
    path.write_text("no folder")
    with pytest.raises(UserError) as caught:
        fill(images, 48, cache)
    assert str(caught.value).startswith(f"data.cache={cache.directory}: ")
    assert "File exists" in str(caught.value)
    assert "choose another folder" in str(caught.value)
    assert path.read_text() == "no folder"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    yield from mounted(tmp_path / "disk", "size=256k")


@pytest.fixture
def sealed_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that can only be read."""
    yield from mounted(tmp_path / "disk", "size=256k,ro")


def test_a_full_disk_is_one_error_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    cache = Cache(str(small_disk / "cache"))
    some, many = tens(tmp_path, cache, 1)[0], pictures(tmp_path / "many", 200, 24, cache)
    kept = np.array(fill(some, 48, cache))
    with pytest.raises(UserError) as caught:
        fill(many, 48, cache)  # 200 * 3 * 24 * 24 = 345,600 bytes
    assert str(caught.value).startswith(f"data.cache={cache.directory}: cannot store 0.00 GB")
    assert "No space left on device" in str(caught.value)
    files, temporary = in_cache(cache)
    assert (len(files), temporary) == (1, [])
    np.testing.assert_array_equal(fill(some, 48, cache), kept)


def test_a_read_only_disk_is_one_error(sealed_disk: Path, tmp_path: Path, cache: Cache) -> None:
    images = pictures(tmp_path, 2, 24, cache)
    with pytest.raises(UserError, match=r"data\.cache=.*: .*Read-only file system.*choose another folder"):
        fill(images, 48, Cache(str(sealed_disk)))
