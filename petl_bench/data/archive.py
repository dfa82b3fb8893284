"""Safe unpacking of untrusted archives: only plain files, and nothing outside the target folder.

All members of an archive are checked before the first one is written. Files are created with mode "xb" below
folders created here, and no link is ever created, so a name that passes `checked` cannot lead elsewhere.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self, cast

from petl_bench.data.file_facts import Notify
from petl_bench.data.members import DEEPEST, Member, checked, kind_flaw
from petl_bench.data.tree import is_litter
from petl_bench.errors import UserError, counted
from petl_bench.files import flaw

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
COMPRESSIONS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}
"""Compressions of .tar files by their first bytes; tarfile's own detection takes zeros for endless LZMA."""

CHUNK = 1 << 20
"""Bytes copied at once."""


def unpack(source: Path, target: Path, notify: Notify) -> None:
    """Unpack an archive, or a folder of archives and plain files, into the new folder `target`.

    An archive is unpacked into a folder named after it unless it has a single top-level folder. Archives
    inside an archive are unpacked too, one level deep. Files get mode 0644 and folders 0755; litter
    (`is_litter`) is skipped. After a failure the content of `target` is incomplete.

    Args:
        source: the archive or folder.
        target: a folder that does not exist yet.
        notify: called with a message for each archive.

    Raises:
        UserError: the source is missing, damaged or of no known kind, does not fit on the disk, or has a
            member that is no plain file or folder, whose name leads outside, or that occurs twice.
        OSError: an error of the disk.
    """
    if os.path.lexists(target):
        raise UserError(f"{target}: exists already; archives are unpacked only into a new folder")
    _require_source(source)
    if not source.is_dir() and _stem(source.name) is None:
        raise UserError(
            f"{source}: its name is not that of an archive; known are {', '.join(SUFFIXES)} and folders "
            "(unpack other kinds yourself and give the folder)"
        )
    target.mkdir(parents=True)
    if not source.is_dir():
        _unpack_archive(source, target, str(source), notify, nested=True)
        return
    files, folders = checked(list(_tree_members(source)), str(source))
    plain = {name: member for name, member in files.items() if _stem(name) is None}
    _write(plain, folders, target, str(source))
    for name in sorted(files.keys() - plain.keys()):
        _unpack_archive(source / name, (target / name).parent, str(source / name), notify, nested=True)


def _require_source(source: Path) -> None:
    """Check that an archive or folder exists, and that an archive is a regular file.

    Raises:
        UserError: it is missing, a link that leads to itself, a pipe or a device.
    """
    try:
        problem = "" if source.is_dir() else flaw(source, sys.maxsize)
    except FileNotFoundError as error:
        raise UserError(f"{source}: no such archive or folder") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{source}: cannot be read as an archive: {reason}") from error
    if problem:
        raise UserError(f"{source}: {problem}; give an archive ({', '.join(SUFFIXES)}) or a folder")


