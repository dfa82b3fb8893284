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

from petl_bench.atomic import staged
from petl_bench.data.base import Pixels, Ragged
from petl_bench.data.file_facts import FileFacts, cache_folder, in_threads
from petl_bench.data.images import LIMIT, as_published, as_shown
from petl_bench.data.lists import Listing
from petl_bench.errors import UserError
from petl_bench.files import MB, flaw, read_bytes
from petl_bench.types import Cache

logger = logging.getLogger("petl_bench")

CROP = 256 / 224
"""Short side before the center crop, as a multiple of the crop's side."""

LARGEST = 2**26
"""Pixels up to which an image is resized as a whole; a strip of 1 x 60,000 would else need 12 GB."""


def decoded(
    listing: Listing, facts: Sequence[FileFacts], resize: str, size: int, cache: Cache, shown: bool = False
) -> Pixels:
    """Return images (N, 3, height, width), uint8, mapped from a file of the cache; it is made if needed.

    Images that all have one native size of at most size x size and are to be stretched are kept in that size;
    petl_bench.data.resample enlarges them later, with bit-identical results. All others are resized here, by
    PIL's bicubic filter.

    Args:
        listing: the images.
        facts: facts of their files, in the same order.
        resize: `stretch` or `crop`; see `resized`.
        size: side of the images in pixels, unless they are kept in their native size.
        shown: read images by `petl_bench.data.images.as_shown`, not `as_published`.

    Raises:
        UserError: an image cannot be decoded or has changed since it was hashed, or the cache is too small.
    """
    shape = {fact.shape(shown) for fact in facts}
    height, width = next(iter(shape)) if len(shape) == 1 else (size, size)
    native = resize == "stretch" and len(shape) == 1 and 0 < max(height, width) <= size
    if not native:
        height = width = size
    way = f"{height}x{width}" if native else f"{resize}-{size}"

    def pixels(image: Image.Image) -> bytes:
        square = image if native else resized(image, resize, size)
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1)).tobytes()

    return _mapped(listing, facts, way, (len(facts), 3, height, width), pixels, cache, shown)


def native_sizes(listing: Listing, facts: Sequence[FileFacts], cache: Cache, shown: bool = False) -> Ragged:
    """Return images in their native sizes, for random crops; see `decoded`.

    Raises:
        UserError: an image cannot be decoded or has changed since it was hashed, or the cache is too small.
    """
    heights, widths = np.array([fact.shape(shown) for fact in facts], np.int64).reshape(-1, 2).T
    total = int((heights * widths * 3).sum())
    flat = _mapped(listing, facts, "native", (total,), lambda image: image.tobytes(), cache, shown)
    return Ragged(flat, heights, widths)


