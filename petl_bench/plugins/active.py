"""The plug-ins that this process uses, and the import of their files when an entry of one is asked for."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Generic, ParamSpec, TypeVar

from petl_bench.errors import UserError
from petl_bench.plugins.folders import VARIABLE, Plugin, installed, of_folder
from petl_bench.plugins.modules import Module, fault, place

_INTERRUPTED = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
"""Exit codes of a process that a signal ends."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


def _ignore(fault: str) -> None:
    """Tell nobody."""


@dataclass
class _State:
    """Knowledge of this process about plug-ins.

    Attributes:
        given: folders that were given; None: those of the environment variable.
        used: plug-ins in use; None until they are looked for.
        numbers: a number for every set of plug-ins that was in use.
        importing: file that is being imported.
        imported: fault of every file that was imported, empty where it has none.
        told: faults that the user has been told of.
        tell: function that is told of a fault.
    """

    given: tuple[str, ...] | None = None
    used: tuple[Plugin, ...] | None = None
    numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
    importing: Module | None = None
    imported: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    tell: Callable[[str], None] = _ignore


_state = _State()


def use(folders: Iterable[str | Path] | None, tell: Callable[[str], None] | None = None) -> None:
    """Use the plug-ins of these folders, and those of installed packages, from now on.

    Args:
        folders: the folders; None: those that the environment variable PETL_BENCH_CONFIG names.
        tell: function that is told, once for each, which files cannot be used; None: as before.

    Raises:
        UserError: a folder is no plug-in, or two plug-ins contradict each other.
    """
    _state.given = None if folders is None else tuple(str(Path(folder).resolve()) for folder in folders)
    _state.used = None
    if tell is not None:
        _state.tell, _state.told = tell, set()
    active()


def keep_to(wanted: tuple[str, ...]) -> None:
    """Use the plug-ins of these folders, as `folders` returns them, unless they are in use already.

    Raises:
        UserError: see `use`.
    """
    if _state.used is None or folders() != wanted:
        use(wanted)


def folders() -> tuple[str, ...]:
    """Return the folders whose plug-ins are in use, as absolute paths."""
    return tuple(str(plugin.folder) for plugin in active() if not plugin.installed)


def active() -> tuple[Plugin, ...]:
    """Return the plug-ins in use.

    Raises:
        UserError: see `use`.
    """
    if _state.used is None:
        given = _state.given
        if given is None:
            given = tuple(part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part)
        found = [of_folder(folder) for folder in dict.fromkeys(Path(part).resolve() for part in given)]
        for entry in installed():
            if isinstance(entry, Plugin):
                found.append(entry)
            else:
                _complain(entry)
        _check(found)
        _state.used = tuple(found)
        for plugin in found:
            for why in (*(module.fault for module in plugin.modules), *plugin.strays):
                _complain(why)
    return _state.used


def _check(found: Iterable[Plugin]) -> None:
    """Refuse plug-ins of one name, and entries of one name.

    Raises:
        UserError: there are such.
    """
    names: dict[str, Plugin] = {}
    places: dict[tuple[str, str], str] = {}
    for plugin in found:
        if (other := names.setdefault(plugin.name, plugin)) is not plugin:
            raise UserError(
                f"{other.folder} and {plugin.folder}: two plug-ins have one name; rename a folder"
            )
        for module in plugin.modules:
            for held in module.registrations:
                here = module.place(held.table, held.name)
                if (first := places.setdefault((held.table, held.name), here)) != here:
                    raise UserError(f"{here}: {held.name!r} is registered by {first} too; rename one of them")


def _complain(message: str) -> None:
    if message and message not in _state.told:
        _state.told.add(message)
        _state.tell(message)


def providers(table: str) -> Iterator[tuple[Plugin, Module]]:
    """Yield the files that register entries of a table, and their plug-ins."""
    for plugin in active():
        for module in plugin.modules:
            if module.registers(table):
                yield plugin, module


def owner(table: str, name: str) -> Plugin | None:
    """Return the plug-in that registers an entry; None: the entry is built in, or unknown."""
    return next((plugin for plugin, module in providers(table) if module.registers(table, name)), None)


