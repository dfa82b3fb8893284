"""Decoded images: Pillow's bits, shared by tasks, and files that are not what was known of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from petl_bench.config import plan_task
from petl_bench.data import load, resolve
from petl_bench.data.decoded import native_sizes, resized
from petl_bench.data.file_facts import file_facts
from petl_bench.errors import UserError
from petl_bench.train.pixels import Pixels
from petl_bench.types import Cache, DataSettings
from tests.decoding import fill, images_of, in_cache, pictures, stretched
from tests.trees import picture, save, vtab_task, write_list

CPU = torch.device("cpu")


def cropped(path: Path, size: int) -> np.ndarray:
    """torchvision's usual preparation for evaluation, on a PIL image."""
    with Image.open(path) as image:
        return np.asarray(usual(size)(image.convert("RGB"))).transpose(2, 0, 1)


def usual(size: int) -> Compose:
    return Compose([Resize(int(256 / 224 * size), InterpolationMode.BICUBIC), CenterCrop(size)])


# Pillow's bits

SHAPES = [(64, 64), (31, 97), (97, 31), (200, 151), (49, 50), (48, 300), (5, 3), (1, 1)]
"""Widths and heights: portrait and landscape, odd, larger and smaller than the inputs below."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in every mode that data sets hold: colour, grey, palette, with transparency, CMYK, two levels."""
    folder = tmp_path_factory.mktemp("kinds")
    for number, (width, height) in enumerate(SHAPES):
        random = np.random.RandomState(number)
        colour = Image.fromarray(random.randint(0, 256, (height, width, 3)).astype(np.uint8))
        transparent = random.randint(0, 256, (height, width, 4)).astype(np.uint8)
        made = {
            "colour.jpg": colour,
            "colour.png": colour,
            "grey.jpg": colour.convert("L"),
            "grey.png": colour.convert("L"),
            "palette.png": colour.convert("P"),
            "palette.gif": colour.convert("P"),
            "rgba.png": Image.fromarray(transparent),
            "grey-alpha.png": Image.fromarray(transparent[..., :2].copy(), "LA"),
            "cmyk.jpg": colour.convert("CMYK"),
            "levels.png": colour.convert("1"),
        }
        for name, image in made.items():
            image.save(folder / f"{width}x{height}-{name}")
    return folder


@pytest.mark.parametrize("size", [32, 51, 224])
@pytest.mark.parametrize(("resize", "expected"), [("stretch", stretched), ("crop", cropped)])
def test_every_kind_of_file_is_decoded_and_resized_as_by_pillow(
    kinds: Path, cache: Cache, size: int, resize: str, expected
) -> None:
    images = images_of(kinds, sorted(path.name for path in kinds.iterdir()), cache)
    found = fill(images, size, cache, resize)
    assert found.dtype == np.uint8
    assert found.shape == (len(SHAPES) * 10, 3, size, size)
    for path, image in zip(images.paths, found, strict=True):
        np.testing.assert_array_equal(image, expected(path, size), err_msg=path.name)
    np.testing.assert_array_equal(fill(images, size, cache, resize), found)  # once more, from the file


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([28, 32, 51, 64]))
@example(224, 225, 224)
@example(500, 375, 224)
@example(333, 500, 224)
def test_the_crop_is_torchvisions_for_any_size(width: int, height: int, size: int) -> None:
    image = Image.fromarray(
        np.random.RandomState(width * 301 + height).randint(0, 256, (height, width, 3)).astype(np.uint8)
    )
    np.testing.assert_array_equal(np.asarray(resized(image, "crop", size)), np.asarray(usual(size)(image)))


