"""Weights files of backbones: where they are, and their checksum. No torch here: plans are quick."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from petl_bench.errors import UserError

ASSETS = Path(__file__).parent / "assets"
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin")
_BUNDLED = "bundled:"
_NOT_FILES = ("pretrained", "random")


def find(weights: str) -> Path | None:
    """The file that `weights` names, or None for `pretrained` and `random`.

    Raises:
        UserError: the file does not exist, or is of no format that can be read.
    """
    if weights in _NOT_FILES:
        return None
    path = bundled(weights) or Path(weights).expanduser()
    if not path.is_file() or path.suffix not in SUFFIXES:
        wrong = "a file of no known format" if path.is_file() else "no such file"
        raise UserError(
            f"backbone.weights={weights}: {wrong}; give the path of a {', '.join(SUFFIXES)} file, "
            "or one of: " + ", ".join(_NOT_FILES)
        )
    return path


def bundled(weights: str) -> Path | None:
    """The place of a file that comes with the package, or None where `weights` is none."""
    return ASSETS / weights.removeprefix(_BUNDLED) if weights.startswith(_BUNDLED) else None


@cache
def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
