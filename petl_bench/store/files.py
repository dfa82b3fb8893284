"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def to_json(values: Mapping[str, Any]) -> bytes:
    """A JSON file's content.

    Raises:
        ValueError: a number is not finite.
    """
    return (json.dumps(values, indent=1, sort_keys=False, allow_nan=False) + "\n").encode()


def from_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        OSError: it cannot be read.
        ValueError, RecursionError: it is no JSON, or no plain file (a pipe would keep us waiting).
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no plain file")
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write so that the file is there whole or not at all, after a power cut too.

    Raises:
        OSError: it cannot be written.
    """
    with staged({path: data}, mode) as place:
        place(path)


@contextmanager
def staged(files: Mapping[Path, bytes], mode: int = 0o644) -> Iterator[Callable[[Path], None]]:
    """Write files under temporary names beside their places; what is given puts one into its place.

    So a disk that is full, or a limit, is met before anything old is touched. Files that are not put into
    place go.

    Raises:
        OSError: one cannot be written; it names that one.
    """
    written: dict[Path, Path] = {}

    def place(path: Path) -> None:
        os.replace(written[path], path)
        del written[path]

    try:
        for path, data in files.items():
            try:
                handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
                written[path] = Path(temporary)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, mode)
            except OSError as error:
                error.filename = str(path)
                raise
        yield place
    finally:
        for temporary_path in written.values():
            temporary_path.unlink(missing_ok=True)


def new_folder(wanted: Path) -> Path:
    """Make a folder of that name, or of the first free one of `NAME.2`, `NAME.3`, ..."""
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}.{number}")
        else:
            return folder
