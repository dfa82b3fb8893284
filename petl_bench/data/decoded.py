"""Decoded images in memory-mapped files, each made once for all runs and processes that need it."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock
from numpy.lib import format as npy
from PIL import Image

from petl_bench.atomic import write_atomic
from petl_bench.data.base import Pixels, Ragged
from petl_bench.data.files import FileFacts, cache_folder, in_threads
from petl_bench.data.lists import Listing
from petl_bench.errors import UserError
from petl_bench.types import Cache

logger = logging.getLogger("petl_bench")

CROP = 256 / 224
"""Short side before the centre crop, in units of the crop."""


def decoded(listing: Listing, facts: Sequence[FileFacts], resize: str, size: int, cache: Cache) -> Pixels:
    """Images (N, 3, height, width), mapped from a file of the cache that is filled at need.

    Images of one native size within size x size that are only to be stretched are kept in that size
    (petl_bench.data.resample enlarges them later, to the same bits); all others are resized by PIL, bicubic.

    Raises:
        UserError: an image cannot be decoded or is not the one that was hashed, or the cache has no room.
    """
    shape = {(fact.height, fact.width) for fact in facts}
    height, width = next(iter(shape)) if len(shape) == 1 else (size, size)
    native = resize == "stretch" and len(shape) == 1 and 0 < max(height, width) <= size
    if not native:
        height = width = size
    way = f"{height}x{width}" if native else f"{resize}-{size}"

    def pixels(image: Image.Image) -> bytes:
        square = image if native else resized(image, resize, size)
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1)).tobytes()

    return _mapped(listing, facts, way, (len(facts), 3, height, width), pixels, cache)


def native_sizes(listing: Listing, facts: Sequence[FileFacts], cache: Cache) -> Ragged:
    """Images in their native sizes, for random crops.

    Raises:
        UserError: as `decoded`.
    """
    heights = np.array([fact.height for fact in facts], np.int64)
    widths = np.array([fact.width for fact in facts], np.int64)
    total = int((heights * widths * 3).sum())
    flat = _mapped(listing, facts, "native", (total,), lambda image: image.tobytes(), cache)
    return Ragged(flat, heights, widths)


def resized(image: Image.Image, resize: str, size: int) -> Image.Image:
    """An RGB image as size x size: stretched, or its short side to 256/224 of that and the centre cut out.

    The crop's arithmetic is torchvision's (Resize, then CenterCrop), the filter PIL's bicubic.
    """
    if resize == "stretch":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    short = int(CROP * size)
    width, height = image.size
    wide, high = (
        (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    )
    image = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _mapped(
    listing: Listing,
    facts: Sequence[FileFacts],
    way: str,
    shape: tuple[int, ...],
    pixels: Callable[[Image.Image], bytes],
    cache: Cache,
) -> Pixels:
    """The cache file of these images, made by the first process that asks while the others wait."""
    folder = cache_folder(cache) / "decoded"
    content = hashlib.sha256("".join(fact.sha256 for fact in facts).encode()).hexdigest()
    path = folder / f"{content[:32]}-{way}-pillow{PIL.__version__.split('.')[0]}.npy"
    try:
        folder.mkdir(exist_ok=True)
        while True:
            try:
                images = np.load(path, mmap_mode="c")
                with suppress(OSError):  # a cache that others own can be read all the same
                    os.utime(path)  # the least recently used files make room first
                return images
            except FileNotFoundError:
                pass  # not there, or removed by another process since
            except (ValueError, EOFError):
                path.unlink(missing_ok=True)  # cut short by something else than this program
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _clean(folder, path.name)
                    _make_room(folder, int(np.prod(shape)), cache)
                    logger.info("decoding %d images of %s", len(listing), listing.source)
                    # Written, not mapped: a full disk is then an error and not a signal.
                    write_atomic(path, _npy(shape, _images(listing, facts, pixels)), mode=0o600)
    except OSError as error:
        raise UserError(
            f"data.cache={cache_folder(cache)}: cannot keep {_gigabytes(int(np.prod(shape)))} of decoded "
            f"images there: {error.strerror or error}; name another folder"
        ) from error


def _clean(folder: Path, name: str) -> None:
    """Remove what killed processes left: of this file, whose lock is held, and anything a day old."""
    yesterday = time.time() - 24 * 3600
    for left in folder.glob(".*.npy.*"):
        with suppress(FileNotFoundError):
            if left.name.startswith(f".{name}.") or left.stat().st_mtime < yesterday:
                left.unlink()


def _images(
    listing: Listing, facts: Sequence[FileFacts], pixels: Callable[[Image.Image], bytes]
) -> Iterator[bytes]:
    def one(item: tuple[str, FileFacts]) -> bytes:
        name, fact = item
        path = listing.folder / name
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != fact.sha256:
                raise UserError(f"{path}: has changed since the data were fingerprinted; start again")
            with Image.open(io.BytesIO(data)) as image:
                return pixels(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: cannot be decoded: {error}; see `petl-bench data verify`") from error

    return in_threads(one, zip(listing.names, facts, strict=True))


def _npy(shape: tuple[int, ...], images: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a .npy file of type uint8."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    yield from images


def _make_room(folder: Path, needed: int, cache: Cache) -> None:
    """Remove the least recently used files until `needed` bytes fit under the limit.

    Raises:
        UserError: they do not fit into an empty cache.
    """
    if needed > cache.limit:
        raise UserError(
            f"data.cache_gb={cache.limit / 1e9:g}: one set of decoded images takes {_gigabytes(needed)}; "
            "raise the limit"
        )
    held = []
    for path in folder.glob("*.npy"):
        with suppress(FileNotFoundError):
            held.append((path.stat().st_mtime, path.stat().st_size, path))
    held.sort()
    total = sum(size for _, size, _ in held)
    for _, size, path in held:
        if total + needed <= cache.limit:
            break
        logger.info("cache full: removing %s", path.name)
        path.unlink(missing_ok=True)
        total -= size


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
