"""Members of untrusted archives, and the checks that each must pass before it is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from petl_bench.data.tree import is_litter
from petl_bench.errors import UserError

DEEPEST, LONGEST_NAME, LONGEST_PATH = 64, 255, 1024
"""Folders in a member's name, and bytes of one part and of the whole: what every file system can hold."""
SHOWN = 120
"""Characters of a member's name in messages."""


@dataclass(frozen=True)
class Member:
    """One file or folder of an archive.

    Attributes:
        flaw: reason to refuse it; empty: none.
        folder: whether it is a folder.
        size: bytes when unpacked.
        open: returns its content as a stream.
    """

    name: str
    flaw: str
    folder: bool
    size: int
    open: Callable[[], IO[bytes]]


def kind_flaw(mode: int) -> str:
    """Return the flaw of a file mode; empty for plain files and folders."""
    if stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR):
        return ""
    return "is a symbolic link" if stat.S_ISLNK(mode) else "is a device, a pipe or another special file"


def _name_flaw(name: str) -> str:
    """Return the flaw of a member's name; empty if it has none."""
    parts, encoded = name.split("/"), os.fsencode(name)
    flaws = {
        "has an absolute name": name.startswith("/"),
        "has a backslash in its name": "\\" in name,
        "has a null byte in its name": "\0" in name,
        "has '..' in its name": ".." in parts,
        "has a drive letter in its name": any(part[1:2] == ":" for part in parts),
        f"lies {len(parts) - 1:,} folders deep, more than {DEEPEST}": len(parts) - 1 > DEEPEST,
        f"has a name longer than {LONGEST_PATH} bytes, or than {LONGEST_NAME} in one part": (
            len(encoded) > LONGEST_PATH or max(map(len, encoded.split(b"/"))) > LONGEST_NAME
        ),
    }
    return next((flaw for flaw, present in flaws.items() if present), "")


def checked(members: list[Member], where: str) -> tuple[dict[str, Member], set[str]]:
    """Return the plain files by normalized name, and the names of all folders.

    Raises:
        UserError: a member is refused.
    """
    files: dict[str, Member] = {}
    folders: set[str] = set()
    for member in members:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        problem = _name_flaw(member.name) or member.flaw
        if not problem and name in files and not member.folder:
            problem = "occurs twice"
        if not problem and not name and not member.folder:
            problem = "has no name"
        if problem:
            raise _refused(member.name, problem, where)
        if any(map(is_litter, parts)):
            continue
        if not member.folder:
            files[name] = member
            name = name.rpartition("/")[0]
        while name and name not in folders:
            folders.add(name)
            name = name.rpartition("/")[0]
    for name in sorted(folders & files.keys()):
        raise _refused(name, "is both a file and a folder", where)
    return files, folders


def _refused(name: str, problem: str, where: str) -> UserError:
    shown = name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
    return UserError(
        f"{where}: member {shown!r} {problem}; the archive is refused, because an archive of images needs "
        "only plain, unencrypted files and folders, each once, with relative names"
    )
