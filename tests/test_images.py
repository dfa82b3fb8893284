"""Reading of image files: a known colour goes into every mode and comes back; closed forms are expected."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from petl_bench.data.decoded import decoded, native_sizes
from petl_bench.data.file_facts import read_facts
from petl_bench.data.images import as_shown
from petl_bench.data.lists import Listing
from petl_bench.types import Cache

BYTE = st.integers(0, 255)
COLOUR = st.tuples(BYTE, BYTE, BYTE)


def stored(image: Image.Image, suffix: str = "png", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    return stream.getvalue()


def pixel(data: bytes) -> tuple[int, ...]:
    """The colour of the first pixel as own data are read."""
    image = as_shown(data)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def on_white(colour: tuple[int, ...], alpha: int) -> np.ndarray:
    """alpha * colour + (1 - alpha) * white, in 8 bits."""
    return (np.array(colour) * alpha + 255 * (255 - alpha)) / 255


@settings(max_examples=25)
@given(COLOUR, BYTE)
def test_a_colour_comes_back_from_every_mode_of_colour(colour: tuple[int, int, int], alpha: int) -> None:
    for suffix in ("png", "tiff", "bmp", "ppm"):
        assert pixel(stored(Image.new("RGB", (2, 1), colour), suffix)) == colour
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([9, 9, 9, *colour])
    assert pixel(stored(palette)) == pixel(stored(palette, "gif")) == colour
    # Red is (255 - cyan)(255 - black) / 255, so without black 255 - cyan.
    cmyk = Image.new("CMYK", (2, 1), (*(255 - value for value in colour), 0))
    assert pixel(stored(cmyk, "tiff")) == colour
    for data in (
        stored(Image.new("RGBA", (2, 1), (*colour, alpha))),
        stored(Image.new("RGBA", (2, 1), (*colour, alpha)), "tiff"),
        stored(palette, transparency=bytes([7, alpha])),
    ):
        np.testing.assert_allclose(pixel(data), on_white(colour, alpha), atol=0.51)
    key = Image.new("RGB", (2, 1), colour)
    assert pixel(stored(key, transparency=colour)) == (255, 255, 255)
    other = tuple((value + 1) % 256 for value in colour)
    assert pixel(stored(key, transparency=other)) == colour


@settings(max_examples=25)
@given(BYTE, BYTE)
def test_a_grey_comes_back_from_every_mode_of_grey(value: int, alpha: int) -> None:
    grey = (value,) * 3
    assert pixel(stored(Image.new("L", (2, 1), value))) == grey
    assert pixel(stored(Image.new("L", (2, 1), value), "tiff")) == grey
    assert pixel(stored(Image.new("L", (2, 1), value), transparency=value)) == (255, 255, 255)
    found = pixel(stored(Image.new("LA", (2, 1), (value, alpha))))
    np.testing.assert_allclose(found, on_white(grey, alpha), atol=0.51)
    # 16 bits hold an 8-bit value as 257 times it (all bits full) or as 256 times it (low byte empty).
    for times in (256, 257):
        deep = Image.fromarray(np.array([[value * times, 65535]], np.uint16))
        for data in (stored(deep), stored(deep, "tiff"), stored(deep, "ppm")):
            assert pixel(data) == grey
        wide = Image.fromarray(np.array([[value * times, 65535]], np.int32))
        assert pixel(stored(wide, "tiff")) == grey
        big = Image.frombytes("I;16B", (2, 1), np.array([value * times, 65535], ">u2").tobytes())
        assert pixel(stored(big, "tiff")) == grey
        assert pixel(stored(deep, transparency=value * times)) == (255, 255, 255)
    real = Image.fromarray(np.array([[value / 255, 1]], np.float32))
    assert pixel(stored(real, "tiff")) == grey


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (1, 255)])
def test_two_levels_are_black_and_white(value: int, grey: int) -> None:
    image = Image.new("1", (2, 1), value)
    assert {pixel(stored(image, suffix)) for suffix in ("png", "tiff", "bmp")} == {(grey,) * 3}


def corners(orientation: int) -> Image.Image:
    """A 3 x 2 image with four grey corners, as a camera stores it whose picture is 10 20 / 30 40 upright."""
    upright = np.array([[10, 15, 20], [30, 35, 40]], np.uint8)
    # Exif 2.32: where row 0 and column 0 of the stored image are in the upright one.
    undone = {
        1: upright,
        2: upright[:, ::-1],  # top right
        3: upright[::-1, ::-1],  # bottom right
        4: upright[::-1],  # bottom left
        5: upright.T,  # left top
        6: np.rot90(upright, 1),  # right top: to be turned clockwise
        7: upright.T[::-1, ::-1],  # right bottom
        8: np.rot90(upright, -1),  # left bottom
    }
    return Image.fromarray(np.ascontiguousarray(undone[orientation]))


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_notes(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpeg" else {}
    if suffix == "tiff":
        options, exif = {"tiffinfo": {274: orientation}}, Image.Exif()
    data = stored(corners(orientation), suffix, **({"exif": exif} if exif else {}), **options)
    found = np.asarray(as_shown(data))[..., 0].astype(int)
    np.testing.assert_allclose(found, [[10, 15, 20], [30, 35, 40]], atol=2 if suffix == "jpeg" else 0)
    (tmp_path / "image").write_bytes(data)
    facts = read_facts(tmp_path / "image", decode=False)
    assert facts.shape(shown=True) == (2, 3)
    assert facts.shown_otherwise == (orientation != 1 and suffix != "tiff")  # Pillow turns TIFF files


def test_turned_images_reach_the_model_upright(tmp_path: Path) -> None:
    """In native sizes, in one small size, and resized; a benchmark with the same files is not turned."""
    exif, names = Image.Exif(), ["a.png", "b.png"]
    exif[0x0112] = 6
    for name in names:
        corners(6).save(tmp_path / name, exif=exif)
    facts = [read_facts(tmp_path / name, decode=False) for name in names]
    listing, cache = Listing(tmp_path, tmp_path, names, np.array([0, 1])), Cache(str(tmp_path / "cache"))
    upright = np.array([[10, 15, 20], [30, 35, 40]], np.uint8)
    for shown, expected in ((True, upright), (False, np.asarray(corners(6)))):
        native = native_sizes(listing, facts, cache, shown)
        assert (native.heights[0], native.widths[0]) == expected.shape
        assert native.flat.reshape(2, *expected.shape, 3)[1, ..., 0].tolist() == expected.tolist()
        small = decoded(listing, facts, "stretch", 8, cache, shown)
        assert small[1, 2].tolist() == expected.tolist()
        large = np.asarray(Image.fromarray(expected).resize((2, 2), Image.Resampling.BICUBIC))
        assert decoded(listing, facts, "stretch", 2, cache, shown)[0, 1].tolist() == large.tolist()


REFUSED = {
    "negative": np.array([[-1, 9]], np.int32),
    "more than 16 bits": np.array([[70000, 0]], np.int32),
    "8 bits in 32": np.array([[200, 3]], np.int32),
    "8 bits in 16": np.array([[200, 3]], np.uint16),
    "float to 255": np.array([[200.0, 3]], np.float32),
    "not a number": np.array([[np.nan, 0.5]], np.float32),
    "infinite": np.array([[np.inf, 0.5]], np.float32),
    "tiny": np.array([[1e-9, 0]], np.float32),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_no_rule_makes_right_are_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r"mode .* with values from .*; save the image with 8 bits"):
        as_shown(stored(Image.fromarray(REFUSED[case]), "tiff"))


def tiff(values: np.ndarray, bits: int, zero_is_white: bool = False) -> bytes:
    """An uncompressed grey TIFF file of one strip, written by the TIFF 6.0 specification."""
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = np.stack(
            [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
        )
        data = packed.astype(np.uint8).tobytes()
    else:
        data = values.tobytes()
    height, width = values.shape
    kind = 3 if values.dtype == np.float32 else 1
    entries = [
        (256, width), (257, height), (258, bits), (259, 1), (262, 0 if zero_is_white else 1),
        (273, 8), (277, 1), (278, height), (279, len(data)), (339, kind),
    ]  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    fields = fields.replace(struct.pack("<HHI", 339, 4, 1), struct.pack("<HHI", 339, 3, 1))
    for tag in (258, 259, 262, 277):
        fields = fields.replace(struct.pack("<HHI", tag, 4, 1), struct.pack("<HHI", tag, 3, 1))
    directory = struct.pack("<H", len(entries)) + fields + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize("zero_is_white", [False, True])
@pytest.mark.parametrize(
    ("kind", "bits", "white"), [("u1", 8, 255), ("u2", 12, 4095), ("u2", 16, 65535), ("f4", 32, 1)]
)
def test_tiff_files_are_scaled_and_inverted_as_they_state(
    kind: str, bits: int, white: int, zero_is_white: bool, tmp_path: Path
) -> None:
    """0 is black and the highest value white, or the other way round (TIFF 6.0, tag 262)."""
    if bits == 12 and zero_is_white:
        pytest.skip("Pillow opens no such files")
    values = np.array([[0, white, white / 4, white / 2]]).astype(kind)
    data = tiff(values, bits, zero_is_white)
    found = np.asarray(as_shown(data))[0, :, 0].astype(int)
    expected = np.array([0, 255, 63.75, 127.5])
    np.testing.assert_allclose(found, 255 - expected if zero_is_white else expected, atol=1)
    (tmp_path / "image").write_bytes(data)
    facts = read_facts(tmp_path / "image", decode=False)
    assert facts.shown_otherwise == (bits > 8)
    assert facts.rule == (2 if bits == 12 or (zero_is_white and bits > 8) else 1)


@settings(max_examples=20)
@given(st.integers(0, 4095))
def test_twelve_bits_are_the_highest_eight(value: int) -> None:
    assert pixel(tiff(np.array([[value, 4095]], "u2"), 12)) == (value >> 4,) * 3


def test_black_stays_black() -> None:
    for dtype in (np.uint16, np.int32, np.float32):
        assert pixel(stored(Image.fromarray(np.zeros((2, 2), dtype)), "tiff")) == (0, 0, 0)


EVERY = {
    "1": "png", "L": "png", "LA": "png", "P": "png", "PA": "tiff", "RGB": "png", "RGBA": "png",
    "CMYK": "tiff", "YCbCr": "jpeg", "LAB": "tiff",
    "I": "tiff", "F": "tiff", "I;16": "png", "I;16B": "tiff",
}  # fmt: skip
"""Every mode in which Pillow opens files, with a format that holds it."""
