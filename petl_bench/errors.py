"""The one error type that stands for a mistake a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: its text says what is wrong, where, and what would be right. The CLI exits 2 on it."""


class StoreError(UserError):
    """The store cannot be written (it is full, read-only or forbidden): nothing more can be kept in it."""


class DamagedError(UserError):
    """A run of the store that cannot be used as it is: which file, and why."""

    def __init__(self, path: str, why: str, kind: str = "damaged", way_out: str = "") -> None:
        """Kinds: `damaged`; `newer`, `older` (of another version); `unreadable`, `forbidden`, `missing`."""
        super().__init__(path, why, kind, way_out)
        self.path, self.kind, self.way_out = path, kind, way_out
        self.why = f"damaged: {why}" if kind == "damaged" else why

    def __str__(self) -> str:
        """Path, reason and the way out."""
        return f"{self.path}: {self.why}" + (f"; {self.way_out}" if self.way_out else "")


def out_of_memory(error: BaseException) -> bool:
    """Whether main memory or a GPU's was too small; torch says it by RuntimeErrors, in these words."""
    said = ("can't allocate memory", "out of memory", "cannot allocate memory")
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(s in text for s in said)
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known names, or lists them all when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "known: " + ", ".join(names) if names else "none is known"
