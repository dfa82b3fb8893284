"""Weights files of backbones: where they are, and their checksum. No torch here: plans are quick."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from petl_bench.errors import UserError

ASSETS = Path(__file__).parent / "assets"
_NOT_FILES = ("pretrained", "random")


def find(weights: str) -> Path | None:
    """The file that `weights` names, or None for `pretrained` and `random`.

    Raises:
        UserError: the file does not exist.
    """
    if weights in _NOT_FILES:
        return None
    bundled = weights.startswith("bundled:")
    path = ASSETS / weights.removeprefix("bundled:") if bundled else Path(weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"backbone.weights={weights}: no such file; give the path of a safetensors file, "
            "or one of: " + ", ".join(_NOT_FILES)
        )
    return path


@cache
def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
