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
from petl_bench.types import SPLITS, TaskSpec

_PACKAGE = Path(__file__).parent.parent
_TOP = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent
CONF_DIR = _TOP / "conf"
"""Inside the package in an installed wheel, at the top of the repository in a checkout."""
MANIFEST_DIR = _TOP / "data_manifests"


@cache
def manifests() -> Mapping[str, TaskSpec]:
    """All data manifests by task name.

    Raises:
        UserError: a manifest has an unknown, missing or mistyped key.
    """
    tasks = {}
    for path in sorted(MANIFEST_DIR.glob("*.yaml")):
        try:
            task = TaskSpec(**conform(TaskSpec, OmegaConf.load(path), path.name))
        except yaml.YAMLError as error:
            raise UserError(f"{path.name}: not valid YAML: {' '.join(str(error).split())}") from error
        if task.name != path.stem:
            raise UserError(f"{path.name}: name is {task.name!r}, it must be {path.stem!r}")
        if sorted(task.splits) != sorted(SPLITS) or min(task.splits.values()) < 1:
            raise UserError(f"{path.name}: splits must give the sizes of {', '.join(SPLITS)}")
        tasks[path.stem] = task
    return tasks


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
