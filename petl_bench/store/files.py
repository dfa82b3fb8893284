"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(values: Mapping[str, Any]) -> bytes:
    """A JSON file's content.

    Raises:
        ValueError: a number is not finite.
    """
    return (json.dumps(values, indent=1, sort_keys=False, allow_nan=False) + "\n").encode()


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write so that the file is there whole or not at all, after a power cut too.

    Raises:
        OSError: it cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
