"""From a circulated archive to a root folder of known data folders, each moved into place whole."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from petl_bench.data.archive import Notify, unpack
from petl_bench.data.layouts import VTAB_LISTS
from petl_bench.errors import UserError

STAGING = ".petl-bench-prepare"
LOCK = ".petl-bench-prepare.lock"

Folders = Mapping[str, Sequence[str]]
"""Canonical folder below the root -> the other names it goes by; "a/b" is a folder inside a folder."""


def prepare(source: Path, root: Path, folders: Folders, report: Notify) -> list[str]:
    """Unpack an archive or a folder and move each known folder in it to `root/<canonical>`.

    Known folders are found below any others, whatever their case. What is in the root already stays as it
    is. Everything happens in `root/.petl-bench-prepare` first; a killed prepare leaves that folder, and the
    next one removes it and starts anew. A second prepare on the same root waits for the first.

    Returns:
        The canonical names of the folders placed.

    Raises:
        UserError: the archive is refused (see `unpack`), holds no known folder or one twice, or the disk
            is full.
        OSError: the disk.
    """
    staging = (root / STAGING).resolve()
    if staging.is_relative_to(source.resolve()) or source.resolve().is_relative_to(staging):
        raise UserError(f"{source}: it and the root {root} overlap; choose a root outside of it")
    with exclusive(root, report) as staging:
        return [] if complete(root, folders, report) else place(source, staging, root, folders, report)


@contextmanager
def exclusive(root: Path, report: Notify) -> Iterator[Path]:
    """Give the path of a new staging folder in the root to one process at a time; removed at the end.

    Raises:
        UserError: the disk was full.
    """
    from filelock import FileLock, Timeout  # imports asyncio: only for those who prepare

    root.mkdir(parents=True, exist_ok=True)
    lock, staging = FileLock(root / LOCK), root / STAGING
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        report(f"{root}: another prepare is at work here; waiting for it")
        held = lock.acquire()
    with held:
        if staging.exists():
            report(f"{staging}: removing what an interrupted prepare left")
            shutil.rmtree(staging)
        try:
            yield staging
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{root}: the disk is full; free some space and prepare again (half-unpacked files are "
                "removed, folders already in place are whole)"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def complete(root: Path, folders: Folders, report: Notify) -> bool:
    """Whether every canonical folder is in the root already."""
    if not all(os.path.lexists(root / canonical) for canonical in folders):
        return False
    report(f"{root}: holds {', '.join(folders)} already; nothing to do")
    return True


def place(source: Path, staging: Path, root: Path, folders: Folders, report: Notify) -> list[str]:
    """The work of `prepare`, for a caller inside `exclusive`."""
    # A folder keeps its own name in the staging folder: it may be the one that is known.
    unpack(source, staging / source.resolve().name if source.is_dir() else staging, report)
    found = _find(staging, folders)
    if not found:
        raise UserError(
            f"{source}: holds none of the folders {', '.join(folders)}, nor one by another known name; "
            f"its top folders: {', '.join(_top_folders(staging)) or 'none'}"
        )
    moves = {}
    for canonical, places in found.items():
        if os.path.lexists(root / canonical):
            report(f"{root / canonical}: is there already, left alone")
            continue
        if len(places) > 1:
            named = " and ".join(path.relative_to(staging).as_posix() for path in places)
            raise UserError(
                f"{source}: {canonical} is there more than once, as {named}; give an archive with one"
            )
        moves[canonical] = places[0]
    for canonical, path in moves.items():
        mend_lists(path, canonical, report)
    for canonical, path in moves.items():
        (root / canonical).parent.mkdir(parents=True, exist_ok=True)
        path.rename(root / canonical)
        report(f"{root / canonical}: placed")
    return list(moves)


def _find(staging: Path, folders: Folders) -> dict[str, list[Path]]:
    """Where the known folders are. The longest known name decides, and of nested folders the innermost."""
    known = {
        tuple(name.lower().split("/")): canonical
        for canonical, others in folders.items()
        for name in (canonical, *others)
    }
    matches: dict[Path, str] = {}
    for directory, below, _ in os.walk(staging):
        below.sort()
        parts = tuple(part.lower() for part in Path(directory).relative_to(staging).parts)
        endings = (parts[start:] for start in range(len(parts)))
        canonical = next((known[ending] for ending in endings if ending in known), None)
        if canonical is not None:
            matches[Path(directory)] = canonical
    enclosing = {parent for path in matches for parent in path.parents}
    found: dict[str, list[Path]] = {}
    for path, canonical in matches.items():
        if path not in enclosing:
            found.setdefault(canonical, []).append(path)
    return found


def _top_folders(staging: Path) -> list[str]:
    """The first folders of the tree, below those that hold nothing but one folder; at most ten."""
    top = staging
    while len(inside := list(top.iterdir())) == 1 and inside[0].is_dir() and any(inside[0].iterdir()):
        top = inside[0]
    names = sorted(path.relative_to(staging).as_posix() for path in inside if path.is_dir())
    return names[:10] or ([top.relative_to(staging).as_posix()] if top != staging else [])


def mend_lists(folder: Path, canonical: str, report: Notify) -> None:
    """Rewrite a VTAB task's lists to the exact lines `images/<split>/<file> <label>`, where that is certain.

    A list is rewritten when every one of its lines then names an image that exists, and left alone else:
    `.jpg` for `.png` and the other way round, other leading folders, `./`, and CRLF line ends.
    """
    images = {
        f"images/{split.name}/{name}" for split in folder.glob("images/*/") for name in os.listdir(split)
    }
    for path in (folder / name for name in VTAB_LISTS.values()):
        if not images or not path.is_file():
            continue
        old = path.read_bytes().decode(errors="replace").split("\n")
        while old and not old[-1].strip():
            old.pop()
        new = [_exact(line, folder, images) for line in old]
        lines = [line for line in new if line is not None]
        if len(lines) < len(old) or lines == old:
            continue
        path.write_text("\n".join(lines) + "\n", newline="\n")
        changed = next(i for i, line in enumerate(lines) if line != old[i])
        report(f"{canonical}/{path.name}: lines rewritten, as {old[changed]!r} to {lines[changed]!r}")


def _exact(line: str, folder: Path, images: set[str]) -> str | None:
    """The line in the exact form, or None where that cannot be told."""
    match = re.fullmatch(r"(\S.*?)\s+(\d+)\s*", line)
    if match is None:
        return None
    path, label = posixpath.normpath(match[1]), int(match[2])
    if path not in images:
        if (folder / path).exists():
            return None  # it names something, though not an image of this layout
        stem, suffix = posixpath.splitext("/".join(["images", *path.split("/")[-2:]]))
        swapped = {".jpg": ".png", ".png": ".jpg"}.get(suffix, suffix)
        path = next((stem + s for s in (suffix, swapped) if stem + s in images), "")
    return f"{path} {label}" if path else None
