"""Composition of configurations by Hydra. Composing is slow, so most are derived from a few composed ones."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from petl_bench import plugins
from petl_bench.config.files import CONF_DIR, group_config, groups, options
from petl_bench.config.keys import FREE, PLAIN
from petl_bench.config.recipes import recipe
from petl_bench.config.schema import container
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types import shortened_warm_up

LATE = ("task", *PLAIN)
"""Axes that are set after composing: Hydra composes once for each combination of all others."""
GRIDS = "grids"
"""Key of a sweep's file that is no part of the configuration: a list of grids (config/grids.py)."""
WHOLE = ("adapter", "backbone", "head", "launcher", "protocol", "quantizer", "tuned")
"""Groups whose options are set after composing as well, where nothing changes one of their settings."""


@plugins.cached
def composed_sweep(*choice: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the configuration before any override but `sweep=NAME`, and the axes of that sweep."""
    composed = _compose(list(choice), hydra=True)
    return _without(composed, "hydra", GRIDS), dict(composed.hydra.sweeper.params or {})


def configuration(lines: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration of one combination: its overrides by key, as `key=value`."""
    late = {key: value_of(line) for key, line in lines.items() if key in LATE}
    whole = _whole(lines)
    early = (line for key, line in lines.items() if key not in LATE and key not in whole)
    options_of = {group: _option(group, value_of(lines[group])) for group in whole}
    return _composed(tuple(early)) | options_of | late


def _whole(lines: Mapping[str, str]) -> set[str]:
    """Return the chosen groups whose options can be set after composing."""
    by_sweep = group_config("sweep", value_of(lines["sweep"])) if "sweep" in lines else {}
    return {
        group
        for group in WHOLE
        if group in lines and group not in by_sweep and not any(key.startswith(f"{group}.") for key in lines)
    }


@plugins.cached
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return a composed configuration. A recipe with fewer epochs has a shorter warm-up."""
    config, given = _overridden(overrides), {line.partition("=")[0]: line for line in overrides}
    if "train.warmup_epochs" in given:
        return config
    options_of = {group: value_of(given[group]) for group in ("sweep", "train") if group in given}
    chosen, stated = default_options() | options_of, {*given}
    by_sweep = group_config("sweep", chosen["sweep"]).get("train") or {}
    if "train.epochs" in given:
        whole = _composed(tuple(line for line in overrides if not line.startswith("train.")))["train"]
    elif "epochs" in by_sweep and "warmup_epochs" not in by_sweep:
        whole = recipe(chosen["train"])
        stated |= {f"train.{name}" for name in by_sweep}
    else:
        return config
    warm_up = shortened_warm_up(whole, config["train"].get("epochs"))
    config["train"] |= {name: value for name, value in warm_up.items() if f"train.{name}" not in stated}
    return config


def _overridden(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return a composed configuration. Settings that it has are changed in it: composing takes far longer."""
    plain = {line.partition("=")[0]: value_of(line) for line in overrides if _is_plain(line)}
    rest = {key: line for line in overrides if (key := line.partition("=")[0]) not in plain}
    whole = _whole(rest)
    config = _base(tuple(line for key, line in rest.items() if key not in whole))
    config = copy.deepcopy(config | {group: _option(group, value_of(rest[group])) for group in whole})
    for key, value in plain.items():
        *path, last = key.split(".")
        part: Any = config
        for name in path:
            part = part.get(name) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part or isinstance(part[last], dict):
            return _base(overrides)  # Hydra says what is wrong
        part[last] = value
    return config


SPECIAL = {"$", "?", "\\"}
"""Characters of a text that may mean something to OmegaConf: a reference, a missing value, an escape."""


@plugins.cached
def _base(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return a configuration that Hydra composes; that of the chosen sweep is composed already."""
    lines = [line for line in overrides if line not in _default_choices()]
    if all(line.startswith("sweep=") for line in lines):
        return composed_sweep(*lines)[0]
    return _without(_compose(lines), GRIDS)


def _without(composed: DictConfig, *left_out: str) -> dict[str, Any]:
    return container(OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in left_out]))


def _is_plain(line: str) -> bool:
    """Return whether an override gives a setting a number, a text, or a list of numbers."""
    key, value = line.partition("=")[0], value_of(line)
    kinds = bool | int | float | None
    numbers = isinstance(value, list) and all(isinstance(item, kinds) for item in value)
    text = isinstance(value, str) and not SPECIAL & {*value}
    return key not in groups() and not is_free(key) and (numbers or text or isinstance(value, kinds))


@plugins.cached
def _option(group: str, name: str) -> dict[str, Any]:
    return group_config(group, name)


@functools.cache
def value_of(line: str) -> Any:
    """Return the typed value of `key=value`."""
    value = OverridesParser.create().parse_override(line).value()
    return value.text if isinstance(value, QuotedString) else value


def is_free(key: str) -> bool:
    """Return whether a key is a dictionary of any keys, or stands in one."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _compose(overrides: list[str], hydra: bool = False) -> DictConfig:
    # Hydra adds keys that a configuration lacks only after ++.
    lines = [f"++{line}" if is_free(line.split("=")[0]) else line for line in overrides]
    try:
        return compose("config", overrides=lines, return_hydra_config=hydra)
    except ConfigCompositionException as error:
        for key in (line.split("=")[0] for line in overrides if f"'{line.split('=')[0]}'" in str(error)):
            group = key.split(".")[0]
            chosen = (o.split("=")[1] for o in overrides if o.startswith(f"{group}="))
            name = next(chosen, None) or default_options()[group]
            settings = {f"{group}.{key}" for key in flat_keys(group_config(group, name)) if key != "name"}
            owners = [n for n in options(group) if key.removeprefix(f"{group}.") in group_config(group, n)]
            hint = did_you_mean(key, settings) if settings else "it has none"
            if owners and name not in owners:
                hint = f"it is one of {' and '.join(f'{group}={owner}' for owner in owners)}"
            raise UserError(f"{key!r} is no setting of {group}={name}: {hint}") from error
        raise


@functools.cache
def default_options() -> dict[str, str]:
    """Return the default option of each group, as conf/config.yaml states it."""
    entries = OmegaConf.load(CONF_DIR / "config.yaml").defaults
    return {
        str(group): str(name)
        for entry in entries
        if not isinstance(entry, str)
        for group, name in entry.items()
    }


def _default_choices() -> set[str]:
    """Return the overrides that choose what is chosen anyway, without that of the sweep."""
    return {f"{group}={name}" for group, name in default_options().items() if group != "sweep"}


def flat_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of nested settings, such as `train.lr`, those of groups as well."""
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{key}.")