def load(plugin: Plugin, module: Module) -> bool:
    """Import a file of a plug-in unless that was done before; return whether it can be used.

    What it prints goes to stderr, because stdout is for the results of commands.
    """
    if module.imported_as not in _state.imported:
        before, _state.importing = _state.importing, module
        try:
            with redirect_stdout(sys.stderr):
                _prepare(plugin)
                importlib.import_module(module.imported_as)
            _state.imported[module.imported_as] = ""
        except (Exception, SystemExit) as error:  # a file may raise anything
            if isinstance(error, SystemExit) and error.code in _INTERRUPTED:
                raise
            _state.imported[module.imported_as] = fault(module.path, error)
        finally:
            _state.importing = before
    _complain(_state.imported[module.imported_as])
    return not _state.imported[module.imported_as]


def blame(module: Module, why: str) -> None:
    """Take a file of a plug-in for one that cannot be used."""
    _state.imported[module.imported_as] = why
    _complain(why)


def origin(error: BaseException) -> str:
    """Return the file and line of a plug-in at which an error was raised; empty if none took part in it."""
    places = (place(module.path, error) for plugin in active() for module in plugin.modules)
    return next(filter(None, places), "")


def _faults() -> Iterator[tuple[Module, str]]:
    """Yield the files in use that cannot be used, and why."""
    for plugin in active():
        for module in plugin.modules:
            if why := module.fault or _state.imported.get(module.imported_as, ""):
                yield module, why


def _prepare(plugin: Plugin) -> None:
    """Make the Python files of a folder importable, as modules of a package of their own."""
    if plugin.installed or plugin.package in sys.modules:
        return
    first = plugin.modules[0].path
    folder = str(first.parent)
    if first.stem != "__init__":
        package = ModuleType(plugin.package)
        package.__path__ = [folder]
        sys.modules[plugin.package] = package
        return
    spec = importlib.util.spec_from_file_location(plugin.package, first, submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[plugin.package] = package
    try:
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules[plugin.package]
        raise


def registering(table: str, name: str) -> str:
    """Return the module of a plug-in that registers an entry now; empty if it is a module of the package.

    The import of a plug-in may import modules of the package for the first time.
    """
    module = _state.importing
    return module.imported_as if module is not None and module.registers(table, name) else ""


def explained(table: str, name: str, otherwise: str) -> str:
    """Return why an entry is missing: the fault of the plug-in that registers it, else another reason.

    Args:
        table: name of the registry.
        name: the missing entry.
        otherwise: reason where no plug-in registers it; the faults of plug-ins that might are added.
    """
    for module, why in _faults():
        if module.registers(table, name):
            return why
    return "; ".join([otherwise, *(why for _, why in _faults())])


def refuse_taken(kind: str, table: str, taken: Container[str]) -> None:
    """Refuse entries of plug-ins that have a name of an entry of the package.

    Args:
        kind: noun in the singular for an entry.
        table: name of the registry.
        taken: names of the entries of the package.

    Raises:
        UserError: there is such an entry.
    """
    for _, module in providers(table):
        for held in module.registrations:
            if held.table == table and held.name in taken:
                here = module.place(table, held.name)
                raise UserError(f"{here}: {kind} {held.name!r} is built in: choose another name")


class cached(Generic[Given, Result]):  # noqa: N801 - a decorator
    """A function whose results are kept, apart for each set of plug-ins in use."""

    def __init__(self, function: Callable[Given, Result]) -> None:
        functools.update_wrapper(self, function)

        @functools.cache
        def held(plugged: int, *given: Given.args, **named: Given.kwargs) -> Result:
            return function(*given, **named)

        self._held = held
        self.cache_clear = held.cache_clear

    def __call__(self, *given: Given.args, **named: Given.kwargs) -> Result:
        stamps = tuple(plugin.stamp for plugin in active())
        number = _state.numbers.setdefault(stamps, len(_state.numbers))
        return self._held(number, *given, **named)  # type: ignore[arg-type]
