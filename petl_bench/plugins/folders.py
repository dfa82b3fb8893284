"""Plug-ins: folders that the user names, and installed packages that declare themselves."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from petl_bench.errors import UserError
from petl_bench.plugins.modules import Module, read_module

GROUP = "petl_bench.plugins"
"""Group of the entry points of installed plug-ins."""
CONF, MANIFESTS, MODULES = "conf", "data_manifests", "plugins"
"""Folders of a plug-in: options of the configuration, manifests of tasks, and Python files."""
VARIABLE = "PETL_BENCH_CONFIG"
"""Environment variable with the folders of plug-ins, used where none are given."""
DIGITS = 8
"""Hexadecimal digits of a digest."""


@dataclass(frozen=True)
class Plugin:
    """Additions to the package that stand in one folder.

    Attributes:
        name: name of the folder, or of the installed distribution.
        version: `__version__` of the folder's `plugins/__init__.py`, or the version of the distribution; may
            be empty.
        folder: folder of `conf` and `data_manifests`.
        package: name of the package to which its Python files belong.
        modules: its Python files, `__init__.py` first.
        installed: whether it is an installed distribution.
        stamp: what changes whenever a file does.
        strays: files without effect, and where they would have one.
    """

    name: str
    version: str
    folder: Path
    package: str
    modules: tuple[Module, ...]
    installed: bool
    stamp: str
    strays: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".rstrip()

    @property
    def additions(self) -> list[str]:
        """Return what the plug-in adds, for example `adapter sequential`, `conf/train/quick.yaml`."""
        found = [f"{held.noun} {held.name}" for module in self.modules for held in module.registrations]
        files = [*(self.folder / CONF).rglob("*.yaml"), *(self.folder / MANIFESTS).glob("*.yaml")]
        return sorted(found) + sorted(str(path.relative_to(self.folder)) for path in files)

    @property
    def digest(self) -> str:
        """Return the beginning of the SHA-256 over the names and sources of all Python files."""
        sha = hashlib.sha256()
        for module in self.modules:
            sha.update(f"{module.path.name}\0{module.text}\0".encode())
        for path in _deeper(self.modules):
            sha.update(
                f"{path.relative_to(self.modules[0].path.parent)}\0".encode() + path.read_bytes() + b"\0"
            )
        return sha.hexdigest()[:DIGITS]


def of_folder(folder: Path) -> Plugin:
    """Return the plug-in of a folder.

    Raises:
        UserError: there is no such folder, or it holds nothing that a plug-in may have.
    """
    where = f"--config-dir {folder}"
    if not folder.is_dir():
        raise UserError(f"{where}: no such folder; --config-dir DIR or ${VARIABLE} names another one")
    root = folder.resolve()
    if re.fullmatch(r"[\w.-]+", root.name, re.ASCII) is None:
        raise UserError(f"{where}: a plug-in's name, that of its folder, has letters, digits, and . _ - only")
    if not any((root / name).is_dir() for name in (CONF, MANIFESTS, MODULES)):
        stray = sorted(path.name for path in root.glob("*.py"))
        hint = f"; put {stray[0]} into {MODULES}/" if stray else ""
        raise UserError(f"{where}: holds none of the folders {CONF}, {MANIFESTS} and {MODULES}{hint}")
    files = [*sorted((root / MODULES).rglob("*.py"))]
    files += [path for name in (CONF, MANIFESTS) for path in sorted((root / name).rglob("*.yaml"))]
    stamp = _stamp(root, files)
    package = f"petl_bench_plugin_{stamp}"
    modules = tuple(map(_used, _modules(root / MODULES, package)))
    version = _version(modules[0].text) if modules and modules[0].path.stem == "__init__" else ""
    return Plugin(root.name, version, root, package, modules, False, stamp, tuple(_strays(root, modules)))


def _strays(root: Path, modules: tuple[Module, ...]) -> Iterator[str]:
    """Yield what is said about files of a folder that have no effect where they are."""
    for part in (CONF, MANIFESTS):
        for path in sorted((root / part).rglob("*.yml")):
            yield f"plug-in {path}: is not read; name it {path.stem}.yaml"
    for path in sorted((root / MANIFESTS).glob("*/**/*.yaml")):
        yield f"plug-in {path}: is not read; put it into {MANIFESTS}/ itself"
    for path in _deeper(modules) if modules else sorted((root / MODULES).glob("*/**/*.py")):
        if read_module(path, path.stem).registrations:
            yield f"plug-in {path}: is not read; put it into {MODULES}/ itself"


def _deeper(modules: tuple[Module, ...]) -> list[Path]:
    """Return the Python files in folders beside those of a plug-in, which may import them."""
    folders = dict.fromkeys(module.path.parent for module in modules)
    return [path for folder in folders for path in sorted(folder.glob("*/**/*.py"))]


def installed() -> Iterator[Plugin | str]:
    """Yield the plug-ins of installed packages; of those that cannot be found, why."""
    for point in _entry_points(tuple(sys.path)):
        try:
            yield _of_entry_point(point)
        except Exception as error:  # a package may raise anything when its parent is imported
            distribution = point.dist.name if point.dist else point.name
            yield (
                f"plug-in {distribution}: its entry point {point.name} = {point.value} cannot be imported: "
                f"{type(error).__name__}: {error}"
            )


@cache
def _entry_points(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of all distributions on sys.path, whose metadata take 0.1 s to read."""
    return tuple(entry_points(group=GROUP))


def _of_entry_point(point: EntryPoint) -> Plugin:
    spec = find_spec(point.module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {point.module!r}")
    origin = Path(spec.origin)
    package = spec.submodule_search_locations is not None
    modules = [*_modules(origin.parent, point.module)] if package else [read_module(origin, point.module)]
    name, version = (point.dist.name, point.dist.version) if point.dist else (point.name, "")
    folder = origin.parent if package else origin.with_suffix("")  # a module alone has no folder
    files = [module.path for module in modules]
    files += [path for part in (CONF, MANIFESTS) for path in sorted((folder / part).rglob("*.yaml"))]
    stamp = _stamp(origin, files)
    return Plugin(name, version, folder, point.module, tuple(modules), True, stamp)


def _modules(folder: Path, package: str) -> Iterator[Module]:
    """Yield the Python files of a folder, `__init__.py` first."""
    for path in sorted(folder.glob("*.py"), key=lambda path: (path.stem != "__init__", path)):
        yield read_module(path, package if path.stem == "__init__" else f"{package}.{path.stem}")


def _used(module: Module) -> Module:
    """Return a file of a folder, with a fault if it has no effect."""
    if module.fault or module.registrations or module.path.stem.startswith("_"):
        return module
    why = f"plug-in {module.path}: registers nothing by a literal name; files that others import begin with _"
    return replace(module, fault=why)


def _stamp(root: Path, files: list[Path]) -> str:
    facts = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    return hashlib.sha256(repr((str(root), facts)).encode()).hexdigest()[:16]


def _version(text: str) -> str:
    """Return the literal `__version__` of a source; empty if it has none."""
    body = ast.parse(text).body
    stated = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    found = [node.value for node in stated if ast.unparse(node.targets[0]) == "__version__"]
    return str(ast.literal_eval(found[0])) if found else ""
