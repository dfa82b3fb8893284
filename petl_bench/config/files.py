"""The files of conf/: where they are and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from petl_bench.config.schema import container
from petl_bench.data import manifests
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types import AdapterSpec

_PACKAGE = Path(__file__).parent.parent
_TOP = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent
CONF_DIR = _TOP / "conf"
"""Inside the package in an installed wheel, at the top of the repository in a checkout."""


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
