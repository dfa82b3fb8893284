"""Cache of decoded images: memory-mapped files, each made once for all runs and processes that need it."""

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
from petl_bench.data.file_facts import FileFacts, cache_folder, in_threads
from petl_bench.data.lists import Listing
from petl_bench.errors import UserError
from petl_bench.types import Cache

logger = logging.getLogger("petl_bench")

CROP = 256 / 224
"""Short side before the center crop, as a multiple of the crop's side."""


def decoded(listing: Listing, facts: Sequence[FileFacts], resize: str, size: int, cache: Cache) -> Pixels:
    """Return images (N, 3, height, width), uint8, mapped from a file of the cache; it is made if needed.

    Images that all have one native size of at most size x size and are to be stretched are kept in that size;
    petl_bench.data.resample enlarges them later, with bit-identical results. All others are resized here, by
    PIL's bicubic filter.

    Args:
        listing: the images.
        facts: facts of their files, in the same order.
        resize: `stretch` or `crop`; see `resized`.
        size: side of the images in pixels, unless they are kept in their native size.

    Raises:
        UserError: an image cannot be decoded or has changed since it was hashed, or the cache is too small.
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
    """Return images in their native sizes, for random crops; see `decoded`.

    Raises:
        UserError: an image cannot be decoded or has changed since it was hashed, or the cache is too small.
    """
    heights = np.array([fact.height for fact in facts], np.int64)
    widths = np.array([fact.width for fact in facts], np.int64)
    total = int((heights * widths * 3).sum())
    flat = _mapped(listing, facts, "native", (total,), lambda image: image.tobytes(), cache)
    return Ragged(flat, heights, widths)


def resized(image: Image.Image, resize: str, size: int) -> Image.Image:
    """Return an RGB image in size x size pixels, by PIL's bicubic filter.

    Args:
        resize: `stretch` resizes both sides to `size`; anything else resizes the short side to 256/224 of
            `size` and crops the center, with the rounding of torchvision's Resize and CenterCrop.
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
    """Return the content of the cache file of some images.

    The first process that needs the file makes it, while others wait.

    Args:
        way: how images are resized, for the name of the file.
        shape: shape of the array.
        pixels: returns the bytes of one image in that array.
    """
    folder = cache_folder(cache) / "decoded"
    content = hashlib.sha256("".join(fact.sha256 for fact in facts).encode()).hexdigest()
    path = folder / f"{content[:32]}-{way}-pillow{PIL.__version__.split('.')[0]}.npy"
    try:
        folder.mkdir(exist_ok=True)
        while True:
            try:
                images = np.load(path, mmap_mode="c")
                with suppress(OSError):  # a cache owned by another user can still be read
                    os.utime(path)  # the least recently used files are removed first
                return images
            except FileNotFoundError:
                pass  # it does not exist, or another process has removed it
            except (ValueError, EOFError):
                path.unlink(missing_ok=True)  # truncated, though not by this program
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _clean(folder, path.name)
                    _make_room(folder, int(np.prod(shape)), cache)
                    logger.info("decoding %d images of %s", len(listing), listing.source)
                    # Written, not mapped: a full disk is then an error and not a signal.
                    write_atomic(path, _npy(shape, _images(listing, facts, pixels)))
    except OSError as error:
        raise UserError(
            f"data.cache={cache_folder(cache)}: cannot store {_gigabytes(int(np.prod(shape)))} of decoded "
            f"images there: {error.strerror or error}; choose another folder"
        ) from error


def _clean(folder: Path, name: str) -> None:
    """Remove temporary files of killed processes: of this file, whose lock is held, and files a day old."""
    yesterday = time.time() - 24 * 3600
    for left in folder.glob(".*.npy.*"):
        with suppress(FileNotFoundError):
            if left.name.startswith(f".{name}.") or left.stat().st_mtime < yesterday:
                left.unlink()


def _images(
    listing: Listing, facts: Sequence[FileFacts], pixels: Callable[[Image.Image], bytes]
) -> Iterator[bytes]:
    """Yield the bytes of each image; see `_mapped`."""

    def one(item: tuple[str, FileFacts]) -> bytes:
        name, fact = item
        path = listing.folder / name
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != fact.sha256:
                raise UserError(
                    f"{path}: has changed since the data were fingerprinted; start the command again"
                )
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
    """Remove the least recently used files until `needed` bytes fit into the cache.

    Raises:
        UserError: they do not even fit into an empty cache.
    """
    if needed > cache.limit:
        raise UserError(
            f"data.cache_gb={cache.limit / 1e9:g}: one set of decoded images needs {_gigabytes(needed)}; "
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