@pytest.mark.parametrize(("width", "height"), [(24, 24), (20, 31), (48, 13), (1, 1), (48, 48)])
def test_small_images_of_one_size_are_kept_as_they_are_and_enlarged_later(
    tmp_path: Path, cache: Cache, width: int, height: int
) -> None:
    for number in range(5):
        pixels = np.random.RandomState(number).randint(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    images = images_of(tmp_path, [f"{number}.png" for number in range(5)], cache)
    found = fill(images, 48, cache)
    assert found.shape == (5, 3, height, width)
    fed = Pixels("none", 48, CPU)(torch.from_numpy(np.array(found)))
    for path, image, own in zip(images.paths, found, fed, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(path)).transpose(2, 0, 1))
        expected = stretched(path, 48).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(own.numpy(), expected)


def test_images_of_two_sizes_or_too_large_are_stored_in_the_inputs_size(tmp_path: Path, cache: Cache) -> None:
    pictures(tmp_path, 2, 24, cache)
    pictures(tmp_path, 1, 25, cache, first=2)
    pictures(tmp_path, 2, 49, cache, first=3)
    for numbers in ([0, 1, 2], [3, 4]):
        images = images_of(tmp_path, [f"{number:04d}.png" for number in numbers], cache)
        found = fill(images, 48, cache)
        assert found.shape == (len(numbers), 3, 48, 48)
        np.testing.assert_array_equal(found, [stretched(path, 48) for path in images.paths])


def test_native_sizes_gives_the_very_pixels(kinds: Path, cache: Cache) -> None:
    images = images_of(kinds, sorted(path.name for path in kinds.iterdir()), cache)
    found = native_sizes(images.listing, images.facts, cache)
    ends = found.offsets()
    assert len(found) == len(images.paths)
    assert ends[-1] == len(found.flat)
    for number, path in enumerate(images.paths):
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        shape = (found.heights[number], found.widths[number], 3)
        assert shape == expected.shape
        np.testing.assert_array_equal(found.flat[ends[number] : ends[number + 1]].reshape(shape), expected)


def test_what_is_changed_in_memory_stays_out_of_the_cache(tmp_path: Path, cache: Cache) -> None:
    images = pictures(tmp_path, 3, 24, cache)
    found = fill(images, 48, cache)
    before = np.array(found)
    found[:] = 0
    np.testing.assert_array_equal(fill(images, 48, cache), before)


# One file for all who need the same images


def test_two_tasks_over_the_same_images_share_one_file(tmp_path: Path, cache: Cache) -> None:
    # As dsprites_loc and dsprites_ori do: the same files in two folders, with other labels.
    sizes = {"train": 8, "val": 4, "test": 6}
    vtab_task(tmp_path / "first", 4, sizes, ".png")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    for name in ("train800", "val200", "train800val200", "test"):
        lines = (tmp_path / "first" / f"{name}.txt").read_text().split()
        pairs = list(zip(lines[::2], map(int, lines[1::2]), strict=True))
        write_list(tmp_path / "second" / f"{name}.txt", [(path, 3 - label) for path, label in pairs])
    tasks = [
        resolve(plan_task("folder", DataSettings(root=str(tmp_path / name))), cache)
        for name in ("first", "second")
    ]
    assert tasks[0].fingerprint != tasks[1].fingerprint
    first, second = (load(task, "train", 48, cache) for task in tasks)
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, 3 - second.labels)
    assert len(in_cache(cache)[0]) == 1


# Files that are not what was known of them


@pytest.mark.parametrize("native", [False, True])
def test_an_image_changed_after_fingerprinting_is_refused(tmp_path: Path, cache: Cache, native: bool) -> None:
    images = pictures(tmp_path, 3, 24, cache)
    changed = images.paths[1]
    save(picture(0, 999, 24), changed)
    with pytest.raises(UserError) as caught:
        native_sizes(images.listing, images.facts, cache) if native else fill(images, 48, cache)
    assert str(caught.value).startswith(f"{changed}: has changed")
    assert in_cache(cache) == ([], [])


