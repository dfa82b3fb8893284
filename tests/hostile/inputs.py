"""Parts of all hostile inputs: what their makers are given and return, damage of files, and signed files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote

import numpy as np
from safetensors.numpy import save

from tests.hostile.words import NUMBERS, SNIPPETS

ONE = ["sweep=none", "task=digits", "scale=1", "train.epochs=1", "protocol=fixed", "bits=1", "hidden=4"]


@dataclass
class Place:
    """Folder of one input, and what its makers have at hand."""

    folder: Path
    store: Path
    """A finished store; makers copy of it what they change."""
    tree: Path
    """A benchmark task in VTAB's layout."""
    adapters: list[Path] = field(default_factory=list)


@dataclass
class Attempt:
    """A command with a hostile input."""

    arguments: list[str]
    about: str
    conf: Path | None = None
    manifests: Path | None = None


def edit(r: random.Random, text: str) -> tuple[str, str]:
    """Return an edited text of YAML, and how it was edited."""
    lines = text.splitlines() or [""]
    snippet = r.choice(SNIPPETS)
    at = r.randrange(len(lines))
    how = r.choice(["replace file", "insert", "value", "append", "drop", "nest"])
    if how == "replace file":
        lines = [snippet]
    elif how == "insert":
        lines.insert(at, snippet)
    elif how == "value":
        key = lines[at].split(":")[0]
        lines[at] = f"{key}: {r.choice([*NUMBERS, *SNIPPETS])}"
        snippet = lines[at]
    elif how == "append":
        lines.append(snippet)
    elif how == "drop":
        del lines[at]
    else:
        lines[at] = "  " + lines[at]
    return "\n".join(lines) + "\n", f"{how} line {at + 1} {snippet[:50]!r}"


def damage(r: random.Random, path: Path) -> str:
    """Give a file another kind, another encoding, or a byte that is none of text."""
    how = r.choice(
        ["fifo", "zero", "giant", "dir", "missing", "empty", "binary", "utf16", "bom", "loop", "nul"]
    )
    text = path.read_text(errors="replace") if path.is_file() else ""
    path.unlink(missing_ok=True)
    if how == "fifo":
        os.mkfifo(path)
    elif how == "zero":
        path.symlink_to("/dev/zero")
    elif how == "giant":
        with path.open("wb") as file:
            file.truncate(10**12)
    elif how == "dir":
        path.mkdir()
    elif how == "empty":
        path.touch()
    elif how == "binary":
        path.write_bytes(r.randbytes(100))
    elif how == "utf16":
        path.write_text(text, encoding="utf-16")
    elif how == "bom":
        path.write_text(text, encoding="utf-8-sig")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "nul":
        path.write_text(text + "\0")
    return how


def signed(metadata: list[tuple[str, str]], payload: bytes) -> bytes:
    """Return an adapter file with any metadata and a right checksum."""
    text = "&".join(f"{quote(key)}={quote(value, safe=':;,=@/|[]')}" for key, value in metadata)
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode() + payload).digest()).decode().rstrip("=")
    return bytes(
        save(
            {"payload": np.frombuffer(payload, np.uint8)}, metadata={"petl-bench": f"{text}&sha256={digest}"}
        )
    )


def taken_apart(data: bytes) -> tuple[list[tuple[str, str]], bytes]:
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"]["petl-bench"]
    return parse_qsl(text, keep_blank_values=True)[:-1], data[8 + length :]