def _stem(name: str) -> str | None:
    """Return the name of an archive without its suffix; None if the name is not that of an archive."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    return name[: -len(suffix)] if suffix else None


def _unpack_archive(file: Path, into: Path, where: str, notify: Notify, nested: bool) -> None:
    with _reporting_damage(where), _members(file) as members:
        files, folders = checked(members, where)
        tops = {name.partition("/")[0] for name in (*files, *folders)}
        alone = len(tops) == 1 and tops <= folders
        base = into if alone else into / (_stem(file.name) or "")
        notify(f"{where}: unpacking {counted(len(files), 'file')}")
        _write(files, folders, base, where)
    inner = [name for name in files if _stem(name) is not None]
    for name in inner if nested else ():
        _unpack_archive(base / name, (base / name).parent, f"{where}: {name}", notify, nested=False)
        (base / name).unlink()


@contextmanager
def _reporting_damage(where: str) -> Iterator[None]:
    """Turn the errors that libraries raise for a damaged archive into one UserError."""
    try:
        yield
    except NotImplementedError as error:
        raise UserError(f"{where}: {error}; unpack it with another program and give the folder") from error
    except (
        *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, struct.error),
        *(EOFError, ValueError, OSError),
    ) as error:
        # An OSError without a number, or of an invalid seek, comes from the archive; others from the disk.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error).partition("\n")[0].rstrip(":")
        raise UserError(
            f"{where}: cannot be read as an archive ({reason}); it is damaged or incomplete; get it again"
        ) from error


@contextmanager
def _members(file: Path) -> Iterator[list[Member]]:
    """Yield all members of an archive; they can be opened inside this context only."""
    if file.name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            # A damaged length hides entries inside the comment of the entry before; zipfile does not notice.
            if any(b"PK\1\2" in info.comment for info in archive.infolist()):
                raise zipfile.BadZipFile("its directory is damaged")
            yield [_zip_member(archive, info) for info in archive.infolist()]
        return
    with file.open("rb") as opened:
        start = opened.read(6)
    compression = next((name for magic, name in COMPRESSIONS.items() if start.startswith(magic)), "")
    with tarfile.open(file, f"r:{compression}", tarinfo=_StrictHeader) as tar:  # type: ignore[call-overload]
        found = [_tar_member(tar, info) for info in tar.getmembers()]
        while compression and cast(IO[bytes], tar.fileobj).read(CHUNK):
            pass  # read on to the checksum at the end of a compressed stream, which tarfile never checks
        yield found


class _StrictHeader(tarfile.TarInfo):
    """A header that must be valid: tarfile itself takes a damaged header for the end of the archive.

    Only a block of zeros is accepted as the end.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(str(error)) from error


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    problem = kind_flaw(info.external_attr >> 16)  # zero where the archive was not made on Unix
    if info.flag_bits & 0x1:
        problem = "is encrypted"
    folder = info.filename.endswith("/")  # info.is_dir() fails for an empty name
    return Member(info.filename, problem, folder, info.file_size, lambda: archive.open(info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    problem = "" if info.isreg() or info.isdir() else "is a device, a pipe or another special file"
    if info.issym() or info.islnk():
        problem = "is a symbolic link" if info.issym() else "is a hard link"
    return Member(info.name, problem, info.isdir(), info.size, lambda: cast(IO[bytes], tar.extractfile(info)))


def _tree_members(source: Path) -> Iterator[Member]:
    """Yield the files and folders below a folder, except for junk."""

    def stop(error: OSError) -> None:
        raise error

    for directory, folders, names in os.walk(source, onerror=stop):
        folders[:] = sorted(name for name in folders if not is_litter(name))
        if len(Path(directory).relative_to(source).parts) > DEEPEST + 1:
            folders.clear()  # the members found so far are refused, and os.walk is recursive in Python 3.11
        for name in (*folders, *sorted(names)):
            path = Path(directory, name)
            yield _file_member(path, path.relative_to(source).as_posix())


def _file_member(path: Path, name: str) -> Member:
    status = path.lstat()
    folder = stat.S_ISDIR(status.st_mode)
    return Member(name, kind_flaw(status.st_mode), folder, status.st_size, lambda: path.open("rb"))


def _write(files: Mapping[str, Member], folders: set[str], base: Path, where: str) -> None:
    """Write checked members below the folder `base`.

    Raises:
        UserError: they are larger than the free space of the disk, or a file of the same name exists.
    """
    try:
        for path in (base, *(base / folder for folder in sorted(folders))):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        size, free = sum(member.size for member in files.values()), shutil.disk_usage(base).free
        if size > free:
            raise UserError(
                f"{where}: needs {size:,} bytes unpacked, but the disk of {base} has only {free:,} bytes free"
            )
        for name, member in files.items():
            path = base / name
            with member.open() as packed, path.open("xb") as unpacked:
                shutil.copyfileobj(packed, unpacked, CHUNK)
            path.chmod(0o644)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{where}: {error.filename} exists already, from another archive; prepare the archives one by one"
        ) from error
