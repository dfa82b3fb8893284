"""From a run back to its overrides: the inverse of `plan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from petl_bench.config import presets
from petl_bench.config.files import group_config, options
from petl_bench.config.keys import FEW_SHOT, PLAIN
from petl_bench.config.overrides import literal
from petl_bench.config.plan import plan
from petl_bench.config.recipes import flat, nearest_recipe, recipe, recipe_of_suite
from petl_bench.config.tuned import tuned_value
from petl_bench.errors import UserError
from petl_bench.types import (
    BackboneSpec,
    ProtocolSpec,
    RunSpec,
    declarations,
    identity_of,
    methods,
    spec_to_dict,
)

ANY_BACKBONE = "timm"
"""File of conf/backbone whose architecture and weights are chosen by settings."""


def overrides_of(spec: RunSpec) -> list[str]:
    """Return overrides that plan a run, as `petl-bench sweep` takes them.

    Settings that follow from the others are left out, such as a scale of conf/tuned, and a preset is named
    where this makes them fewer. If files of conf/ were changed so that this does not plan the run, all
    settings are stated.

    Args:
        spec: the run, as a store holds it. Relative paths of data and weights stay relative.
    """
    names = sorted(options(presets.GROUP), key=lambda name: name != presets.RELEASED)
    short = min((_lines(spec, whole=False, preset=name) for name in names), key=len)
    return short if not differences(short, spec) else _lines(spec, whole=True)


def differences(overrides: list[str], spec: RunSpec) -> list[str]:
    """Return the keys of a run's identity in which overrides plan another run; empty if they plan this one.

    The data are taken as they were found for the run.
    """
    try:
        (found,) = plan(overrides).runs
    except (UserError, ValueError) as error:
        return [str(error)]
    task = replace(found.task, place=spec.task.place)
    if not task.fingerprint:  # data that are found where `place` says
        facts = {name: getattr(spec.task, name) for name in ("splits", "classes", "fingerprint")}
        task = replace(task, **facts, name=spec.task.name if task.suite == "own" else task.name)
    held = [dict(flat(identity_of(RunSpec, spec_to_dict(run)))) for run in (replace(found, task=task), spec)]
    return [key for key in held[0] | held[1] if held[0].get(key, _ABSENT) != held[1].get(key, _ABSENT)]


_ABSENT = object()


def _lines(spec: RunSpec, whole: bool, preset: str = presets.RELEASED) -> list[str]:
    """Return overrides that plan a run.

    Args:
        whole: whether to state all settings, not only those that the chosen files leave to be stated.
        preset: name of the preset to use.
    """
    chosen = presets.values_of(preset, spec.adapter.name)
    task, method = spec.task, methods().get(spec.adapter.name)
    unused = method.unused if method else {}
    base, tuned = _backbone(spec.backbone), partial(_tuned, spec, preset)
    train, differing = nearest_recipe(spec)
    found: dict[str, Any] = {"sweep": "none"}
    found |= {presets.GROUP: preset} if preset != presets.RELEASED else {}
    found["task"] = task.source if task.suite == "own" else task.name
    found |= {
        "backbone": base,
        **dict(_of_backbone(spec.backbone, base, whole)),
        "adapter": spec.adapter.name,
    }
    defaults = method.defaults if method else {}
    found |= {
        f"adapter.{key}": value
        for key, value in spec.adapter.settings.items()
        if whole or chosen.get(f"adapter.{key}", defaults.get(key, _ABSENT)) != value
    }
    for name, known in declarations(type(spec)).items():
        value = getattr(spec, name)
        given = whole or value != chosen.get(name, known.default) or name in ("hidden", "bits", "seed")
        exists = name in PLAIN or value in options(name)  # codebook `none` is no option
        if given and exists and name not in unused and name != "scale":
            found[name] = value
    found |= {"protocol": spec.protocol.name, **dict(_of_protocol(spec))}
    if "scale" not in unused and spec.scale is not None and (whole or spec.scale != tuned("scales")):
        found["scale"] = spec.scale
    found |= _of_train(spec, train, differing, whole, tuned("lrs"))
    found |= {name: getattr(task, name) for name in FEW_SHOT if getattr(task, name)}
    found |= {"data.images": task.drawn} if task.drawn else {}
    found |= {f"data.{key}": task.place[key] for key in ("root", "override") if key in task.place}
    return [f"{key}={literal(value)}" for key, value in found.items()]


def _backbone(spec: BackboneSpec) -> str:
    """Return the file of conf/backbone that a run's backbone is planned from."""
    if spec.label not in options("backbone"):
        return ANY_BACKBONE
    given = group_config("backbone", spec.label).get("options", {})
    return spec.label if given.keys() <= spec.options.keys() else ANY_BACKBONE


def _of_backbone(spec: BackboneSpec, base: str, whole: bool) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a backbone in which it differs from a file of conf/backbone."""
    held = group_config("backbone", base)
    for key in ("name", "label", "weights", "image_size"):
        if whole or getattr(spec, key) != held.get(key, ""):
            yield f"backbone.{key}", getattr(spec, key)
    if whole and "normalization" in held:
        yield "backbone.normalization", spec.normalization
    for key, value in spec.options.items():
        if whole or held.get("options", {}).get(key, _ABSENT) != value:
            yield f"backbone.options.{key}", value


def _of_protocol(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a protocol in which it differs from its file."""
    held = {**asdict(ProtocolSpec("fixed")), **group_config("protocol", spec.protocol.name)}
    for key, value in flat(asdict(spec.protocol)):
        given = held[key] if not isinstance(held[key], list | tuple) else sorted(held[key])
        if key != "name" and value != given and not (key == "scales" and spec.scale is not None):
            yield f"protocol.{key}", value


def _of_train(
    spec: RunSpec, name: str, differing: Mapping[str, Any], whole: bool, tuned_rate: float | None
) -> dict[str, Any]:
    """Return the recipe, if it is not that of the suite, and the settings in which a run differs from it."""
    usual = name == recipe_of_suite(spec.task.suite)
    found: dict[str, Any] = {} if usual else {"train": name}
    if whole:
        return found | {f"train.{key}": value for key, value in flat(asdict(spec.train))}
    # A warm-up that is given keeps the lag of the file.
    if "warmup_epochs" in differing and recipe(name)["schedule_lag"] != spec.train.schedule_lag:
        differing = {**differing, "schedule_lag": spec.train.schedule_lag}
    found |= {f"train.{key}": value for key, value in differing.items()}
    # A rate of conf/tuned counts where neither a recipe nor a rate is chosen.
    tuned_rate = tuned_rate if usual else None
    if tuned_rate == spec.train.lr:
        found.pop("train.lr", None)
    elif tuned_rate is not None:
        found["train.lr"] = spec.train.lr
    return found


def _tuned(spec: RunSpec, preset: str, what: str) -> float | None:
    """Return the value that conf/tuned has for a run with a preset; None if it has none."""
    if spec.protocol.name == "sealed" or spec.adapter.name not in methods():
        return None
    return tuned_value(spec, what, presets.tuned_of_suite(spec.task.suite, preset))
