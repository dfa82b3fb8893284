"""Python files of plug-ins: what each registers, read from its source without importing it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from petl_bench.errors import UserError

_NOUNS = {
    "ADAPTERS": "adapter",
    "CODEBOOKS": "quantizer",
    "HEADS": "head",
    "FAMILIES": "backbone family",
    "LAYOUTS": "data layout",
    "GENERATORS": "generated data",
    "LAUNCHERS": "launcher settings",
    "LAUNCH": "launcher",
    "FORMATS": "report form",
}
"""Names of the registries, and what their entries are. A plug-in cannot register in others."""
_TABLES = {"adapter": "ADAPTERS"}
"""Decorators that register in a table whose name they do not state."""


@dataclass(frozen=True)
class Registration:
    """One statement that registers an entry, such as `@adapter("NAME", ...)` or `HEADS.register("NAME")`.

    Attributes:
        table: name of the registry, for example `ADAPTERS`.
        name: name of the entry.
        line: line of the statement.
    """

    table: str
    name: str
    line: int

    @property
    def noun(self) -> str:
        """Return the table in singular, for example `adapter`."""
        return _NOUNS[self.table]


@dataclass(frozen=True)
class Module:
    """One Python file of a plug-in.

    Attributes:
        path: the file.
        imported_as: dotted name under which it is imported.
        text: its source.
        registrations: what it registers.
        fault: why it cannot be used, with file and line; empty if nothing is known against it.
    """

    path: Path
    imported_as: str
    text: str
    registrations: tuple[Registration, ...] = ()
    fault: str = ""

    def registers(self, table: str, name: str = "") -> bool:
        """Return whether the file registers this entry, or any if no name is given."""
        return any(held.table == table and name in ("", held.name) for held in self.registrations)

    def place(self, table: str, name: str) -> str:
        """Return file and line of a registration, for messages."""
        lines = [held.line for held in self.registrations if (held.table, held.name) == (table, name)]
        return f"plug-in {self.path}, line {lines[0]}"


def read_module(path: Path, imported_as: str) -> Module:
    """Return a Python file, parsed; one that cannot be parsed has a `fault`.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings(action="ignore"):  # Python warns of escapes again at the import
            found = tuple(_registrations(ast.parse(text, str(path))))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
        return Module(path, imported_as, "", fault=fault(path, error))
    return Module(path, imported_as, text, found)


def place(path: Path, error: BaseException) -> str:
    """Return a file of a plug-in and its line at which an error was raised; empty if it took no part."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"plug-in {path}, line {line}" if line else ""


def fault(path: Path, error: BaseException) -> str:
    """Return why a file cannot be imported, with the line of it at which that was found."""
    where = place(path, error) or f"plug-in {path}"
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{where}: cannot be imported: {type(error).__name__}: {said}"


def _registrations(tree: ast.Module) -> Iterator[Registration]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        words = ast.unparse(node.func).split(".")
        table = words[-2] if words[-1] == "register" and len(words) > 1 else _TABLES.get(words[-1], "")
        if table in _NOUNS:
            yield Registration(table, str(node.args[0].value), node.lineno)
