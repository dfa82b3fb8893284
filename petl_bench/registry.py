"""Name -> entry tables that methods register themselves in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from petl_bench.errors import UserError, did_you_mean

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """A table of named entries of one kind, for example all adapters.

    Args:
        kind: what an entry is, in the singular; it appears in error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that files the decorated object under `name`.

        Raises:
            ValueError: the name is taken already.
        """

        def add(entry: Entry) -> Entry:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> Entry:
        """The entry filed under `name`.

        Raises:
            UserError: no such entry; the message offers the nearest names.
        """
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}: {did_you_mean(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
