"""Groups of the configuration and their options: files of conf/, also of plug-ins, and options in Python."""

from __future__ import annotations

import copy
import fnmatch
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from petl_bench import plugins
from petl_bench.config.schema import container, first_paragraph
from petl_bench.data import manifests
from petl_bench.errors import UserError, counted, did_you_mean
from petl_bench.files import SETTINGS_LIMIT, read_bytes, read_text, read_yaml
from petl_bench.types import LAUNCHERS, declarations, method, methods

_PACKAGE = Path(__file__).parent.parent
_TOP = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent
CONF_DIR = _TOP / "conf"
"""Inside the package in an installed wheel, at the top of the repository in a checkout."""


def _adapters() -> dict[str, dict[str, Any]]:
    return {name: {"name": name, **found.defaults} for name, found in methods().items()}


def _launchers() -> dict[str, dict[str, Any]]:
    return {
        name: {"name": name} | {key: known.default for key, known in declarations(kind).items()}
        for name, kind in ((name, LAUNCHERS.get(name)) for name in LAUNCHERS)
    }


def _tasks() -> dict[str, dict[str, Any]]:
    return {name: {"name": name} for name in manifests()}


_DECLARED: Mapping[str, Callable[[], dict[str, dict[str, Any]]]] = {
    "adapter": _adapters,
    "launcher": _launchers,
    "task": _tasks,
}
"""Groups with options that are declared in Python: functions that return the content of each."""


def store_declared() -> None:
    """Give Hydra exactly the options that are declared in Python now."""
    store = ConfigStore.instance()
    for group, contents in _DECLARED.items():
        declared = {f"{name}.yaml": (name, node) for name, node in contents().items()}
        stored = store.repo.setdefault(group, {})
        for file in stored.keys() - declared.keys():
            del stored[file]
        for file in declared.keys() - stored.keys():
            name, node = declared[file]
            store.store(group=group, name=name, node=node)


def folders() -> list[Path]:
    """Return CONF_DIR and the folders `conf` of the plug-ins in use."""
    found = (plugin.folder / plugins.CONF for plugin in plugins.active())
    return [CONF_DIR, *(folder for folder in found if folder.is_dir())]


def file_of(group: str, name: str) -> Path:
    """Return the file of an option that is not declared in Python, whether there is one or not."""
    paths = [folder / group / f"{name}.yaml" for folder in folders()]
    return next((path for path in paths if path.is_file()), paths[0])


def owner(group: str, name: str) -> plugins.Plugin | None:
    """Return the plug-in that an option comes from; None: it is built in, or unknown."""
    if group in _TABLES:
        return plugins.owner(_TABLES[group], name)
    option = Path(plugins.MANIFESTS if group == "task" else f"{plugins.CONF}/{group}") / f"{name}.yaml"
    return next((plugin for plugin in plugins.active() if (plugin.folder / option).is_file()), None)


_TABLES = {"adapter": "ADAPTERS", "launcher": "LAUNCHERS"}
"""Registries of the groups whose options plug-ins declare in Python."""


def place_of(group: str, name: str) -> str:
    """Return the path of an option's file for messages; that of a plug-in in full."""
    return _where(file_of(group, name))


def _where(path: Path) -> str:
    """Return the path of a file of conf/ for messages; that of a plug-in in full."""
    return f"conf/{path.relative_to(CONF_DIR)}" if path.is_relative_to(CONF_DIR) else str(path)


class _SearchPath(SearchPathPlugin):  # type: ignore[misc]
    """Makes Hydra read the options of plug-ins, too."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders of the plug-ins in use."""
        for folder in folders()[1:]:
            search_path.append("petl-bench", f"file://{folder}")


def let_hydra_see_plugins() -> None:
    """Make Hydra read the options of plug-ins, if there are any; it takes long to find its own plug-ins."""
    if folders()[1:]:
        Plugins.instance().register(_SearchPath)


def groups() -> set[str]:
    """Return the names of all groups, for example `adapter`."""
    return {path.name for path in CONF_DIR.iterdir() if path.is_dir()} | _DECLARED.keys()


def options(group: str) -> list[str]:
    """Return the names of the options of a group, in alphabetical order."""
    files = (path for folder in folders() for path in (folder / group).glob("*.yaml"))
    return sorted({*_declared(group), *(path.stem for path in files)})


def description(group: str, name: str) -> str:
    """Return one sentence about an option: of its declaration, or the first of its file's comments."""
    if group == "adapter" and name in methods():
        return method(name).description
    if group == "launcher" and name in LAUNCHERS:
        return (LAUNCHERS.get(name).__doc__ or "").partition("\n")[0]
    lines = read_text(file_of(group, name), SETTINGS_LIMIT).splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line]
    return re.split(r"(?<=\.)\s", " ".join(comments), maxsplit=1)[0]


