"""Facts of image files (content hash, format, size), kept between calls while a file is unchanged.

A file counts as unchanged while its size and its modification time stay the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from petl_bench.atomic import write_atomic
from petl_bench.data.images import DEEP, LIMIT, traits
from petl_bench.errors import UserError
from petl_bench.files import flaw
from petl_bench.types import Cache

Advance = Callable[[int], None]
"""Callback of a progress display, called with the number of files processed since its last call."""

Notify = Callable[[str], None]
"""Callback for a message to the user, called with one sentence."""

Item = TypeVar("Item")
Result = TypeVar("Result")

MISSING = "missing"
"""Error of a file that does not exist."""

CHUNK = 256
"""Files between two calls of an Advance."""

THREADS = min(8, os.cpu_count() or 1)
FORMAT = 3
"""Version of the kept facts; raised when their meaning changes."""


@dataclass(frozen=True)
class FileFacts:
    """Facts of one file.

    Attributes:
        size: bytes.
        modified: modification time in nanoseconds.
        sha256: hash of the content; empty if it cannot be read.
        format: format as PIL names it: JPEG, PNG, ...
        width, height: size in pixels.
        quality: estimated JPEG quality from 1 to 100; 0 for other formats.
        decoded: whether the pixels were decoded, and not only the header.
        error: MISSING, or why the file is no readable image; empty for images.
        mode, orientation, transparent, low, high, white, negative: see petl_bench.data.images.Traits.
        frames: number of frames or pages, of which the first is used; 1 where the pixels were not decoded.
    """

    size: int
    modified: int
    sha256: str
    format: str = ""
    width: int = 0
    height: int = 0
    quality: int = 0
    decoded: bool = False
    error: str = ""
    mode: str = ""
    orientation: int = 1
    transparent: bool = False
    frames: int = 1
    low: float = 0.0
    high: float = 0.0
    white: float = 0.0
    negative: bool = False

    @property
    def shown_otherwise(self) -> bool:
        """Return whether petl_bench.data.images.as_shown gives other pixels than as_published."""
        return self.mode in DEEP or self.orientation != 1 or self.transparent

    @property
    def rule(self) -> int:
        """Return the first version of as_shown that gives the pixels of this image.

        It joins the fingerprints of images with `shown_otherwise`, so that a rule that is added changes only
        those of the images that it concerns. Version 2 knows WhiteIsZero and bits per sample.
        """
        return 2 if self.negative or (self.mode in DEEP and 1 < self.white < 65535) else 1

    def shape(self, shown: bool) -> tuple[int, int]:
        """Return height and width in pixels; with `shown`, those after turning by the EXIF orientation."""
        upright = (self.height, self.width)
        return upright[::-1] if shown and self.orientation >= 5 else upright

    @property
    def is_missing(self) -> bool:
        return self.error == MISSING


def ignore(_: int | str) -> None:
    """Do nothing; the default of Advance and Notify callbacks."""


def cache_path(cache: Cache) -> Path:
    """Return the directory of data derived from data files, which need not exist."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache.directory or f"{home}/petl-bench").expanduser()


def cache_folder(cache: Cache) -> Path:
    """Return the directory of data derived from data files; it is created if needed.

    Raises:
        UserError: it cannot be created.
    """
    folder = cache_path(cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data.cache={folder}: cannot be created: {error.strerror}; choose another folder"
        ) from error
    return folder


def file_facts(
    folder: Path, names: Sequence[str], cache: Cache, decode: bool = False, advance: Advance = ignore
) -> dict[str, FileFacts]:
    """Return facts of files by name. Files that are known and unchanged are not read again.

    Args:
        folder: folder that the names are relative to.
        names: names of files; files that do not exist have the error MISSING.
        cache: where facts are kept between calls.
        decode: also decode the pixels of files for which this was not done before.
        advance: called with the number of files processed since its last call.
    """
    index = (
        cache_folder(cache) / "files" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()}.json"
    )
    known = _read(index)
    facts, todo = {}, []
    for name in dict.fromkeys(names):
        found, stat = known.get(name), _stat(f"{folder}/{name}")
        if stat is None:
            facts[name] = FileFacts(0, 0, "", error=MISSING)
        elif found and stat == (found.size, found.modified) and (found.decoded or not decode):
            facts[name] = found
        else:
            todo.append(name)
    advance(len(names) - len(todo))
    found_now = in_threads(lambda name: read_facts(folder / name, decode), todo, advance)
    facts |= zip(todo, found_now, strict=True)
    if todo:
        _write(index, known | facts)
    return facts


