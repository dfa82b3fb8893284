"""Conversion of a composed configuration to the validated spec of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass, replace
from typing import Any, get_type_hints

from petl_bench import plugins
from petl_bench.config.files import group_config
from petl_bench.config.keys import FEW_SHOT, PLAIN
from petl_bench.config.origins import LEARNED, METHOD, SEARCH
from petl_bench.config.schema import like
from petl_bench.config.tasks import plan_task
from petl_bench.config.tuned import TABLES, facts_of, tuned, tuned_scale
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types import (
    COMPRESSIONS,
    CONTAINERS,
    FLOAT_BITS,
    NOT_COMPRESSED,
    AdapterSpec,
    AverageSpec,
    BackboneSpec,
    DataSettings,
    Origin,
    ProtocolSpec,
    RunSettings,
    RunSpec,
    TaskSpec,
    TrainSpec,
    check_range,
    declarations,
    method,
    require,
    typed,
)


def run_spec(config: Mapping[str, Any], lr_is_chosen: bool) -> tuple[RunSpec, Origin]:
    """Return the run of a configuration whose `task` is a name, and the keys that decided scale and lr.

    Args:
        lr_is_chosen: whether `train.lr` counts even where conf/tuned has a learning rate.

    Raises:
        UserError: a value has a wrong type or range, or there is no scale to take.
    """
    chosen = typed(_Plain, {name: config[name] for name in PLAIN}, "")
    for name in FEW_SHOT:
        check_range(PLAIN[name], getattr(chosen, name), name)
    parts = _parts(json.dumps({name: config[name] for name in ("adapter", "backbone", "protocol", "train")}))
    unused, protocol, train = method(parts.adapter.name).unused, parts.protocol, parts.train
    task = plan_task(
        config["task"], typed(DataSettings, config["data"], "data."), chosen.shots, chosen.split_seed
    )
    right = f"1 or more with adapter={parts.adapter.name}"
    require("hidden" in unused or chosen.hidden >= 1, "hidden", chosen.hidden, right)
    settings = {name: getattr(chosen, name) for name in PLAIN if name not in FEW_SHOT}
    settings |= {name: config[name]["name"] for name in declarations(RunSettings) if name not in PLAIN}
    settings |= {name: value for name, value in unused.items() if name in settings}
    scale_from, lr_from = "scale", "protocol.lrs" if parts.one_rate else "train.lr"
    if protocol.name != "sealed":
        bits = settings["bits"] if settings["compress"] == NOT_COMPRESSED else FLOAT_BITS  # as it is trained
        about = facts_of(parts.adapter, settings["head"], chosen.hidden, bits)
        if settings["scale"] is None:
            settings["scale"], scale_from = tuned_scale(config, about, task.name), TABLES
        if not lr_is_chosen and (lr := tuned(config, "lrs", about, task.name)) is not None:
            train, lr_from = replace(train, lr=lr), TABLES
    if settings["scale"] is None and len(protocol.scales) == 1:
        settings["scale"], scale_from = protocol.scales[0], "protocol.scales"
    if settings["scale"] is not None:
        protocol = replace(protocol, scales=())
    settings |= _of_compression(settings, parts.adapter.name, unused)
    quantized = settings["bits"] != FLOAT_BITS
    any_codes = quantized or settings["float_bits"] != FLOAT_BITS
    if not any_codes:
        settings |= {"quantizer": "none", "compress": NOT_COMPRESSED}
    compression = COMPRESSIONS.get(settings["compress"])
    uses = {
        "always": True,
        "matrices": "bits" not in unused,
        "adapter codes": quantized,
        "compression": False,
    }
    uses["codes"] = any_codes or config["head"]["quantized"]
    for name, known in declarations(RunSettings).items():
        used = uses[known.use]
        if compression is not None and known.use in ("adapter codes", "compression"):
            used = name in compression.open
        if not used:
            settings[name] = known.default
    require(
        not settings["rate_weight"] or train.epochs > max(1, train.warmup_epochs),
        "rate_weight",
        settings["rate_weight"],
        f"0 with train.epochs={train.epochs}: it acts from the second epoch on, and after the warm-up",
    )
    spec = RunSpec(
        task=task, backbone=parts.backbone, adapter=parts.adapter, protocol=protocol, train=train, **settings
    )
    if "scale" in unused:
        scale_from = METHOD if parts.adapter.settings.get("learned_scale", "none") == "none" else LEARNED
    return spec, Origin(
        SEARCH if spec.scale is None else scale_from, SEARCH if spec.protocol.lrs else lr_from
    )


def _of_compression(settings: Mapping[str, Any], adapter: str, unused: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that follow from how a run is compressed.

    Args:
        settings: the settings as they were given.
        adapter: name of the method.
        unused: common settings that the method does not use.

    Raises:
        UserError: the method cannot be compressed in that way.
    """
    how = settings["compress"]
    if how == "bitdelta" and adapter != "full":
        raise UserError(
            f"compress=bitdelta: stores signs of the difference from the pretrained weights, which "
            f"adapter={adapter} does not train; choose adapter=full, or another way of compressing"
        )
    fixed = COMPRESSIONS[how].fixed if how in COMPRESSIONS else {}
    return {name: value for name, value in fixed.items() if name not in unused}


