"""Expansion of overrides in Hydra's grammar into a plan of validated runs."""

from __future__ import annotations

import copy
import difflib
import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from petl_bench.config.files import CONF_DIR, check_files, group_config, groups, options, store_declared
from petl_bench.config.keys import FREE, PLAIN, store_settings
from petl_bench.config.origins import CHOOSING, Origins
from petl_bench.config.overrides import parse, values_of
from petl_bench.config.recipes import recipe_of_suite, tuned_of_suite
from petl_bench.config.schema import container, first_paragraph
from petl_bench.config.specs import run_spec
from petl_bench.data import manifests
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types import (
    LAUNCHERS,
    Cache,
    DataSettings,
    LauncherSettings,
    Origin,
    RunSpec,
    shortened_warm_up,
    spec_to_dict,
    typed,
)

FACTS = ("name", "quantized")
"""Keys of a group's files that are no settings."""
LATE = ("task", *PLAIN)
"""Axes that are set after composing: Hydra composes once for each combination of all others."""
WHOLE = ("adapter", "backbone", "head", "launcher", "protocol", "quantizer", "tuned")
"""Groups whose options are set after composing as well, where no override changes one of their settings."""


MOST_RUNS = 100_000
"""Maximum number of combinations, beyond which an override is a mistake."""


@dataclass(frozen=True)
class Plan:
    """The runs of one sweep, in order and without repetition, and how to launch them."""

    runs: list[RunSpec]
    alone: list[list[str]]
    """Overrides that plan one run alone, for each of the runs."""
    origins: list[Origin]
    """Where the scale and the learning rate of each of the runs come from."""
    launcher: LauncherSettings
    cache: Cache


def plan(overrides: Sequence[str]) -> Plan:
    """Expand overrides in Hydra's grammar into validated runs.

    Overrides replace the axes of the chosen sweep, by default `sweep=demo`. Runs that differ only in settings
    that their method does not use are one run.

    Raises:
        UserError: an override cannot be read, names an unknown key or option, or has a bad value.
    """
    store_declared()
    store_settings()
    check_files()
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        try:
            return _expand(list(overrides))
        except OverrideParseException as error:
            raise UserError(
                f"override {error.override!r} cannot be read: expected KEY=VALUE or KEY=A,B, with special "
                f"characters in quotes ({first_paragraph(error)})"
            ) from error
        except UserError:
            raise
        except Exception as error:
            check_files(errors=True)  # a file of conf/ that was edited
            if not isinstance(error, HydraException | OmegaConfBaseException):
                raise
            raise UserError(first_paragraph(error)) from error


def _expand(overrides: list[str]) -> Plan:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed: dict[str, Override] = {}
    for override in parse(parser, overrides):
        key = override.get_key_element()
        if key in parsed:
            raise UserError(f"{key} is given twice; several values go together: {key}=1,2")
        parsed[key] = override
    _check_options(parsed)
    if "sweep" not in parsed and _own(parsed):
        parsed["sweep"] = parser.parse_override("sweep=none")
    default, axes = _sweep(*(o.input_line or "" for o in parsed.values() if o.get_key_element() == "sweep"))
    _check_keys(parsed, default)
    own = [f"{key!s}={value}" for key, value in axes.items() if key not in parsed]
    chosen = list(parse(parser, own)) + list(parsed.values())
    axes_of = {override.get_key_element(): values_of(override) for override in chosen}
    combinations = math.prod(map(len, axes_of.values()))
    if combinations > MOST_RUNS:
        raise UserError(f"the settings span {combinations:,} runs, more than the {MOST_RUNS:,} of one sweep")
    sweep = values_of(parsed["sweep"])[0].partition("=")[2] if "sweep" in parsed else _default("sweep")
    origins = Origins(parsed, axes_of, sweep)
    runs: dict[str, tuple[RunSpec, list[str], Origin]] = {}
    config: dict[str, Any] = {}
    for combination in itertools.product(*axes_of.values()):
        lines = dict(zip(axes_of, combination, strict=True))
        config = _config(lines, default["task"]["name"])
        spec, keys = run_spec(config, lr_is_chosen=bool({"train", "train.lr"} & set(axes_of)))
        key = json.dumps(spec_to_dict(spec), sort_keys=True)
        if key not in runs:
            options_of = {"protocol": _default("protocol"), **_of_suite(config["task"]), **lines}
            options_of = {group: options_of[group].rpartition("=")[2] for group in CHOOSING}
            runs[key] = spec, list(combination), origins.origin(keys, options_of)
    chosen_launcher = dict(config["launcher"])
    launcher = typed(LAUNCHERS[chosen_launcher.pop("name")], chosen_launcher, "launcher.")
    specs, alone, found = map(list, zip(*runs.values(), strict=True))
    if launcher.elsewhere and any(spec.precision == "auto" for spec in specs):
        raise UserError(
            "precision=auto is resolved by the device of this machine, but the runs go to other machines: "
            "choose precision=bf16 or precision=fp32"
        )
    return Plan(specs, alone, found, launcher, typed(DataSettings, config["data"], "data.").decoded)


