"""Manifests in data_manifests/: one YAML file per task. Adding a task takes nothing but a manifest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import yaml

from petl_bench import plugins
from petl_bench.errors import UserError, counted
from petl_bench.files import SETTINGS_LIMIT, parse_yaml, read_text
from petl_bench.types import RESIZES, SPLITS, Manifest, typed

_PACKAGE = Path(__file__).parent.parent
_TOP = _PACKAGE if (_PACKAGE / "data_manifests").is_dir() else _PACKAGE.parent
MANIFEST_DIR = _TOP / "data_manifests"
"""Folder inside the package in an installed wheel, and at the top of the repository in a checkout."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C where PyYAML has it: every command that plans reads all manifests."""


@plugins.cached
def manifests() -> Mapping[str, Manifest]:
    """Return all manifests by task name, sorted by name, those of plug-ins included.

    Raises:
        UserError: a manifest has an unknown, missing or mistyped key, or facts that contradict each other; or
            a plug-in has a task with the name of another, or adds one to a suite of the package.
    """
    found = {}
    for path in sorted(MANIFEST_DIR.glob("*.yaml")):
        found[path.stem] = _read_file(path, path.name)
    suites = {manifest.suite for manifest in found.values()} - {"own"}
    for path in (path for plugin in plugins.active() for path in manifest_paths(plugin)):
        if path.stem in found:
            raise UserError(f"{path}: there is a task {path.stem!r} already: choose another name")
        manifest = found[path.stem] = _read_file(path, str(path))
        if manifest.suite in suites:
            raise UserError(
                f"{path}: suite {manifest.suite!r} is built in, and its tasks are fixed: name another"
            )
    return dict(sorted(found.items()))


def manifest_paths(plugin: plugins.Plugin) -> list[Path]:
    """Return the manifests of a plug-in."""
    return sorted((plugin.folder / plugins.MANIFESTS).glob("*.yaml"))


def _read_file(path: Path, where: str) -> Manifest:
    manifest = read_manifest(read_text(path, SETTINGS_LIMIT, where), where)
    if manifest.name != path.stem:
        raise UserError(f"{where}: name is {manifest.name!r}, it must be {path.stem!r}")
    return manifest


@functools.cache
def read_manifest(text: str, where: str) -> Manifest:
    """Return the manifest of a YAML text.

    Args:
        where: name of the file, for error messages.

    Raises:
        UserError: the text is not valid YAML, a key is unknown, missing or mistyped, or the facts contradict
            each other.
    """
    content = parse_yaml(text, where, _LOADER)
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds no facts; a manifest consists of lines KEY: VALUE")
    manifest = typed(Manifest, content, f"{where}: ")
    own, listed = manifest.classes == 0, bool(manifest.shots)
    needed = [] if own else ["test", "val"] if listed else sorted(SPLITS)
    problems = [
        (manifest.classes >= 0, f"classes is {manifest.classes}, it must be positive"),
        (
            sorted(manifest.splits) == needed,
            f"splits must give the sizes of {', '.join(needed) or 'nothing'}",
        ),
        (min(manifest.splits.values(), default=1) > 0, "splits must be positive"),
        (manifest.resize in RESIZES, f"resize is {manifest.resize!r}; known: {', '.join(RESIZES)}"),
        (manifest.metric == "accuracy", f"metric is {manifest.metric!r}; known: accuracy"),
        (
            manifest.train_classes <= manifest.classes,
            f"train_classes is {manifest.train_classes}, it must be at most classes, {manifest.classes}",
        ),
        (
            len(set(manifest.class_names)) in (0, manifest.classes),
            f"class_names has {len(set(manifest.class_names))} different names for "
            f"{counted(manifest.classes, 'class')}",
        ),
        (listed == bool(manifest.split_seeds), "shots and split_seeds must be given together"),
    ]
    for fine, problem in problems:
        if not fine:
            raise UserError(f"{where}: {problem}")
    return manifest
