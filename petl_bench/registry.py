"""Tables of named entries, in which methods register themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from petl_bench import plugins
from petl_bench.errors import UserError, did_you_mean

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """A table of named entries of one kind, for example all adapters.

    Entries of plug-ins are imported when the table is first read, and are there while the plug-in is in use.

    Args:
        kind: noun in the singular for an entry; it appears in error messages.
        table: name of the table in the source of plug-ins; empty: they cannot add entries.
    """

    def __init__(self, kind: str, table: str = "") -> None:
        self.kind = kind
        self.table = table
        self._entries: dict[str, Entry] = {}
        self._plugged: dict[str, dict[str, Entry]] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that registers the decorated object under `name`.

        Raises:
            ValueError: the name is already registered.
        """

        def add(entry: Entry) -> Entry:
            module = plugins.registering(self.table, name)
            entries = self._plugged.setdefault(module, {}) if module else self._entries
            if name in entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> Entry:
        """Return the entry registered under `name`.

        Raises:
            UserError: there is no such entry; the message suggests the nearest names.
        """
        entries = self._all()
        if name not in entries:
            why = plugins.explained(self.table, name, did_you_mean(name, entries))
            raise UserError(f"unknown {self.kind} {name!r}: {why}")
        return entries[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in alphabetical order."""
        return iter(sorted(self._all()))

    def __contains__(self, name: object) -> bool:
        """Return whether an entry is registered under `name`."""
        return name in self._all()

    def _all(self) -> dict[str, Entry]:
        """Return the entries of the package and of the plug-ins in use.

        Raises:
            UserError: a plug-in registers a name that the package has.
        """
        found = dict(self._entries)
        plugins.refuse_taken(self.kind, self.table, found)
        for plugin, module in plugins.providers(self.table):
            if plugins.load(plugin, module):
                found |= self._plugged.get(module.imported_as, {})
        return found