def _own(parsed: Mapping[str, Override]) -> bool:
    """Return whether a task of the plan is the user's own data, for which the default sweep is not meant."""
    tasks = values_of(parsed["task"]) if "task" in parsed else []
    return any(manifests()[task.partition("=")[2]].suite == "own" for task in tasks)


@functools.cache
def _sweep(*choice: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the configuration before any override but `sweep=NAME`, and the axes of that sweep."""
    composed = _compose(list(choice), hydra=True)
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    return container(own), dict(composed.hydra.sweeper.params or {})


def _config(lines: Mapping[str, str], default_task: str) -> dict[str, Any]:
    """Return the configuration of one combination: its overrides by key, as `key=value`."""
    late = {key: _value(line) for key, line in lines.items() if key in LATE}
    late.setdefault("task", default_task)
    chosen = {**_of_suite(late["task"]), **lines}
    whole = {group for group in WHOLE if not any(key.startswith(f"{group}.") for key in lines)}
    early = (line for key, line in chosen.items() if key not in LATE and key not in whole)
    options_of = {key: _option(key, _value(line)) for key, line in chosen.items() if key in whole}
    return _composed(tuple(early)) | options_of | late


@functools.cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return a composed configuration. A recipe with fewer epochs has a shorter warm-up."""
    config, given = _overridden(overrides), {line.partition("=")[0] for line in overrides}
    if "train.epochs" in given and "train.warmup_epochs" not in given:
        whole = _composed(tuple(line for line in overrides if not line.startswith("train.")))["train"]
        config["train"] |= {
            name: value
            for name, value in shortened_warm_up(whole, config["train"]["epochs"]).items()
            if f"train.{name}" not in given
        }
    return config


def _overridden(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return a composed configuration. Settings that it has are changed in it: composing takes far longer."""
    plain = {line.partition("=")[0]: _value(line) for line in overrides if _is_plain(line)}
    config = copy.deepcopy(_base(tuple(line for line in overrides if line.partition("=")[0] not in plain)))
    for key, value in plain.items():
        *path, last = key.split(".")
        part: Any = config
        for name in path:
            part = part.get(name) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part or isinstance(part[last], dict):
            return _base(overrides)  # Hydra says what is wrong
        part[last] = value
    return config


@functools.cache
def _base(overrides: tuple[str, ...]) -> dict[str, Any]:
    return container(_compose(list(overrides)))


def _is_plain(line: str) -> bool:
    """Return whether an override gives a setting a number, a word, or a list of numbers."""
    key, value = line.partition("=")[0], _value(line)
    kinds = bool | int | float | None
    numbers = isinstance(value, list) and all(isinstance(item, kinds) for item in value)
    word = isinstance(value, str) and value.replace("_", "a").isalnum()
    return key not in groups() and not _is_free(key) and (numbers or word or isinstance(value, kinds))


@functools.cache
def _option(group: str, name: str) -> dict[str, Any]:
    return group_config(group, name)


@functools.cache
def _value(line: str) -> Any:
    """Return the typed value of `key=value`."""
    value = OverridesParser.create().parse_override(line).value()
    return value.text if isinstance(value, QuotedString) else value


def _of_suite(task: str) -> dict[str, str]:
    """Return overrides for the recipe and the tuned values of the task's suite."""
    suite = manifests()[task].suite
    return {"train": f"train={recipe_of_suite(suite)}", "tuned": f"tuned={tuned_of_suite(suite)}"}


def _check_options(parsed: Mapping[str, Override]) -> None:
    """Refuse overrides of a group that name an option which does not exist."""
    for key in groups() & parsed.keys():
        for name in (value.split("=", 1)[1] for value in values_of(parsed[key])):
            if name not in options(key):
                raise UserError(f"unknown {key} {name!r}: {did_you_mean(name, options(key))}")


def _check_keys(parsed: Mapping[str, Override], own: Mapping[str, Any]) -> None:
    """Refuse keys that are neither groups nor settings, and facts of data sets."""
    roots = groups()
    known = roots | set(_flat_keys(own))
    if {"backbone.image_size", "backbone.options.img_size"} <= parsed.keys():
        raise UserError(
            "backbone.image_size and backbone.options.img_size are one setting: give backbone.image_size"
        )
    for key in parsed.keys() - roots:
        root = key.split(".")[0]
        if root == "task":
            raise UserError(f"{key!r}: facts of a task stand in its manifest and cannot be overridden")
        if root in roots and key.startswith(tuple(f"{root}.{fact}" for fact in FACTS)) and root != "backbone":
            choices = " or ".join(f"{root}={name}" for name in options(root))
            raise UserError(f"{key!r} cannot be overridden: choose with {choices}")
        if _is_free(key):
            continue
        if isinstance(own.get(key), dict):
            raise UserError(f"{key!r} is a group of settings: {', '.join(f'{key}.{k}' for k in own[key])}")
        if key not in known and root not in ("adapter", "backbone", "launcher", "protocol"):
            near = known if difflib.get_close_matches(key, known) else roots | own.keys()
            raise UserError(f"unknown key {key!r}: {did_you_mean(key, near)}")


def _is_free(key: str) -> bool:
    """Return whether a key is a dictionary of any keys, or stands in one."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _compose(overrides: list[str], hydra: bool = False) -> DictConfig:
    # Hydra adds keys that a configuration lacks only after ++.
    lines = [f"++{line}" if _is_free(line.split("=")[0]) else line for line in overrides]
    try:
        return compose("config", overrides=lines, return_hydra_config=hydra)
    except ConfigCompositionException as error:
        for key in (line.split("=")[0] for line in overrides if f"'{line.split('=')[0]}'" in str(error)):
            group = key.split(".")[0]
            chosen = (o.split("=")[1] for o in overrides if o.startswith(f"{group}="))
            name = next(chosen, None) or _default(group)
            settings = {f"{group}.{key}" for key in _flat_keys(group_config(group, name)) if key != "name"}
            owners = [n for n in options(group) if key.removeprefix(f"{group}.") in group_config(group, n)]
            hint = did_you_mean(key, settings) if settings else "it has none"
            if owners and name not in owners:
                hint = f"it is one of {' and '.join(f'{group}={owner}' for owner in owners)}"
            raise UserError(f"{key!r} is no setting of {group}={name}: {hint}") from error
        raise


@functools.cache
def _default(group: str) -> str:
    """Return the default option of a group, as conf/config.yaml states it."""
    entries = OmegaConf.load(CONF_DIR / "config.yaml").defaults
    return next(str(entry[group]) for entry in entries if not isinstance(entry, str) and group in entry)


def _flat_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _flat_keys(value, f"{prefix}{key}.")
