"""Expansion of overrides in Hydra's grammar into a plan of validated runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from petl_bench.config import grids, presets
from petl_bench.config.compose import (
    composed_sweep,
    configuration,
    default_options,
    flat_keys,
    is_free,
    value_of,
)
from petl_bench.config.files import (
    CONF_DIR,
    check_files,
    groups,
    let_hydra_see_plugins,
    options,
    place_of,
    store_declared,
    unknown_option,
)
from petl_bench.config.keys import store_settings, suggested
from petl_bench.config.origins import CHOOSING, Origins
from petl_bench.config.overrides import parse, values_of
from petl_bench.config.recipes import recipe_of_suite
from petl_bench.config.schema import first_paragraph
from petl_bench.config.specs import run_spec
from petl_bench.data import manifests
from petl_bench.errors import UserError
from petl_bench.types import (
    LAUNCHERS,
    Cache,
    DataSettings,
    LauncherSettings,
    Origin,
    RunSpec,
    typed,
)

FACTS = ("name", "quantized")
"""Keys of a group's files that are no settings."""


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
    by_file: list[str]
    """Settings that the file of the sweep states, as `key=value` or `key=a,b`; none where overrides change
    the runs."""
    file: str
    """The file of the sweep, for messages."""


def plan(overrides: Sequence[str]) -> Plan:
    """Expand overrides in Hydra's grammar into validated runs.

    Overrides replace the axes of the chosen sweep, by default `sweep=default`. Runs that differ only in
    settings that their method does not use are one run.

    Raises:
        UserError: an override cannot be read, names an unknown key or option, or has a bad value.
    """
    store_declared()
    store_settings()
    check_files()
    let_hydra_see_plugins()
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        try:
            return _expand(list(overrides))
        except OverrideParseException as error:
            raise UserError(_unreadable(error)) from error
        except UserError:
            raise
        except Exception as error:
            check_files(errors=True)  # a file of conf/ that was edited
            if not isinstance(error, HydraException | OmegaConfBaseException):
                raise
            raise UserError(first_paragraph(error)) from error


def _expand(overrides: list[str]) -> Plan:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = _parsed(parser, overrides)
    _check_options({key: values_of(parsed[key]) for key in groups() & parsed.keys()})
    if "sweep" not in parsed and _other_suite(parsed):
        parsed["sweep"] = parser.parse_override("sweep=none")
    default, axes = composed_sweep(
        *(o.input_line or "" for o in parsed.values() if o.get_key_element() == "sweep")
    )
    sweep = _lines("sweep", parsed, [f"sweep={default_options()['sweep']}"])[0].partition("=")[2]
    adapters = [line.partition("=")[2] for line in _lines("adapter", parsed, [])]
    file = place_of("sweep", sweep)
    parts = _parts(parser, parsed, axes, grids.of_sweep(sweep, adapters, axes), file)
    grids.check_shared(parts)
    _check_keys({*parsed}.union(*parts), default)
    origins_of = [Origins(parsed, part, sweep) for part in parts]
    for line in {line for part in parts for line in part.get(presets.GROUP, [])}:
        presets.check(line.partition("=")[2], {*groups(), *flat_keys(default)} - {"sweep", "task", "adapter"})
    runs: dict[RunSpec, tuple[list[str], Origin]] = {}
    config: dict[str, Any] = {}
    overrides_of_suite, lines_of = cache(_of_suite), cache(presets.lines_of)  # they look for files
    for number, lines in grids.combinations(parts, [key for key in axes if key not in parsed]):
        origins, combination = origins_of[number], list(lines.values())
        preset = lines.pop(presets.GROUP, "").partition("=")[2] or presets.RELEASED
        task, adapter = (
            value_of(lines[group]) if group in lines else default[group]["name"]
            for group in ("task", "adapter")
        )
        chosen_together = {
            key: line for key, line in lines_of(preset, adapter).items() if key not in origins.by_sweep
        }
        usual = {**overrides_of_suite(task, preset), **chosen_together}
        config = configuration({"task": f"task={task}", **usual, **lines})
        try:
            spec, keys = run_spec(
                config, lr_is_chosen=bool({"train", "train.lr"} & {*parts[number], *chosen_together})
            )
        except UserError as error:
            key, value = _named(str(error))
            if not origins.states(key):
                raise
            hint = "; several values are an axis, under hydra.sweeper.params" if "," in value else ""
            raise UserError(f"{file}: {error}{hint}") from error
        if spec not in runs:
            options_of = {"protocol": default_options()["protocol"], **usual, **lines}
            options_of = {group: options_of[group].rpartition("=")[2] for group in CHOOSING}
            runs[spec] = combination, origins.origin(keys, options_of)
    chosen_launcher = dict(config["launcher"])
    launcher = typed(LAUNCHERS.get(chosen_launcher.pop("name")), chosen_launcher, "launcher.")
    specs = list(runs)
    alone, found = map(list, zip(*runs.values(), strict=True))
    if launcher.elsewhere and any(spec.precision == "auto" for spec in specs):
        raise UserError(
            "precision=auto is resolved by the device of this machine, but the runs go to other machines: "
            "choose precision=bf16 or precision=fp32"
        )
    cache_of_images = typed(DataSettings, config["data"], "data.").decoded
    as_in_file = all(key in ("sweep", "seed") or key.startswith("launcher") for key in parsed)
    by_file = grids.stated(sweep, parts, parsed) if as_in_file else []
    return Plan(specs, alone, found, launcher, cache_of_images, by_file, file)


