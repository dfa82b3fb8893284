"""Preparation of a data folder: unpack a circulated archive and move its known folders into place."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from petl_bench.data.archive import unpack
from petl_bench.data.file_facts import Notify
from petl_bench.data.layouts import VTAB_LISTS
from petl_bench.errors import UserError

STAGING = ".petl-bench-prepare"
LOCK = ".petl-bench-prepare.lock"

Folders = Mapping[str, Sequence[str]]
"""Other names of each known folder, by its canonical path below the root, for example "a/b"."""


def prepare(source: Path, root: Path, folders: Folders, notify: Notify) -> list[str]:
    """Unpack an archive or a folder and move each known folder in it to `root/CANONICAL`.

    Known folders are found at any depth and in any case. Folders that exist in the root are left unchanged.
    The archive is unpacked into `root/.petl-bench-prepare` first; a killed call leaves that folder, and the
    next call removes it and starts again. A second call for the same root waits for the first.

    Args:
        source: the archive, or a folder of archives or of files.
        notify: called with messages for the user.

    Returns:
        The canonical names of the folders that were placed.

    Raises:
        UserError: the archive is refused (see `unpack`), holds no known folder or one twice, or the disk
            is full.
        OSError: an error of the disk.
    """
    # Path.resolve() fails for links in a circle, which `unpack` refuses in words.
    inside, given = Path(os.path.realpath(root / STAGING)), Path(os.path.realpath(source))
    if inside.is_relative_to(given) or given.is_relative_to(inside):
        raise UserError(f"{source}: overlaps with the root {root}; choose a root outside of it")
    with exclusive(root, notify) as staging:
        return [] if complete(root, folders, notify) else place(source, staging, root, folders, notify)


@contextmanager
def exclusive(root: Path, notify: Notify) -> Iterator[Path]:
    """Yield the path of a staging folder in the root to one process at a time, and remove it at the end.

    Raises:
        UserError: the disk is full.
    """
    from filelock import FileLock, Timeout  # imports asyncio, so only when needed

    root.mkdir(parents=True, exist_ok=True)
    lock, staging = FileLock(root / LOCK), root / STAGING
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        notify(f"{root}: waiting for another prepare command that works here")
        held = lock.acquire()
    with held:
        if staging.exists():
            notify(f"{staging}: removing files of an interrupted prepare command")
            _remove(staging)
        try:
            yield staging
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{root}: the disk is full; free some space and prepare again (partly unpacked files are "
                "removed, folders already in place are complete)"
            ) from error
        finally:
            with suppress(OSError):
                _remove(staging)


def _remove(folder: Path) -> None:
    """Remove a folder, however deep. Folders move to its top before they are emptied, without recursion."""
    number, token = 0, secrets.token_hex(4)
    while folder.exists() and (entries := list(os.scandir(folder))):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    number += 1
                    os.rename(inner.path, folder / f".{token}-{number}")
                else:
                    os.unlink(inner.path)
            os.rmdir(entry.path)
    with suppress(FileNotFoundError):
        folder.rmdir()


def complete(root: Path, folders: Folders, notify: Notify) -> bool:
    """Return whether every canonical folder exists in the root."""
    if not all(os.path.lexists(root / canonical) for canonical in folders):
        return False
    notify(f"{root}: already holds {', '.join(folders)}; nothing to do")
    return True


def place(source: Path, staging: Path, root: Path, folders: Folders, notify: Notify) -> list[str]:
    """Do the work of `prepare` inside `exclusive`."""
    # A folder keeps its own name in the staging folder, because its name may be a known one.
    unpack(source, staging / source.resolve().name if source.is_dir() else staging, notify)
    found = _find(staging, folders)
    if not found:
        raise UserError(
            f"{source}: holds none of the folders {', '.join(folders)}, under any known name; "
            f"its top-level folders: {', '.join(_top_folders(staging)) or 'none'}"
        )
    moves = {}
    for canonical, places in found.items():
        if os.path.lexists(root / canonical):
            notify(f"{root / canonical}: exists already, left alone")
            continue
        if len(places) > 1:
            named = " and ".join(path.relative_to(staging).as_posix() for path in places)
            raise UserError(
                f"{source}: holds {canonical} more than once, as {named}; give an archive with one of them"
            )
        moves[canonical] = places[0]
    for canonical, path in moves.items():
        mend_lists(path, canonical, notify)
    for canonical, path in moves.items():
        (root / canonical).parent.mkdir(parents=True, exist_ok=True)
        path.rename(root / canonical)
        notify(f"{root / canonical}: placed")
    return list(moves)


def _find(staging: Path, folders: Folders) -> dict[str, list[Path]]:
    """Return the places of the known folders by canonical name.

    The longest known name decides; of nested matches, the innermost is used.
    """
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
    """Return at most ten top-level folders, below folders that hold nothing but one folder."""
    top = staging
    while len(inside := list(top.iterdir())) == 1 and inside[0].is_dir() and any(inside[0].iterdir()):
        top = inside[0]
    names = sorted(path.relative_to(staging).as_posix() for path in inside if path.is_dir())
    return names[:10] or ([top.relative_to(staging).as_posix()] if top != staging else [])


def mend_lists(folder: Path, canonical: str, notify: Notify) -> None:
    """Rewrite the lists of a VTAB task to lines `images/SPLIT/FILE LABEL`, if this is unambiguous.

    Corrected are `.jpg` for `.png` and the reverse, other leading folders, `./`, and CRLF line ends. A list
    is rewritten only if each of its lines then names an image that exists.

    Args:
        folder: folder of the task.
        canonical: its canonical name, for messages.
        notify: called with a message for each rewritten list.
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
        notify(
            f"{canonical}/{path.name}: lines rewritten, for example {old[changed]!r} to {lines[changed]!r}"
        )


def _exact(line: str, folder: Path, images: set[str]) -> str | None:
    """Return a line in the exact form; None if it cannot be determined."""
    match = re.fullmatch(r"(\S.*?)\s+(\d+)\s*", line)
    if match is None:
        return None
    path, label = posixpath.normpath(match[1]), int(match[2])
    if path not in images:
        if (folder / path).exists():
            return None  # it names a file that is not an image of this layout
        stem, suffix = posixpath.splitext("/".join(["images", *path.split("/")[-2:]]))
        swapped = {".jpg": ".png", ".png": ".jpg"}.get(suffix, suffix)
        path = next((stem + s for s in (suffix, swapped) if stem + s in images), "")
    return f"{path} {label}" if path else None
