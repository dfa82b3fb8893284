"""Overrides in Hydra's grammar -> plan of validated runs."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Sweep
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from petl_bench.config.files import CONF_DIR, group_config, manifests, options
from petl_bench.config.schema import conform, container, first_paragraph, like
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types import FLOAT_BITS, RunSpec, spec_from_dict, spec_to_dict


@dataclass(frozen=True)
class LauncherSpec:
    """How runs are spread over this machine; `auto` values are settled by the launcher."""

    name: str
    device: str = "auto"
    workers: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1:
            raise UserError(
                f"launcher.workers={self.workers} launcher.threads={self.threads}: "
                "workers must be 0 (automatic) or more, threads 1 or more"
            )


@dataclass(frozen=True)
class Plan:
    """The runs of one sweep, in order and without repetition, and how to launch them."""

    runs: list[RunSpec]
    launcher: LauncherSpec


def plan(overrides: Sequence[str]) -> Plan:
    """Expand overrides in Hydra's grammar into validated runs.

    The axes of the chosen sweep (`sweep=demo` unless named otherwise) hold, except where an override
    names the same key. Runs that differ only in settings their method has no use for are one run.

    Raises:
        UserError: an override cannot be read, names an unknown key or option, or has a bad value.
    """
    for name, task in manifests().items():
        ConfigStore.instance().store(group="task", name=name, node=dataclasses.asdict(task))
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        try:
            return _expand(list(overrides))
        except OverrideParseException as error:
            raise UserError(
                f"override {error.override!r} cannot be read: expected KEY=VALUE or KEY=A,B, with special "
                f"characters in quotes ({first_paragraph(error)})"
            ) from error
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(first_paragraph(error)) from error


def _expand(overrides: list[str]) -> Plan:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed: dict[str, Override] = {}
    for override in map(_checked, parser.parse_overrides(overrides)):
        key = override.get_key_element()
        if key in parsed:
            raise UserError(f"{key} is given twice; several values go together: {key}=1,2")
        parsed[key] = override
    groups = _check_options(parsed)
    base = _compose(
        [o.input_line or "" for o in parsed.values() if o.get_key_element() == "sweep"], hydra=True
    )
    _check_keys(parsed, base, groups)
    axes = OmegaConf.to_container(base.hydra.sweeper.params) if base.hydra.sweeper.params else {}
    assert isinstance(axes, dict)
    lines = [f"{key!s}={value}" for key, value in axes.items() if key not in parsed]
    chosen = list(map(_checked, parser.parse_overrides(lines))) + list(parsed.values())
    values = [_values(o) for o in chosen if o.get_key_element() != "seed"]
    seeds = [int(v.split("=")[1]) for o in chosen if o.get_key_element() == "seed" for v in _values(o)]
    runs: dict[str, RunSpec] = {}
    launcher = None
    for combination in itertools.product(*values):
        config = _compose(list(combination))
        launcher = LauncherSpec(**conform(LauncherSpec, config.launcher, "launcher"))
        spec = _run_spec(config)
        for seed in seeds or [spec.seed]:
            run = dataclasses.replace(spec, seed=seed)
            runs.setdefault(json.dumps(spec_to_dict(run), sort_keys=True), run)
    assert launcher is not None
    return Plan(list(runs.values()), launcher)


def _checked(override: Override) -> Override:
    """Refuse what has no meaning here: additions, deletions, random and continuous sweeps."""
    value = override.value()
    key = override.get_key_element()
    if override.is_add() or override.is_force_add() or override.is_delete():
        raise UserError(f"{override.input_line!r}: only KEY=VALUE overrides are taken, no + and no ~")
    if isinstance(value, IntervalSweep):
        raise UserError(f"{override.input_line!r}: interval() has no end of values; list them: {key}=1,2,3")
    if isinstance(value, Sweep) and getattr(value, "shuffle", False):
        raise UserError(f"{override.input_line!r}: shuffle() would reorder runs; list the values instead")
    if key == "sweep" and override.is_sweep_override():
        raise UserError(f"{override.input_line!r}: one sweep at a time")
    if key == "seed" and not all(v.split("=")[1].isdigit() for v in _values(override)):
        raise UserError(f"{override.input_line!r}: a seed is a whole number, 0 or more")
    return override


def _values(override: Override) -> list[str]:
    """`key=a,b` -> ["key=a", "key=b"]; a plain override is a sweep of one."""
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [override.input_line]
    values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if not values:
        raise UserError(f"{override.input_line!r} matches nothing")
    return values


def _check_options(parsed: Mapping[str, Override]) -> set[str]:
    """All config groups; an override of one must name options that exist."""
    groups = {path.name for path in CONF_DIR.iterdir() if path.is_dir()} | {"task"}
    for key in groups & parsed.keys():
        for name in (value.split("=", 1)[1] for value in _values(parsed[key])):
            if name not in options(key):
                raise UserError(f"unknown {key} {name!r}: {did_you_mean(name, options(key))}")
    return groups


def _check_keys(parsed: Mapping[str, Override], base: DictConfig, groups: set[str]) -> None:
    """Every key must be a group or a value of the configuration, and no fact of a data set."""
    own = container(OmegaConf.masked_copy(base, [str(key) for key in base if key != "hydra"]))
    known = groups | set(_flat_keys(own))
    for key in parsed.keys() - groups:
        root = key.split(".")[0]
        if root == "task":
            raise UserError(f"{key!r}: facts of a task stand in its manifest and cannot be overridden")
        if root in groups and key.startswith((f"{root}.name", f"{root}.unused")) and root != "backbone":
            choices = " or ".join(f"{root}={name}" for name in options(root))
            raise UserError(f"{key!r} cannot be overridden: choose with {choices}")
        if key not in known and root not in ("adapter", "backbone"):
            near = known if difflib.get_close_matches(key, known) else groups | own.keys()
            raise UserError(f"unknown key {key!r}: {did_you_mean(key, near)}")


def _compose(overrides: list[str], hydra: bool = False) -> DictConfig:
    try:
        return compose("config", overrides=overrides, return_hydra_config=hydra)
    except ConfigCompositionException as error:
        for key in (line.split("=")[0] for line in overrides if f"'{line.split('=')[0]}'" in str(error)):
            group = key.split(".")[0]
            default = next(d[group] for d in OmegaConf.load(CONF_DIR / "config.yaml").defaults if group in d)
            name = next((o.split("=")[1] for o in overrides if o.startswith(f"{group}=")), default)
            settings = set(_flat_keys(group_config(group, name))) - {"name"}
            settings = {f"{group}.{setting}" for setting in settings if not setting.startswith("unused")}
            hint = did_you_mean(key, settings) if settings else "it has none"
            raise UserError(f"{key!r} is no setting of {group}={name}: {hint}") from error
        raise


def _run_spec(config: DictConfig) -> RunSpec:
    values = container(config)
    adapter: dict[str, Any] = values["adapter"]
    name, unused = adapter.pop("name"), adapter.pop("unused", {})
    defaults = group_config("adapter", name)
    adapter = {key: like(defaults[key], value, f"adapter.{key}") for key, value in adapter.items()}
    if values["scale"] is None:
        values["scale"] = unused.get("scale") or _tuned_scale(values, name)
    if values["hidden"] < 1 and "hidden" not in unused:
        raise UserError(f"hidden={values['hidden']} is out of range: adapter={name} needs 1 or more")
    values |= unused
    if values["bits"] == FLOAT_BITS:
        values["quantizer"] = {"name": "none"}
    for group in ("quantizer", "head", "protocol"):
        values[group] = values[group]["name"]
    values["adapter"] = {"name": name, "settings": adapter}
    wanted = {f.name: values[f.name] for f in dataclasses.fields(RunSpec)}
    return spec_from_dict(conform(RunSpec, OmegaConf.create(wanted), ""))


def _tuned_scale(values: Mapping[str, Any], adapter: str) -> float:
    task = values["task"]["name"]
    scale = values["tuned"]["scales"].get(adapter, {}).get(task)
    if scale is None:
        raise UserError(
            f"conf/tuned has no scale for adapter={adapter} on task={task}: give one, for example scale=1.0"
        )
    return float(scale)


def _flat_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _flat_keys(value, f"{prefix}{key}.")
