"""Weights files of backbones and their checksums. Does not import torch, so planning is fast."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from petl_bench.errors import UserError
from petl_bench.files import flaw

ASSETS = Path(__file__).parent / "assets"
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
"""Endings of names of weights files, in small or capital letters."""
_LARGEST = 10**11
"""Maximum bytes of a weights file: several times those of any vision transformer."""
_BUNDLED = "bundled:"
_NOT_FILES = ("pretrained", "random")


def find(weights: str) -> Path | None:
    """Return the file that the setting `backbone.weights` names; None for `pretrained` and `random`.

    Raises:
        UserError: the file does not exist or has no readable format.
    """
    if weights in _NOT_FILES:
        return None
    path = bundled(weights) or Path(weights).expanduser()
    known = path.name.lower().endswith(SUFFIXES)
    wrong = (flaw(path, _LARGEST) if path.exists() else "no such file") or (
        "" if known else "unknown file format"
    )
    if wrong:
        raise UserError(
            f"backbone.weights={weights}: {wrong}; give the path of a {', '.join(SUFFIXES)} file, "
            "or one of: " + ", ".join(_NOT_FILES)
        )
    return path


def bundled(weights: str) -> Path | None:
    """Return the path of the bundled file that `weights` names; None if it names no bundled file."""
    return ASSETS / weights.removeprefix(_BUNDLED) if weights.startswith(_BUNDLED) else None


@cache
def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