def uncompressed(spec: RunSpec) -> list[RunSpec]:
    """Return the runs at 32 bits that a compressed run can be made from, the one to train first.

    They differ in the container of their files alone.
    """
    settings = {"compress": NOT_COMPRESSED, "quantizer": "none", "bits": FLOAT_BITS, "float_bits": FLOAT_BITS}
    unused = {"adapter codes", "compression"}
    unused |= set() if group_config("head", spec.head)["quantized"] else {"codes"}
    defaults = {
        name: known.default for name, known in declarations(RunSettings).items() if known.use in unused
    }
    held = replace(spec, **defaults | settings)
    return [held, *(replace(held, container=other) for other in CONTAINERS if other != held.container)]


_Plain = make_dataclass(
    "_Plain", [(name, get_type_hints(TaskSpec if name in FEW_SHOT else RunSettings)[name]) for name in PLAIN]
)
"""The settings whose keys have no prefix."""


@dataclass(frozen=True)
class _Parts:
    adapter: AdapterSpec
    backbone: BackboneSpec
    protocol: ProtocolSpec
    train: TrainSpec
    one_rate: bool
    """True if `protocol.lrs` has a single rate, which therefore is the recipe's."""


@plugins.cached
def _parts(groups: str) -> _Parts:
    """Return the typed parts of a configuration; as JSON they can be cached, since many runs share them."""
    values = json.loads(groups)
    adapter = values["adapter"]
    name = adapter.pop("name")
    defaults = method(name).defaults
    for key in adapter.keys() - defaults.keys():  # the file of a sweep states it for all methods
        raise UserError(f"adapter.{key}: is no setting of adapter={name}: {did_you_mean(key, defaults)}")
    settings = {key: like(defaults[key], value, f"adapter.{key}") for key, value in adapter.items()}
    train = values["train"]
    backbone = _backbone(values["backbone"], train.get("normalization") == "backbone")
    if train.get("normalization") == "backbone":
        train["normalization"] = backbone.normalization
    protocol = typed(ProtocolSpec, values["protocol"], "protocol.")
    grids: dict[str, Any] = {
        grid: tuple(sorted(set(getattr(protocol, grid)))) for grid in ("scales", "lrs", "rungs")
    }
    if grids["rungs"] == (1.0,):
        grids["rungs"] = ()  # the full search
    one_rate = len(grids["lrs"]) == 1
    if one_rate:
        # Nothing to choose: the same run as with this rate given.
        (train["lr"],), grids["lrs"] = grids["lrs"], ()
    recipe = typed(TrainSpec, train, "train.")
    if not recipe.average.checkpoints:
        recipe = replace(recipe, average=AverageSpec())
    return _Parts(AdapterSpec(name, settings), backbone, replace(protocol, **grids), recipe, one_rate)


def _backbone(values: Mapping[str, Any], normalized: bool) -> BackboneSpec:
    """Return the backbone of a configuration.

    Args:
        normalized: whether the recipe normalizes pixels as the pretraining did. Only then is that looked up
            in timm, which takes seconds to import.
    """
    backbone = typed(BackboneSpec, values, "backbone.")
    if "img_size" in backbone.options:  # timm's name of the image size
        options = dict(backbone.options)
        sized = {**values, "image_size": options.pop("img_size"), "options": options}
        backbone = typed(BackboneSpec, sized, "backbone.")
    if backbone.normalization != "timm":
        return backbone
    if not normalized:
        return replace(backbone, normalization="none")
    from petl_bench.backbones.creation import normalization

    return replace(backbone, normalization=normalization(backbone.name))