def read_facts(path: Path, decode: bool) -> FileFacts:
    """Read one file and return its facts.

    Args:
        decode: also decode the pixels.
    """
    stat = _stat(path)
    if stat is None:
        return FileFacts(0, 0, "", error=MISSING)
    try:
        if problem := flaw(path, LIMIT):
            return FileFacts(*stat, "", decoded=True, error=problem)
        data = path.read_bytes()
    except OSError as error:
        return FileFacts(*stat, "", error=f"cannot be read: {error.strerror}")
    return _facts_of(data, FileFacts(*stat, hashlib.sha256(data).hexdigest()), decode)


def _facts_of(data: bytes, known: FileFacts, decode: bool) -> FileFacts:
    """Return the facts of a file's content.

    Args:
        known: the facts that do not depend on its being an image.
        decode: also decode the pixels.
    """
    if not data:
        return replace(known, decoded=True, error="is an empty file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            facts = replace(
                known,
                format=image.format or "",
                width=image.width,
                height=image.height,
                quality=_quality(image),
                decoded=decode,
                **vars(traits(image, data)),
            )
            if decode:
                image.load()
                facts = replace(facts, frames=getattr(image, "n_frames", 1))
            return facts
    except UnidentifiedImageError:
        return replace(known, decoded=True, error="is no image that can be recognized")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return replace(known, decoded=True, error=f"cannot be decoded: {error}")


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], advance: Advance = ignore
) -> Iterator[Result]:
    """Yield the results of `work` in the order of the items.

    Threads suffice because PIL, hashing and reading release the interpreter lock.
    """
    rest = iter(items)
    with ThreadPoolExecutor(THREADS) as threads:
        while chunk := list(islice(rest, CHUNK)):
            yield from threads.map(work, chunk)
            advance(len(chunk))


def _stat(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _read(index: Path) -> dict[str, FileFacts]:
    """Return the facts kept by earlier calls; a damaged or foreign file counts as empty."""
    try:
        content = {} if flaw(index, sys.maxsize) else json.loads(index.read_text())
        if content["format"] != FORMAT:
            return {}
        return {name: FileFacts(*values) for name, values in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _write(index: Path, facts: dict[str, FileFacts]) -> None:
    """Keep facts for later calls; if they cannot be written, later calls read the files again."""
    kept = {name: list(vars(fact).values()) for name, fact in facts.items() if not fact.is_missing}
    content = json.dumps({"format": FORMAT, "files": kept}, separators=(",", ":")).encode()
    with suppress(OSError):
        index.parent.mkdir(exist_ok=True)
        write_atomic(index, content)


_LUMINANCE = np.fromstring(
    "16 11 12 14 12 10 16 14 13 14 18 17 16 19 24 40 26 24 22 22 24 49 35 37 29 40 58 51 61 60 57 51 "
    "56 55 64 72 92 78 64 68 87 69 55 56 80 109 81 87 95 98 103 104 103 "
    "62 77 113 121 112 100 120 92 101 103 99",
    dtype=np.int64,
    sep=" ",
)
"""Luminance table in zigzag order, which libjpeg scales by the quality. Source: ITU-T T.81, Annex K.1."""


@cache
def _tables() -> np.ndarray:
    """Return libjpeg's luminance tables (100, 64) at the qualities from 1 to 100."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_LUMINANCE[None] * percent[:, None] + 50) // 100, 1, 255)


def _quality(image: Image.Image) -> int:
    """Return the quality whose luminance table is nearest to the image's; 0 for an image without a table.

    The tables are compared with their entries sorted, since versions of PIL differ in the order of entries.
    """
    tables = getattr(image, "quantization", None)
    if not tables or len(tables.get(0, [])) != 64:
        return 0
    distance = np.abs(np.sort(_tables(), axis=1) - np.sort(np.array(tables[0]))[None]).sum(axis=1)
    return int(distance.argmin()) + 1