def _parsed(parser: OverridesParser, overrides: Sequence[str]) -> dict[str, Override]:
    """Return the parsed overrides by their keys.

    Raises:
        UserError: one cannot be used, or a key is given twice.
    """
    found: dict[str, Override] = {}
    for override in parse(parser, overrides):
        key = override.get_key_element()
        if key in found:
            values = (line.partition("=")[2] for o in (found[key], override) for line in values_of(o))
            several = f"write {key}={','.join(dict.fromkeys(values))}"
            advice = "choose one" if key == "sweep" or key.startswith("launcher") else several
            raise UserError(f"{key} is given twice: {advice}")
        values_of(override)  # refuses what has none
        found[key] = override
    return found


def _parts(
    parser: OverridesParser,
    parsed: Mapping[str, Override],
    axes: Mapping[str, str],
    own: Sequence[Mapping[str, str]],
    file: str,
) -> list[dict[str, list[str]]]:
    """Return the lines `key=value` of the axes of each grid.

    Args:
        parser: parser of overrides.
        parsed: overrides by key, checked.
        axes: axes of the whole sweep.
        own: axes of each grid.
        file: the file of the sweep, for messages.
    """
    try:
        parts = [_axes_of(parser, parsed, axes, grid) for grid in own]
        for part in parts:
            _check_options(part)
    except OverrideParseException as error:
        raise UserError(f"{file}: {_unreadable(error)}") from error
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return parts


def _unreadable(error: OverrideParseException) -> str:
    return (
        f"override {error.override!r} cannot be read: expected KEY=VALUE or KEY=A,B, with special characters "
        f"in quotes ({first_paragraph(error)})"
    )


def _named(message: str) -> tuple[str, str]:
    """Return the setting that an error begins with, and the value if it is a text, as in `bits='3x': ...`."""
    found = re.match(r"([\w.]+)(?:='([^']*)')?", message)
    return (found[1], found[2] or "") if found else ("", "")


def _lines(key: str, parsed: Mapping[str, Override], default: list[str]) -> list[str]:
    """Return the lines `key=value` of an override, or others where there is none."""
    return values_of(parsed[key]) if key in parsed else default


def _axes_of(
    parser: OverridesParser, parsed: Mapping[str, Override], axes: Mapping[str, str], grid: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the lines `key=value` of all axes of one grid; overrides replace axes of its sweep.

    Args:
        parser: parser of overrides.
        parsed: overrides by key.
        axes: axes of the whole sweep.
        grid: axes of the grid. Its methods are the chosen ones already.
    """
    given = {key: override for key, override in parsed.items() if not (key == "adapter" and key in grid)}
    own = [f"{key!s}={value}" for key, value in {**axes, **grid}.items() if key not in given]
    return {o.get_key_element(): values_of(o) for o in [*parse(parser, own), *given.values()]}


def _other_suite(parsed: Mapping[str, Override]) -> bool:
    """Return whether a chosen task is of another suite than those of the default sweep."""
    tasks = values_of(parsed["task"]) if "task" in parsed else []
    of_default = manifests()[default_options()["task"]].suite
    return any(manifests()[task.partition("=")[2]].suite != of_default for task in tasks)


def _of_suite(task: str, preset: str) -> dict[str, str]:
    """Return overrides for the recipe of the task's suite, and for its tuned values with a preset."""
    suite = manifests()[task].suite
    tuned = presets.tuned_of_suite(suite, preset)
    return {"train": f"train={recipe_of_suite(suite)}", "tuned": f"tuned={tuned}"}


def _check_options(lines: Mapping[str, Sequence[str]]) -> None:
    """Refuse lines `key=value` of a group, by key, that name an option which does not exist."""
    for key in groups() & lines.keys():
        for name in (line.split("=", 1)[1] for line in lines[key]):
            if name not in options(key):
                raise unknown_option(key, name)


def _check_keys(given: set[str], own: Mapping[str, Any]) -> None:
    """Refuse keys that are neither groups nor settings, and facts of data sets."""
    roots = groups()
    known = roots | set(flat_keys(own))
    if {"backbone.image_size", "backbone.options.img_size"} <= given:
        raise UserError(
            "backbone.image_size and backbone.options.img_size are one setting: give backbone.image_size"
        )
    for key in sorted(given - roots):
        root = key.split(".")[0]
        if root == "task":
            raise UserError(f"{key!r}: facts of a task stand in its manifest and cannot be overridden")
        if root in roots and key.startswith(tuple(f"{root}.{fact}" for fact in FACTS)) and root != "backbone":
            choices = " or ".join(f"{root}={name}" for name in options(root))
            raise UserError(f"{key!r} cannot be overridden: choose with {choices}")
        if is_free(key):
            continue
        if isinstance(own.get(key), dict):
            raise UserError(f"{key!r} is a group of settings: {', '.join(f'{key}.{k}' for k in own[key])}")
        if key not in known and root not in ("adapter", "backbone", "launcher", "protocol"):
            near = known if difflib.get_close_matches(key, known) else roots | own.keys()
            raise UserError(f"unknown key {key!r}: {suggested(key, near)} (`petl-bench ls keys` lists all)")