def group_config(group: str, name: str) -> dict[str, Any]:
    """Return the content of an option, uncomposed.

    Raises:
        UserError: the group has no such option.
    """
    if name not in options(group):
        raise unknown_option(group, name)
    if name in (contents := _declared(group)):
        return contents[name]
    return _content(file_of(group, name))


def unknown_option(group: str, name: str) -> UserError:
    """Return the error of an option that does not exist, with the faults of plug-ins that might have it."""
    if found := fnmatch.filter(options(group), name):
        return UserError(
            f"unknown {group} {name!r}: a pattern is written '{group}=glob({name})', which matches "
            f"{counted(len(found), 'name')}"
        )
    why = plugins.explained(_TABLES.get(group, ""), name, did_you_mean(name, options(group)))
    return UserError(f"unknown {group} {name!r}: {why}")


def _content(path: Path) -> dict[str, Any]:
    """Return the content of a file of conf/, which is read again when the file has changed.

    Raises:
        UserError: it cannot be read, is not valid YAML, or lacks a key that its group needs.
    """
    return copy.deepcopy(_read(path, path.stat().st_mtime_ns if path.exists() else 0))


@cache
def _read(path: Path, modified: int) -> dict[str, Any]:
    where = _where(path)
    content = read_yaml(path, where, get_yaml_loader())
    if content and path.parent.name == "sweep" and not _HEADER.match(read_bytes(path, SETTINGS_LIMIT, where)):
        raise UserError(
            f"{where}: its first line must be `# @package _global_`; else it would have no effect"
        )
    content = {} if content is None else content  # nothing but comments
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{where}: expected lines KEY: VALUE")
    for key, kind in _NEEDED.get(path.parent.name, {}).items():
        if not isinstance(content.get(key), kind):
            raise UserError(f"{where}: lacks {key}, or it is not {kind.__name__}")
    try:
        return container(OmegaConf.create(content))
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {first_paragraph(error)}") from error


_HEADER = re.compile(rb"\s*#\s*@package +_global_\s*$", re.MULTILINE)
"""First line of the file of a sweep, without which Hydra puts its content where nothing reads it."""
_NEEDED: Mapping[str, Mapping[str, type]] = {
    "backbone": {"name": str},
    "head": {"name": str, "quantized": bool},
    "protocol": {"name": str},
    "quantizer": {"name": str},
}
"""Keys that the files of a group must have."""


def check_files(errors: bool = False) -> None:
    """Check the files of conf/ before Hydra reads them: kind, size, and aliases, which it would write out.

    Args:
        errors: whether to find all errors of YAML, too, which takes longer.

    Raises:
        UserError: a file cannot be used; the message states the line.
    """
    _check_plugins()
    for path in (path for folder in folders() for path in sorted(folder.rglob("*.yaml"))):
        where = _where(path)
        content = read_bytes(path, SETTINGS_LIMIT, where)
        if b"@package" in content and path.parent.name != "sweep":
            raise UserError(f"{where}: @package is for the files of sweeps; leave it out")
        if errors or b"&" in content:
            _content(path)
            try:
                path.read_text(encoding="utf-8")  # as Hydra does
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: is not UTF-8 text: {error.reason}") from error


def _check_plugins() -> None:
    """Check that the files of plug-ins are options of known groups, with names of their own.

    Raises:
        UserError: one is not.
    """
    for group, table in (("head", "HEADS"), ("quantizer", "CODEBOOKS")):
        plugins.refuse_taken(group, table, {path.stem for path in (CONF_DIR / group).glob("*.yaml")})
    known, seen = (
        groups() - _DECLARED.keys(),
        {path.relative_to(CONF_DIR) for path in CONF_DIR.rglob("*.yaml")},
    )
    for folder in folders()[1:]:
        for path in sorted(folder.rglob("*.yaml")):
            option = path.relative_to(folder)
            group = str(option.parent)
            if group == ".":
                raise UserError(
                    f"{path}: options are files conf/GROUP/NAME.yaml; {did_you_mean(group, known)}"
                )
            if group not in known:
                raise UserError(
                    f"{path}: conf/ has no group of options {group!r}: {did_you_mean(group, known)}"
                )
            if option in seen:
                raise UserError(f"{path}: there is a {group} {option.stem!r} already: choose another name")
            seen.add(option)


def _declared(group: str) -> dict[str, dict[str, Any]]:
    return _DECLARED[group]() if group in _DECLARED else {}
