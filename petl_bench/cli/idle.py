"""Settings of planned runs that cannot have an effect: schedules that a run is too short for, and others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from petl_bench.types import RunSpec, method


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
    steps = _steps(spec)
    if method(spec.adapter.name).nested and 0 < steps < spec.hidden:
        yield (
            f"adapter={spec.adapter.name} draws one of {spec.hidden} ranks in each step, and a run has only "
            f"{steps} steps: some ranks are never drawn; choose more epochs or fewer hidden units"
        )


def _steps(spec: RunSpec) -> int:
    """Return the number of steps of the last training; 0 where the number of images is not known."""
    splits, shots = spec.task.splits, spec.task.shots
    images = shots * spec.task.classes if shots else splits.get("train", 0) + splits.get("val", 0)
    return spec.train.epochs * (images // spec.train.batch_size)
