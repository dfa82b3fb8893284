"""Atomic writes: a file appears under its name complete, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Content = bytes | Iterator[bytes]
"""Bytes of a file, or its pieces in order."""


def write_atomic(path: Path, content: Content, mode: int | None = None) -> None:
    """Write a file so that it is complete or absent at any time, even after a power failure.

    An existing file is replaced. A killed process may leave a temporary file `.NAME.*` beside it.

    Args:
        content: the bytes, or pieces of them that are made while the file is written.
        mode: permissions of the file; None: those of a new file, by the umask of this process.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    with staged({path: content}, mode) as place:
        place(path)


@contextmanager
def staged(files: Mapping[Path, Content], mode: int | None = None) -> Iterator[Callable[[Path], None]]:
    """Write files under temporary names beside their paths, and yield a function that moves one into place.

    A full disk or an exceeded quota is thus noticed before any existing file is touched. Files that were not
    moved into place are removed at the end.

    Args:
        files: content by path; written in this order.
        mode: permissions of the files; None: those of a new file, by the umask of this process.

    Raises:
        OSError: a file cannot be written; `filename` is its path.
    """
    written: dict[Path, Path] = {}

    def place(path: Path) -> None:
        os.replace(written[path], path)
        del written[path]

    try:
        for path, content in files.items():
            pieces: Iterable[bytes] = [content] if isinstance(content, bytes) else content
            try:
                temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
                # Not by tempfile, whose files nobody else can read, whatever the umask allows.
                with temporary.open("xb") as file:
                    written[path] = temporary
                    for piece in pieces:
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                if mode is not None:
                    os.chmod(temporary, mode)
            except OSError as error:
                error.filename = str(path)
                raise
        yield place
    finally:
        for temporary_path in written.values():
            temporary_path.unlink(missing_ok=True)


def write_folder_atomic(folder: Path, contents: Mapping[str, Content]) -> None:
    """Write a new folder of files so that it is complete or absent at any time.

    A killed process may leave a temporary folder `.NAME.*` beside it.

    Args:
        folder: path that does not exist.
        contents: content by the name of each file.

    Raises:
        OSError: the folder exists, or a file cannot be written; `filename` is its path.
    """
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        for name, content in contents.items():
            write_atomic(temporary / name, content)
        os.rename(temporary, folder)
    except OSError as error:
        error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
