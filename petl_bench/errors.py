"""The one error type that stands for a mistake a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: its text says what is wrong, where, and what would be right. The CLI exits 2 on it."""


class StoreError(UserError):
    """The store cannot be written (it is full, read-only or forbidden): nothing more can be kept in it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known names, or lists them all when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "known: " + ", ".join(names) if names else "none is known"
