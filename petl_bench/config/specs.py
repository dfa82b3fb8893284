"""A composed configuration -> the validated spec of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from petl_bench.config.files import group_config
from petl_bench.config.schema import conform, like
from petl_bench.config.tasks import plan_task
from petl_bench.errors import UserError
from petl_bench.types import (
    FLOAT_BITS,
    PACKINGS,
    STATISTICS,
    AdapterSpec,
    AugmentSpec,
    AverageSpec,
    BackboneSpec,
    ProtocolSpec,
    RunSpec,
    TrainSpec,
)


def run_spec(config: Mapping[str, Any], lr_is_chosen: bool) -> RunSpec:
    """The run of a configuration whose `task` is a name.

    Args:
        lr_is_chosen: whether `train.lr` counts even where conf/tuned has a learning rate.

    Raises:
        UserError: a value has a wrong type or range, or there is no scale to take.
    """
    values = dict(config)
    hidden, bits, seed, shots, split_seed = _whole(values, "hidden", "bits", "seed", "shots", "split_seed")
    task = plan_task(values["task"], values["data"], shots, split_seed)
    parts = _parts(json.dumps({name: values[name] for name in ("adapter", "backbone", "protocol", "train")}))
    unused, protocol = parts.unused, parts.protocol
    if hidden < 1 and "hidden" not in unused:
        raise UserError(f"hidden={hidden} is out of range: adapter={parts.adapter.name} needs 1 or more")
    scale = unused.get("scale", _number(values, "scale"))
    train = parts.train
    if protocol.name != "sealed":
        about = {"adapter": parts.adapter.name, "head": values["head"]["name"], "hidden": hidden}
        if scale is None and (scale := _tuned(values, "scales", about, task.name)) is None:
            said = " ".join(f"{key}={value}" for key, value in about.items())
            raise UserError(
                f"conf/tuned has no scale for {said} task={task.name}: give one, for example scale=1.0, "
                "or let it be chosen on val: protocol=sealed"
            )
        if not lr_is_chosen and (lr := _tuned(values, "lrs", about, task.name)) is not None:
            train = replace(train, lr=lr)
    if scale is None and len(protocol.scales) == 1:
        scale = protocol.scales[0]
    if scale is not None:
        protocol = replace(protocol, scales=[])
    bits = unused.get("bits", bits)
    codes = bits != FLOAT_BITS or values["head"]["quantized"]
    return RunSpec(
        task=task,
        backbone=parts.backbone,
        adapter=parts.adapter,
        hidden=unused.get("hidden", hidden),
        scale=scale,
        quantizer="none" if bits == FLOAT_BITS else values["quantizer"]["name"],
        bits=bits,
        head=values["head"]["name"],
        protocol=protocol,
        precision=str(values["precision"]),
        seed=seed,
        train=train,
        rate_weight=0.0 if bits == FLOAT_BITS else _number(values, "rate_weight") or 0.0,
        packing=str(values["packing"]) if codes else PACKINGS[0],
        statistics=str(values["statistics"]) if codes else STATISTICS[0],
    )


@dataclass(frozen=True)
class _Parts:
    adapter: AdapterSpec
    backbone: BackboneSpec
    protocol: ProtocolSpec
    train: TrainSpec
    unused: dict[str, Any]


@cache
def _parts(groups: str) -> _Parts:
    """The typed parts of a configuration, given as JSON, so that a plan of many runs types each once."""
    values = json.loads(groups)
    adapter = values["adapter"]
    name, unused = adapter.pop("name"), adapter.pop("unused", {})
    defaults = group_config("adapter", name)
    settings = {key: like(defaults[key], value, f"adapter.{key}") for key, value in adapter.items()}
    backbone = BackboneSpec(**conform(BackboneSpec, values["backbone"], "backbone"))
    train = conform(TrainSpec, values["train"], "train")
    protocol = conform(ProtocolSpec, values["protocol"], "protocol")
    for grid in ("scales", "lrs", "rungs"):
        protocol[grid] = sorted(set(protocol[grid]))
    if protocol["rungs"] == [1.0]:
        protocol["rungs"] = []  # the full search
    if len(protocol["lrs"]) == 1 and protocol["lrs"][0] > 0:
        # Nothing to choose: the same run as with this rate given.
        train["lr"], protocol["lrs"] = protocol["lrs"][0], []
    average = AverageSpec(**train["average"])
    if not average.checkpoints:
        average = AverageSpec()
    if train["normalization"] == "backbone":
        train["normalization"] = backbone.normalization
    return _Parts(
        AdapterSpec(name, settings),
        backbone,
        ProtocolSpec(**protocol),
        TrainSpec(**train | {"augment": AugmentSpec(**train["augment"]), "average": average}),
        unused,
    )


def _whole(values: Mapping[str, Any], *keys: str) -> list[int]:
    for key in keys:
        if isinstance(values[key], bool) or not isinstance(values[key], int):
            raise UserError(f"{key}={values[key]}: expected a whole number")
    return [values[key] for key in keys]


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values[key]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key}={value}: expected a number, or null")
    return float(value)


def _tuned(values: Mapping[str, Any], what: str, about: Mapping[str, Any], task: str) -> float | None:
    """The scale or learning rate of the first table of conf/tuned that fits the run and has one.

    Args:
        what: `scales` or `lrs`.
        about: what a table may say that it is for.
    """
    try:
        for table in values["tuned"]["tables"]:
            fits = all(table.get(key, value) == value for key, value in about.items())
            if fits and task in (found := table.get(what, {})):
                return float(found[task])
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise UserError(
            "tuned.tables: expected a list of {adapter: NAME, scales: {TASK: 1.0}, lrs: {TASK: 0.001}}"
        ) from error
    return None
