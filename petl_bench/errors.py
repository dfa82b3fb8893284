"""Errors that a user can correct, and helpers for their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Invalid input. The text says what is wrong, where, and what would be valid; the CLI exits with 2."""


class DivergedError(UserError):
    """A training whose loss, or a model whose outputs are not finite."""


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


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, for example `1 run` or `2 runs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause that suggests the known names nearest to `name`, or lists all if none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "known: " + ", ".join(names) if names else "none is known"