def resized(image: Image.Image, resize: str, size: int) -> Image.Image:
    """Return an RGB image in size x size pixels, by PIL's bicubic filter.

    Args:
        resize: `stretch` resizes both sides to `size`; anything else resizes the short side to 256/224 of
            `size` and crops the center, with the rounding of torchvision's Resize and CenterCrop. Of thin
            strips, whose enlarged image would be larger than LARGEST, only the center is resized.
    """
    width, height = image.size
    if resize == "stretch":
        if size * height > LARGEST:  # Pillow resizes the width first
            image = image.resize((width, size), Image.Resampling.BICUBIC)
        return image.resize((size, size), Image.Resampling.BICUBIC)
    short = int(CROP * size)
    wide, high = (
        (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    )
    left, top = round((wide - size) / 2), round((high - size) / 2)
    if wide * high > LARGEST:
        across, down = width / wide, height / high
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return image.resize((size, size), Image.Resampling.BICUBIC, box)
    image = image.resize((wide, high), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def _mapped(
    listing: Listing,
    facts: Sequence[FileFacts],
    way: str,
    shape: tuple[int, ...],
    pixels: Callable[[Image.Image], bytes],
    cache: Cache,
    shown: bool,
) -> Pixels:
    """Return the content of the cache file of some images.

    The first process that needs the file makes it, while others wait.

    Args:
        way: how images are resized, for the name of the file.
        shape: shape of the array.
        pixels: returns the bytes of one image in that array.
        shown: see `decoded`.
    """
    folder = cache_folder(cache) / "decoded"
    content = hashlib.sha256("".join(fact.sha256 for fact in facts).encode()).hexdigest()
    if rules := [fact.rule for fact in facts if shown and fact.shown_otherwise]:
        way += f"-shown{max(rules)}"
    path = folder / f"{content[:32]}-{way}-pillow{PIL.__version__.split('.')[0]}.npy"
    try:
        folder.mkdir(exist_ok=True)
        while (images := _kept(path, shape)) is None:
            with FileLock(f"{path}.lock"):
                if _kept(path, shape) is None:
                    path.unlink(missing_ok=True)
                    _clean(folder, path.name)
                    _make_room(folder, int(np.prod(shape)), cache)
                    logger.info("decoding %d images of %s", len(listing), listing.source)
                    _make(path, _npy(shape, _images(listing, facts, pixels, shown)))
        return images
    except OSError as error:
        raise UserError(
            f"data.cache={cache_folder(cache)}: cannot store {_gigabytes(int(np.prod(shape)))} of decoded "
            f"images there: {error.strerror or error}; choose another folder"
        ) from error


def _digest_of(path: Path) -> Path:
    """Return the file beside a cache file that holds its SHA-256; its time is that of the last use."""
    return path.with_name(f"{path.name}.sha256")


_believed: set[tuple[Path, int, int, int, int]] = set()
"""Cache files of which this process has checked the digest, with inode, size and times of that moment."""


def _kept(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Return the content of a cache file; None if there is none, or if it is not what was written.

    The digest is computed once in a process, and again if the file has changed.
    """
    try:
        status = path.stat()
        images: Pixels = npy.open_memmap(path, mode="c")
        state = (path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if images.shape != shape or images.dtype != np.uint8:
            return None
        if state not in _believed:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if flaw(_digest_of(path), MB) or _digest_of(path).read_bytes() != found.encode():
                return None
            _believed.add(state)
    except (FileNotFoundError, ValueError, EOFError):
        return None  # it does not exist, another process has removed it, or it is no such array
    with suppress(OSError):  # a cache owned by another user can still be read
        os.utime(_digest_of(path))  # the least recently used files are removed first
    return images


def _make(path: Path, pieces: Iterator[bytes]) -> None:
    """Write a cache file and its digest; the file itself appears last."""
    sha = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in pieces:
            sha.update(piece)
            yield piece

    def digest() -> Iterator[bytes]:  # runs when the file is written
        yield sha.hexdigest().encode()

    # Written, not mapped: a full disk is then an error and not a signal.
    with staged({path: hashed(), _digest_of(path): digest()}) as place:
        place(_digest_of(path))
        place(path)


def _clean(folder: Path, name: str) -> None:
    """Remove temporary files of killed processes: of this file, whose lock is held, and files a day old."""
    yesterday = time.time() - 24 * 3600
    for left in folder.glob(".*.npy.*"):
        with suppress(FileNotFoundError):
            if left.name.startswith(f".{name}.") or left.stat().st_mtime < yesterday:
                left.unlink()


def _images(
    listing: Listing, facts: Sequence[FileFacts], pixels: Callable[[Image.Image], bytes], shown: bool
) -> Iterator[bytes]:
    """Yield the bytes of each image; see `_mapped`."""
    read = as_shown if shown else as_published

    def one(item: tuple[str, FileFacts]) -> bytes:
        name, fact = item
        path = listing.folder / name
        data = read_bytes(path, LIMIT)
        if hashlib.sha256(data).hexdigest() != fact.sha256:
            raise UserError(f"{path}: has changed since the data were fingerprinted; start the command again")
        try:
            return pixels(read(data))
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
            used = _digest_of(path) if _digest_of(path).exists() else path
            held.append((used.stat().st_mtime, path.stat().st_size, path))
    held.sort()
    total = sum(size for _, size, _ in held)
    for _, size, path in held:
        if total + needed <= cache.limit:
            break
        logger.info("cache full: removing %s", path.name)
        path.unlink(missing_ok=True)
        _digest_of(path).unlink(missing_ok=True)
        total -= size


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