def test_an_image_gone_after_fingerprinting_is_said(tmp_path: Path, cache: Cache) -> None:
    images = pictures(tmp_path, 3, 24, cache)
    images.paths[2].unlink()
    with pytest.raises(UserError) as caught:
        fill(images, 48, cache)
    assert str(images.paths[2]) in str(caught.value)
    assert "No such file" in str(caught.value)
    assert in_cache(cache) == ([], [])


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, cache: Cache) -> None:
    path = tmp_path / "cut.jpg"
    save(picture(0, 0, 64), path)
    path.write_bytes(path.read_bytes()[:-100])  # the header is whole, the pixels are not
    images = images_of(tmp_path, ["cut.jpg"], cache)
    with pytest.raises(UserError) as caught:
        fill(images, 48, cache)
    assert str(caught.value).startswith(f"{path}: cannot be decoded")
    assert "petl-bench data verify" in str(caught.value)
    assert in_cache(cache) == ([], [])


def test_other_content_under_the_same_names_is_decoded_anew(tmp_path: Path, cache: Cache) -> None:
    fill(pictures(tmp_path, 2, 24, cache), 48, cache)
    save(picture(0, 999, 24), tmp_path / "0001.png")
    names = ["0000.png", "0001.png"]
    found = fill(images_of(tmp_path, names, cache), 48, cache)
    np.testing.assert_array_equal(
        found, [np.asarray(Image.open(tmp_path / n)).transpose(2, 0, 1) for n in names]
    )


DAMAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "null": lambda text: "null",
    "list": lambda text: "[]",
    "no files": lambda text: '{"format": 1}',
    "files a list": lambda text: '{"format": 1, "files": []}',
    "fields missing": lambda text: re.sub(r"\[(\d+),[^]]*\]", r"[\1]", text),
    "not text": lambda text: "\udc80\udcff",
    "of another format": lambda text: re.sub('"format":[0-9]+', '"format":0', text),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_index_is_made_again(tmp_path: Path, cache: Cache, damage) -> None:
    images = pictures(tmp_path, 3, 24, cache)
    (index,) = (Path(cache.directory) / "files").iterdir()
    text = index.read_text()
    damaged = damage(text).encode(errors="surrogateescape")
    assert damaged != text.encode()
    index.write_bytes(damaged)
    again = images_of(tmp_path, images.listing.names, cache)
    assert again.facts == images.facts
    assert [fact.sha256 for fact in again.facts] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in images.paths
    ]
    assert json.loads(index.read_text()) == json.loads(text)
    assert [path.name for path in index.parent.iterdir()] == [index.name]


def test_facts_are_kept_by_size_and_time(tmp_path: Path, cache: Cache) -> None:
    images = pictures(tmp_path, 2, 24, cache)
    path, names = images.paths[0], images.listing.names
    before, stat = images.facts[0], path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_facts(tmp_path, names, cache)[names[0]] == before  # nothing was read
    time.sleep(0.01)
    os.utime(path)
    after = file_facts(tmp_path, names, cache)[names[0]]
    assert after.sha256 == hashlib.sha256(bytes(stat.st_size)).hexdigest()
    assert after.error


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 2_000_000), (2_000_000, 1), (3, 900_000)])
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_thin_strips_need_no_more_memory_than_they_have_pixels(size: tuple[int, int], resize: str) -> None:
    """Enlarged as a whole, the first has 256 x 15,360,000 pixels; each has one colour, so its middle too."""
    strip = Image.new("RGB", size, (10, 120, 230))
    found = np.asarray(resized(strip, resize, 224))
    assert found.shape == (224, 224, 3)
    assert (found == (10, 120, 230)).all()


@pytest.mark.parametrize("size", [(9, 400), (400, 9), (40, 30)])
def test_only_the_middle_of_a_strip_is_resized_to_the_same_pixels(size: tuple[int, int], monkeypatch) -> None:
    noise = np.random.RandomState(0).randint(96, 160, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    whole = {way: np.asarray(resized(image, way, 32)).astype(int) for way in ("crop", "stretch")}
    monkeypatch.setattr("petl_bench.data.decoded.LARGEST", 0)
    for way, expected in whole.items():
        # Pillow rounds to 8 bits after each pass; these values lie so that none is clipped.
        np.testing.assert_allclose(np.asarray(resized(image, way, 32)), expected, atol=2)
