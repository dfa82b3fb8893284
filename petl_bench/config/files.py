"""The files of conf/ and data_manifests/: where they are and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from petl_bench.config.schema import conform, container
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types import RESIZES, SPLITS, AdapterSpec, ListFacts, Manifest

_PACKAGE = Path(__file__).parent.parent
_TOP = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent
CONF_DIR = _TOP / "conf"
"""Inside the package in an installed wheel, at the top of the repository in a checkout."""
MANIFEST_DIR = _TOP / "data_manifests"


@cache
def manifests() -> Mapping[str, Manifest]:
    """All data manifests by task name, in the order of their suites' tables.

    Raises:
        UserError: a manifest has an unknown, missing or mistyped key, or facts that cannot be.
    """
    found = {}
    for path in sorted(MANIFEST_DIR.glob("*.yaml")):
        try:
            manifest = read_manifest(path.read_text(encoding="utf-8"), path.name)
        except yaml.YAMLError as error:
            raise UserError(f"{path.name}: not valid YAML: {' '.join(str(error).split())}") from error
        if manifest.name != path.stem:
            raise UserError(f"{path.name}: name is {manifest.name!r}, it must be {path.stem!r}")
        found[path.stem] = manifest
    return found


def read_manifest(text: str, where: str) -> Manifest:
    """One manifest from its YAML text.

    Raises:
        UserError: a key is unknown, missing or mistyped, or the facts contradict each other.
        yaml.YAMLError: the text is no YAML.
    """
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds no facts; a manifest is lines of KEY: VALUE")
    values = conform(Manifest, OmegaConf.create(content), where)
    values["lists"] = {name: ListFacts(**facts) for name, facts in values["lists"].items()}
    manifest = Manifest(**values)
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
        (manifest.train_classes <= manifest.classes, "train_classes are more than classes"),
        (listed == bool(manifest.split_seeds), "shots and split_seeds go together"),
    ]
    for fine, problem in problems:
        if not fine:
            raise UserError(f"{where}: {problem}")
    return manifest


def options(group: str) -> list[str]:
    """Names of one config group, for example `adapter`."""
    if group == "task":
        return sorted(manifests())
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def description(group: str, name: str) -> str:
    """The comment at the head of conf/GROUP/NAME.yaml: one sentence on what it is."""
    lines = (CONF_DIR / group / f"{name}.yaml").read_text().splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line]
    return comments[0] if comments else ""


def group_config(group: str, name: str) -> dict[str, Any]:
    """The content of conf/GROUP/NAME.yaml, uncomposed."""
    if name not in options(group):
        raise UserError(f"unknown {group} {name!r}: {did_you_mean(name, options(group))}")
    return container(OmegaConf.load(CONF_DIR / group / f"{name}.yaml"))


def default(key: str) -> Any:
    """What conf/config.yaml says of a key."""
    return container(OmegaConf.load(CONF_DIR / "config.yaml"))[key]


def changed(adapter: AdapterSpec) -> dict[str, Any]:
    """The settings of an adapter that are not the defaults of its method."""
    defaults = _defaults(adapter.name)
    return {key: value for key, value in adapter.settings.items() if value != defaults.get(key)}


def completed(adapter: str, settings: Mapping[str, Any]) -> AdapterSpec:
    """An adapter with the defaults of its method where `settings` does not say otherwise.

    Raises:
        UserError: unknown adapter.
    """
    return AdapterSpec(adapter, {**_defaults(adapter), **settings})


@cache
def _defaults(adapter: str) -> dict[str, Any]:
    content = group_config("adapter", adapter)
    return {key: value for key, value in content.items() if key not in ("name", "unused")}


def changed_text(adapter: AdapterSpec) -> str:
    """The same as a line of overrides: `dropout=0.2 share=0`."""
    return " ".join(f"{key}={value}" for key, value in sorted(changed(adapter).items()))
