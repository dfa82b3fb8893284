"""Settings of planned runs that cannot have an effect: schedules that a run is too short for, and others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from petl_bench.errors import counted
from petl_bench.types import COMPRESSIONS, FLOAT_BITS, NOT_COMPRESSED, RunSpec, method


def _has(name: str) -> Callable[[RunSpec], bool]:
    return lambda spec: name not in method(spec.adapter.name).unused


def _open(name: str) -> Callable[[RunSpec], bool]:
    """Return a function that tells whether the compression of a run, if any, leaves a setting open."""
    return lambda spec: not spec.compressed or name not in COMPRESSIONS[spec.compress].fixed


def _of_compression(name: str) -> Callable[[RunSpec], bool]:
    return lambda spec: spec.compressed and name in COMPRESSIONS[spec.compress].open


def _codes(spec: RunSpec) -> bool:
    """Return whether a file of a run holds codes."""
    from petl_bench.config import group_config

    return min(spec.bits, spec.float_bits) < FLOAT_BITS or group_config("head", spec.head)["quantized"]


def _follows(override: str, spec: RunSpec) -> bool:
    """Return whether an override states what the compression of a run fixes anyway."""
    key, _, value = override.partition("=")
    return spec.compressed and str(COMPRESSIONS[spec.compress].fixed.get(key)) == value


_USED: Mapping[str, tuple[Callable[[RunSpec], object], str]] = {
    "shots": (lambda spec: spec.task.shots, "only few-shot sets (fgvc_*) have shots"),
    "split_seed": (lambda spec: spec.task.shots or spec.task.drawn, "only fgvc_* and task=tree are drawn"),
    "data.images": (lambda spec: spec.task.drawn, "only images of task=tree are drawn"),
    "data.root": (lambda spec: spec.task.place, "the images of bundled tasks are in the package"),
    "hidden": (_has("hidden"), "the adapter has no hidden units"),
    "scale": (_has("scale"), "the adapter has no scale"),
    "protocol.scales": (_has("scale"), "the adapter has no scale"),
    "bits": (
        lambda spec: _has("bits")(spec) and _open("bits")(spec),
        "the adapter has no matrices (float_bits is for its floats), or its compression fixes the bits",
    ),
    "compress": (lambda spec: spec.compressed, "nothing of the adapter gets fewer than 32 bits"),
    "kept": (_of_compression("kept"), "only compress=compeft and loraquant keep a share"),
    "strength": (_of_compression("strength"), "only compress=compeft has a strength"),
    "start": (
        lambda spec: _has("start")(spec) and _has("bits")(spec),
        "the adapter has no pair of matrices that starts at zero",
    ),
    "matrix_lr": (_has("bits"), "the adapter has no matrices"),
    "float_bits": (
        lambda spec: _has("float_bits")(spec) and _open("float_bits")(spec),
        "the adapter has no float parameters, or its compression fixes their bits",
    ),
    "quantizer": (
        lambda spec: min(spec.bits, spec.float_bits) < FLOAT_BITS and _open("quantizer")(spec),
        "the adapter is not quantized, or its compression fixes the codebook; heads have their own",
    ),
    "statistics": (_codes, "neither adapter nor head has codes"),
    "packing": (_codes, "neither adapter nor head has codes"),
    "statistics_of": (
        lambda spec: spec.bits != FLOAT_BITS and spec.compress in (NOT_COMPRESSED, "ptq"),
        "the adapter has no codes, or its compression fixes their statistics",
    ),
    "rate_weight": (
        lambda spec: spec.bits != FLOAT_BITS and not spec.compressed,
        "the adapter is not trained with codes",
    ),
    **{
        f"train.average.{name}": (
            lambda spec: spec.train.average.checkpoints,
            "train.average.checkpoints is 0, so nothing is averaged",
        )
        for name in ("every", "by", "power")
    },
}
"""Keys that only some runs use: a function that tells whether a run does, and the reason if it does not."""


def unused(overrides: Iterable[str], specs: Collection[RunSpec]) -> list[str]:
    """Return a sentence for each override that no run of its plan has a use for.

    Runs that are planned only because compressed runs are made from them have no part in this.
    """
    given = {override.partition("=")[0]: override for override in overrides}
    left = _left_as_trained(given, specs)
    compressed = [spec for spec in specs if spec.compressed]
    if compressed and NOT_COMPRESSED not in given.get("compress", NOT_COMPRESSED).partition("=")[2].split(
        ","
    ):
        specs = compressed
    both = (
        ["protocol.scales has no effect: scale is given"]
        if {"scale", "protocol.scales"} <= given.keys()
        else []
    )
    without_use = [
        f"{given[key]} has no effect: {why}"
        for key, (used, why) in _USED.items()
        if given.get(key, "compress=none") != "compress=none"
        and not any(used(spec) or _follows(given[key], spec) for spec in specs)
    ]
    return [*left, *both, *without_use]


def _left_as_trained(given: Mapping[str, str], specs: Collection[RunSpec]) -> list[str]:
    """Return a sentence for each way of compressing that only some methods of a plan have a use for.

    Args:
        given: overrides by key.
        specs: the planned runs.
    """
    ways = [how for how in given.get("compress", "=").partition("=")[2].split(",") if how in COMPRESSIONS]
    found = []
    for how in ways:
        used = {spec.adapter.name for spec in specs if spec.compress == how}
        left = [name for name in dict.fromkeys(spec.adapter.name for spec in specs) if name not in used]
        if not used or not left:
            continue
        hint = ""
        if how == "ptq":
            floats = [name for name in left if "float_bits" not in method(name).unused]
            hint = f"; float_bits rounds the floats of {', '.join(floats)}" if floats else ""
        found.append(
            f"compress={how} leaves {', '.join(left)} as trained, since nothing of "
            f"{'it' if len(left) == 1 else 'them'} gets fewer than 32 bits{hint}"
        )
    return found


def idle(specs: Iterable[RunSpec]) -> list[str]:
    """Return a sentence for each setting of some run that cannot act, without repetition."""
    return list(dict.fromkeys(sentence for spec in specs for sentence in _sentences(spec)))


def _sentences(spec: RunSpec) -> Iterator[str]:
    train, protocol, augment = spec.train, spec.protocol, spec.train.augment
    if train.only_warms_up:
        lag = f" and train.schedule_lag={train.schedule_lag}" if train.schedule_lag else ""
        yield (
            f"train.warmup_epochs={train.warmup_epochs}{lag} take all of train.epochs={train.epochs}: the "
            f"learning rate never reaches train.lr={train.lr:g}; choose fewer epochs of warm-up"
        )
    if protocol.name == "peek" and protocol.every > train.epochs:
        yield (
            f"protocol.every={protocol.every} is more than train.epochs={train.epochs}: protocol=peek looks "
            "at test once, after the last epoch"
        )
    if protocol.rungs and len(spec.candidates) == 1:
        yield f"protocol.rungs={list(protocol.rungs)} has no effect: there is one candidate, so no search"
    if not augment.crop and (augment.color_jitter or augment.auto_augment):
        yield (
            "train.augment.color_jitter and train.augment.auto_augment have no effect without "
            "train.augment.crop=true"
        )
    steps = train.epochs * (spec.task.training_images // train.batch_size)  # of the last training
    if method(spec.adapter.name).nested and 0 < steps < spec.hidden:
        yield (
            f"adapter={spec.adapter.name} draws one of {spec.hidden} ranks in each step, and a run has only "
            f"{counted(steps, 'step')}: some ranks are never drawn; choose more epochs or fewer hidden units"
        )
