"""Facts of image files (content hash, format, size), kept between calls by size and modification time."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from petl_bench.atomic import write_atomic
from petl_bench.errors import UserError
from petl_bench.types import Cache

Advance = Callable[[int], None]
"""Told how many files were dealt with since the last call."""

Item = TypeVar("Item")
Result = TypeVar("Result")

MISSING = "missing"
CHUNK = 256
THREADS = min(8, os.cpu_count() or 1)
FORMAT = 1  # of the kept facts; raised when their meaning changes


@dataclass(frozen=True)
class FileFacts:
    """One file. `error` is empty for an image whose header, or with `decoded` whose pixels, could be read."""

    size: int
    modified: int  # nanoseconds
    sha256: str
    format: str = ""  # as PIL names it: JPEG, PNG, ...
    width: int = 0
    height: int = 0
    quality: int = 0  # estimated JPEG quality, 1 to 100; 0 for other formats
    decoded: bool = False
    error: str = ""

    @property
    def is_missing(self) -> bool:
        return self.error == MISSING


def nothing(_: int | str) -> None:
    """Nothing is shown or said."""


def cache_folder(cache: Cache) -> Path:
    """The directory of what is derived from data files, made if needed.

    Raises:
        UserError: it cannot be made.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(cache.directory or f"{home}/petl-bench").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data.cache={folder}: cannot be made: {error.strerror}; name another folder"
        ) from error
    return folder


def file_facts(
    folder: Path, names: Sequence[str], cache: Cache, decode: bool = False, report: Advance = nothing
) -> dict[str, FileFacts]:
    """Facts of files under `folder` by name; a file that is not there has the error MISSING.

    Args:
        decode: also decode the pixels of files of which that is not known yet. Without it only bytes are
            read, and of a file known before nothing at all.
        report: told of progress.
    """
    index = (
        cache_folder(cache) / "files" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()}.json"
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
    report(len(names) - len(todo))
    for name, found in zip(todo, in_threads(lambda n: look(folder / n, decode), todo, report), strict=True):
        facts[name] = found
    if todo:
        _write(index, known | facts)
    return facts


def look(path: Path, decode: bool) -> FileFacts:
    """Read one file and say what it is."""
    stat = _stat(path)
    if stat is None:
        return FileFacts(0, 0, "", error=MISSING)
    try:
        data = path.read_bytes()
    except OSError as error:
        return FileFacts(*stat, "", error=f"cannot be read: {error.strerror}")
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return FileFacts(*stat, sha256, decoded=True, error="is an empty file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            quality = _quality(image)
            facts = FileFacts(*stat, sha256, image.format or "", image.width, image.height, quality, decode)
            if decode:
                image.load()
            return facts
    except UnidentifiedImageError:
        return FileFacts(*stat, sha256, decoded=True, error="is no image that can be recognized")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return FileFacts(*stat, sha256, decoded=True, error=f"cannot be decoded: {error}")


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], report: Advance = nothing
) -> Iterator[Result]:
    """Results in order; PIL, hashing and reading let go of the interpreter, so threads are enough."""
    rest = iter(items)
    with ThreadPoolExecutor(THREADS) as threads:
        while chunk := list(islice(rest, CHUNK)):
            yield from threads.map(work, chunk)
            report(len(chunk))


def _stat(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _read(index: Path) -> dict[str, FileFacts]:
    """What is known from before; a damaged or foreign file is as good as none."""
    try:
        content = json.loads(index.read_text())
        if content["format"] != FORMAT:
            return {}
        return {name: FileFacts(*values) for name, values in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(index: Path, facts: dict[str, FileFacts]) -> None:
    """Keep what was found out; on a full disk or in a read-only folder the next call finds it out again."""
    kept = {name: list(vars(fact).values()) for name, fact in facts.items() if not fact.is_missing}
    content = json.dumps({"format": FORMAT, "files": kept}, separators=(",", ":")).encode()
    with suppress(OSError):
        index.parent.mkdir(exist_ok=True)
        write_atomic(index, content, mode=0o600)


# Annex K.1 of ITU-T T.81, luminance, in zigzag order: what libjpeg scales by its quality setting.
_LUMINANCE = np.fromstring(
    "16 11 12 14 12 10 16 14 13 14 18 17 16 19 24 40 26 24 22 22 24 49 35 37 29 40 58 51 61 60 57 51 "
    "56 55 64 72 92 78 64 68 87 69 55 56 80 109 81 87 95 98 103 104 103 "
    "62 77 113 121 112 100 120 92 101 103 99",
    dtype=np.int64,
    sep=" ",
)


@cache
def _tables() -> np.ndarray:
    """Libjpeg's luminance table at each quality from 1 to 100: (100, 64)."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_LUMINANCE[None] * percent[:, None] + 50) // 100, 1, 255)


def _quality(image: Image.Image) -> int:
    """The quality setting whose luminance table is nearest to the file's; 0 where there is none.

    Compared as a sorted set of numbers, since readers differ in the order they give a table in.
    """
    tables = getattr(image, "quantization", None)
    if not tables or len(tables.get(0, [])) != 64:
        return 0
    distance = np.abs(np.sort(_tables(), axis=1) - np.sort(np.array(tables[0]))[None]).sum(axis=1)
    return int(distance.argmin()) + 1
