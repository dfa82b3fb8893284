"""Errors that a user can correct, and helpers for their messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from unicodedata import category


class UserError(Exception):
    """Invalid input. The text says what is wrong, where, and what would be valid; the CLI exits with 2."""


class DivergedError(UserError):
    """A training whose loss, or a model whose outputs are not finite."""


class AbsentError(UserError):
    """Data of a task that are not in the folder where they are expected."""


class StoreError(UserError):
    """A store that cannot be written, because it is full, read-only or forbidden."""


class DamagedError(UserError):
    """A run of the store that cannot be used: the file concerned, and the reason.

    Args:
        path: file or folder concerned.
        why: reason, without the path.
        kind: `damaged`, `newer` or `older` (written by another version), `unreadable`, `forbidden` or
            `missing`.
        way_out: advice to the user; empty: none.
    """

    def __init__(self, path: str, why: str, kind: str = "damaged", way_out: str = "") -> None:
        super().__init__(path, why, kind, way_out)
        self.path, self.kind, self.way_out = path, kind, way_out
        self.why = f"damaged: {why}" if kind == "damaged" else why

    def __str__(self) -> str:
        """Return path, reason and advice."""
        return f"{self.path}: {self.why}" + (f"; {self.way_out}" if self.way_out else "")


def out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of the machine or of a GPU was exhausted.

    torch raises RuntimeErrors that contain one of the phrases below.
    """
    phrases = ("can't allocate memory", "out of memory", "cannot allocate memory")
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in text for phrase in phrases)
    )


LOST_DEVICE = (
    *("cuda error", "cuda driver error", "cuda unknown error", "hip error", "nccl error", "triton error ["),
    *("cublas_status", "cudnn_status", "no cuda gpus are available", "found no nvidia driver"),
    "device-side assert",
)
"""Phrases of torch's and Triton's RuntimeErrors about a GPU, in lower case."""
REFUSED = ("status_not_supported", "status_invalid_value", "status_bad_param", "status_arch_mismatch")
"""Phrases among them with which a library refuses what it was asked for, as it would again."""


def lost_device(error: BaseException) -> bool:
    """Return whether a GPU failed so that this process can no longer use it.

    torch has a class for such errors, AcceleratorError, but reports some of them by RuntimeError alone. A GPU
    whose memory is exhausted has not failed.
    """
    if not isinstance(error, RuntimeError) or out_of_memory(error):
        return False
    text = str(error).lower()
    said = any(phrase in text for phrase in LOST_DEVICE) and not any(phrase in text for phrase in REFUSED)
    return said or type(error).__name__ == "AcceleratorError"


def gpu_failed(which: str, error: object, then: str = "run the same command again, in a new process") -> str:
    """Return the message about a GPU that failed; see `lost_device`.

    Args:
        which: the GPU.
        error: the error, or its text.
        then: what to do.
    """
    first = str(error).partition("\n")[0]  # torch adds hints for those who write kernels
    return f"{which}: failed ({first}), and this process can no longer use it; {then}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, for example `1 run`, `2 runs` or `2 classes`."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause that suggests the known names nearest to `name`, or lists all if none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return meant(near)
    return "known: " + ", ".join(names) if names else "none is known"


def meant(names: Iterable[str]) -> str:
    """Return a clause that suggests names."""
    return "did you mean " + " or ".join(repr(n) for n in names) + "?"


def shown(text: str) -> str:
    """Return a text as one line in which no character steers a terminal: such ones are escaped, as in \\x1b.

    Names of files may hold any bytes; those that are not UTF-8 are shown as in \\udcff.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or category(c) == "Zs" else ascii(c)[1:-1] for c in text)


WORD, MESSAGE = 200, 1800
"""Maximum characters of one word of a message, and of a message."""


def presentable(message: str) -> str:
    """Return a message as one printable line of bounded length, whatever values of the user it repeats."""
    line = shown(re.sub(r"\s*\n\s*", " ", message.strip()))
    line = re.sub(rf"\S{{{WORD + 1},}}", lambda match: _shortened(match[0], WORD), line)
    return _shortened(line, MESSAGE)


def _shortened(text: str, most: int) -> str:
    """Return a text with its middle left out where it has too many characters."""
    if len(text) <= most:
        return text
    gap = f"[...{len(text) - most:,} more characters...]"
    begin = (most - len(gap)) * 3 // 4
    return f"{text[:begin]}{gap}{text[len(text) - (most - len(gap) - begin) :]}"
