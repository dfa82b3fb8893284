"""Facts of images that decide how they are read, in fingerprints, checks and plans."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petl_bench.config import plan_task
from petl_bench.data import manifest_of, resolve
from petl_bench.data.file_facts import read_facts
from petl_bench.data.images import DEEP, as_published, as_shown
from petl_bench.data.layouts import located
from petl_bench.data.lists import Listing
from petl_bench.data.resolve import PARTS, fingerprint
from petl_bench.data.verify import verify
from petl_bench.errors import UserError
from petl_bench.types import Cache, DataSettings
from tests.test_images import EVERY, REFUSED, stored


@pytest.mark.parametrize("mode", EVERY)
def test_facts_say_where_the_two_ways_of_reading_differ(mode: str, tmp_path: Path) -> None:
    """They differ exactly where `shown_otherwise` says so, and fingerprints of all other own data stay."""
    image = Image.new(mode, (4, 4))
    if mode == "PA":
        image.putpalette([50, 60, 70])
    data = stored(image, EVERY[mode])
    (tmp_path / "image").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts = read_facts(tmp_path / "image", decode=True)
        shown = as_shown(data)
        published = as_published(data)
    assert not facts.error
    with Image.open(io.BytesIO(data)) as opened:
        assert facts.mode == opened.mode
        np.testing.assert_array_equal(np.asarray(published), np.asarray(opened.convert("RGB")))
    assert facts.shown_otherwise == (mode in (*DEEP, "LA", "PA", "RGBA"))
    if mode not in DEEP:  # of these, black is black in both
        assert facts.shown_otherwise == (shown.tobytes() != published.tobytes())


def test_what_is_opaque_is_read_as_before(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (8, 8, 4)).astype(np.uint8)
    noise[..., 3] = 255
    palette = Image.fromarray(noise[..., :3]).convert("P")
    for data in (
        stored(Image.fromarray(noise)),
        stored(Image.fromarray(noise[..., 2:].copy(), "LA")),
        stored(palette, transparency=bytes([255] * 256)),
    ):
        (tmp_path / "image.png").write_bytes(data)
        facts = read_facts(tmp_path / "image.png", decode=False)
        assert not facts.shown_otherwise
        assert as_shown(data).tobytes() == as_published(data).tobytes()


def test_the_rule_joins_the_fingerprint_of_own_data_where_it_matters(tmp_path: Path) -> None:
    names = ["opaque.png", "glass.png"]
    for name, alpha in zip(names, (255, 0), strict=True):
        Image.new("RGBA", (2, 2), (1, 2, 3, alpha)).save(tmp_path / name)
    facts = [read_facts(tmp_path / name, decode=False) for name in names]
    listing = Listing(tmp_path, tmp_path, names, np.array([0, 1]))
    hashes = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names]
    for shown, mark in ((False, ""), (True, " shown 1")):  # 2 only where a rule of version 2 acts
        lines = f"0 {hashes[0]}\n1 {hashes[1]}{mark}\n"
        part = hashlib.sha256(lines.encode()).hexdigest()
        whole = "".join(f"{name} 2 {part}\n" for name in PARTS)
        found = fingerprint(dict.fromkeys(PARTS, listing), dict.fromkeys(PARTS, facts), shown)
        assert found == hashlib.sha256(whole.encode()).hexdigest()


@pytest.mark.parametrize("case", [*REFUSED, "12 bits", "16 bits of colour", "whole range", "8 bits"])
def test_values_of_deep_images_are_examined_before_a_sweep(case: str, tmp_path: Path) -> None:
    """Values that cannot be read are refused, and a small part of the range is told, by sweep and verify."""
    low = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
    colour = deep_colour(np.stack([low] * 3, -1))
    data = {
        "12 bits": stored(Image.fromarray(low)),
        "16 bits of colour": colour,
        "whole range": stored(Image.fromarray(low * 16)),
        "8 bits": stored(Image.fromarray((low // 256).astype(np.uint8))),
    } | {name: stored(Image.fromarray(values), "tiff") for name, values in REFUSED.items()}
    for number in range(12):
        path = tmp_path / "root" / "ab"[number % 2] / f"{number}.{'tif' if case in REFUSED else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[case])
    task = plan_task("tree", DataSettings(root=str(tmp_path / "root"), images=8))
    cache, said = Cache(str(tmp_path / "cache")), list[str]()
    report = verify(located(task, manifest_of(task)), manifest_of(task), cache, decode=False)
    if case in REFUSED:
        with pytest.raises(UserError, match="save the image with 8 bits"):
            resolve(task, cache)
        assert {problem.kind for problem in report.problems} >= {"values"}
        return
    resolve(task, cache, warn=said.append)
    narrow = case in ("12 bits", "16 bits of colour")
    assert any("of 256 levels are left" in line for line in said) == narrow
    assert any("of 256 levels are left" in line for line in report.notes) == narrow


def deep_colour(values: np.ndarray) -> bytes:
    """A PNG file of 16-bit colour, which Pillow reads but does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_a_palette_with_transparency_warns_of_nothing(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 100, 150, 200])
    data = stored(palette, transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_published(data).getpixel((0, 0)) == (100, 150, 200)
        # (100 * 128 + 255 * 127) / 255 = 177.2, (150 * 128 + 255 * 127) / 255 = 202.3, 227.4
        assert as_shown(data).getpixel((0, 0)) == (177, 202, 227)
