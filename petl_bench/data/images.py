"""Image files as RGB pixels: one rule for each mode of Pillow, in this one place.

Benchmarks are read as their published loaders read them, by Pillow's `convert("RGB")` (`as_published`). It
clips 16-bit and float images to white or black, drops transparency, and ignores the orientation that a camera
notes. The user's own data are read as a viewer shows them (`as_shown`):

==========================  ==================================================================================
Mode, property              Rule
==========================  ==================================================================================
1, L, P, RGB, CMYK, others  `convert("RGB")`: grey levels become equal parts of red, green and blue.
I;16, I                     Grey: the high byte of 16 bits, as Pillow reads 16-bit colour; 0 to 65535. A TIFF
                            file that states fewer bits per sample: the highest 8 of these.
F                           Grey: 0 to 1, times 255 and rounded.
TIFF, WhiteIsZero           Inverted. Pillow does this itself for up to 8 bits.
LA, PA, RGBA, transparency  Blended with white, also where a palette or one colour is transparent.
EXIF orientation            The image is turned and mirrored as it says.
==========================  ==================================================================================

Values outside these ranges, and dark images of which only one colour would be left, are refused. Of several
frames or pages the first is read. Color profiles are ignored.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from petl_bench.files import MB

LIMIT = 1000 * MB
"""Maximum bytes of an image file."""

DEEP = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes of more than 8 bits per channel."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operations that undo an EXIF orientation. Source: CIPA DC-008 (Exif 2.32), tag 274."""

# They name a line of Pillow and no image; what matters of them is told by `petl-bench data verify`.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Traits:
    """Properties of an image file by which the two ways of reading differ.

    Attributes:
        mode: Pillow's name of its kind of pixels.
        orientation: EXIF orientation from 1 (upright) to 8.
        transparent: whether any pixel is not opaque.
        low, high: lowest and highest value of an image of more than 8 bits per channel, without alpha; of
            colour, that of the high bytes.
        white: the highest value that it could have; 0 for images of up to 8 bits.
        negative: whether 0 is white, and Pillow leaves it so.
    """

    mode: str
    orientation: int
    transparent: bool
    low: float = 0.0
    high: float = 0.0
    white: float = 0.0
    negative: bool = False


def traits(image: Image.Image, data: bytes) -> Traits:
    """Return the traits of an opened image; pixels are decoded only if they may be transparent, or are deep.

    Args:
        data: content of its file.
    """
    mode, orientation = image.mode, _orientation(image, data)
    deep_colour = mode not in DEEP and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    transparent = image.has_transparency_data and _any_transparent(image)
    if mode in DEEP:
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        return Traits(mode, orientation, transparent, low, high, _white(image), _is_negative(image))
    if deep_colour:
        channels = [np.asarray(image.getchannel(band)) for band in image.getbands() if band != "A"]
        low, high = float(np.min(channels)), float(np.max(channels))
        return Traits(mode, orientation, transparent, low, high, 255)
    return Traits(mode, orientation, transparent)


def value_flaw(mode: str, low: float, high: float, white: float) -> str:
    """Return why an image of more than 8 bits cannot be read by its values; empty: it can.

    Args:
        low, high, white: see Traits; images of up to 8 bits have no flaw.
    """
    if mode not in DEEP:
        return ""
    if not (low >= 0 and high <= white):
        return (
            f"mode {mode} with values from {low:g} to {high:g}; it is read from 0 (black) to {white:g} "
            "(white); save the image with 8 bits per channel"
        )
    if high > 0 and _grey(np.array(high if mode == "F" else int(high)), white) == 0:
        return (
            f"mode {mode} with values from {low:g} to {high:g} of {white:g}: all would become one colour; "
            "save the image with 8 bits per channel"
        )
    return ""


def as_published(data: bytes) -> Image.Image:
    """Return the content of an image file as Pillow's `convert("RGB")`.

    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: it cannot be decoded.
    """
    with Image.open(io.BytesIO(data)) as image:
        return published(image)


def published(image: Image.Image) -> Image.Image:
    """Return an opened image as Pillow's `convert("RGB")`; see `as_published`."""
    image.load()
    transparency = image.info.pop("transparency", None)  # it changes no pixel; Pillow warns about palettes
    try:
        return image.convert("RGB")
    finally:
        if transparency is not None:
            image.info["transparency"] = transparency


def as_shown(data: bytes) -> Image.Image:
    """Return the content of an image file in RGB as a viewer shows it on white.

    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: it cannot be decoded, or has values
            outside the range of its mode.
    """
    with Image.open(io.BytesIO(data)) as image:
        return shown(image, data)


def shown(opened: Image.Image, data: bytes | None = None) -> Image.Image:
    """Return an opened image in RGB as a viewer shows it on white; see `as_shown`.

    Args:
        data: content of its file, where known, which spares the search for EXIF data in a PNG without any.
    """
    orientation = _orientation(opened, data)
    opened.load()
    image: Image.Image = opened if opened.mode not in DEEP else _eight_bits(opened)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        image = Image.alpha_composite(white, colours)
    image = image.convert("RGB")
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _orientation(image: Image.Image, data: bytes | None) -> int:
    """Return the EXIF orientation; 1 for TIFF files, which Pillow turns itself."""
    if image.format == "TIFF":
        return 1
    marks = (b"eXIf", b"Raw profile type", b"iff:Orientation")
    if image.format == "PNG" and data is not None and not any(mark in data for mark in marks):
        return 1  # the chunk may stand behind the pixels, so Pillow would decode these to look for it
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data that cannot be read are ignored, as viewers do
        return 1
    return orientation if orientation in TURNS else 1


def _any_transparent(image: Image.Image) -> bool:
    if image.mode in DEEP:
        return bool((np.asarray(image) == image.info["transparency"]).any())
    return bool((np.asarray(image.convert("RGBA").getchannel("A")) < 255).any())


def _white(image: Image.Image) -> float:
    """Return the value of white in an image of more than 8 bits, or of black if 0 is white."""
    if image.mode == "F":
        return 1
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    return float(min(2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1, 65535))


def _is_negative(image: Image.Image) -> bool:
    """Return whether 0 is white in an image of more than 8 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return bool(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)


def _grey(values: NDArray[Any], white: float) -> NDArray[Any]:
    """Return values from 0 to `white` as 0 to 255: rounded from 0 to 1, else the highest 8 bits."""
    return np.rint(values * 255.0) if white == 1 else values >> (int(white).bit_length() - 8)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of more than 8 bits with 8 bits: mode L, or LA if one of its values is transparent.

    Raises:
        ValueError: values are outside the range of the mode, or all become one colour though they differ.
    """
    values, white = np.asarray(image), _white(image)
    if flaw := value_flaw(image.mode, float(values.min()), float(values.max()), white):
        raise ValueError(flaw)
    grey = _grey(values, white).astype(np.uint8)
    eight = Image.fromarray(255 - grey if _is_negative(image) else grey)
    if "transparency" in image.info:
        opaque = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        eight.putalpha(Image.fromarray(opaque))
    return eight
