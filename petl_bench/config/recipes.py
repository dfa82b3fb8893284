"""Names of recipes: the file of conf/train that a run follows, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from petl_bench import plugins
from petl_bench.config.files import group_config, options
from petl_bench.errors import counted
from petl_bench.types import AugmentSpec, AverageSpec, RunSpec, shortened_warm_up

OF_BACKBONE = "backbone"
"""Value of `train.normalization` that stands for that of the backbone's pretraining."""
OWN_COLUMNS = ("epochs", "normalization")
"""Settings of a recipe that rows and titles state beside its name."""


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings by their keys, for example `augment.mixup`; tuples become lists."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value


def recipe_of_suite(suite: str) -> str:
    """Return the recipe of a suite's tasks where none is chosen."""
    return suite if suite in options("train") else "vtab"


@plugins.cached
def recipe(name: str) -> Mapping[str, Any]:
    """Return the settings of a file of conf/train by their keys, those of its defaults list included."""
    content = group_config("train", name)
    unstated = {"augment": asdict(AugmentSpec()), "average": asdict(AverageSpec()), "activations": "full"}
    held = dict(flat(unstated))
    for entry in content.pop("defaults", ["_self_"]):
        held |= dict(flat(content)) if entry == "_self_" else recipe(entry)
    return held


def nearest_recipe(spec: RunSpec) -> tuple[str, dict[str, Any]]:
    """Return the recipe that differs from that of a run in the fewest settings, and these settings.

    A warm-up that is shortened because the run has fewer epochs is no difference. Among equals, the recipe
    of the suite comes first.
    """
    used, usual = dict(flat(asdict(spec.train))), recipe_of_suite(spec.task.suite)
    found = []
    for name in sorted(options("train"), key=lambda name: (name != usual, name)):
        held = {**recipe(name), **shortened_warm_up(recipe(name), spec.train.epochs)}
        by_backbone = held.get("normalization") == OF_BACKBONE
        if by_backbone:
            held["normalization"] = spec.backbone.normalization
        differing = {key: value for key, value in used.items() if key not in held or held[key] != value}
        found.append((len(differing), by_backbone and name != usual, name, differing))
    _, _, name, differing = min(found, key=lambda entry: entry[:2])
    return name, differing


def recipe_name(spec: RunSpec) -> str:
    """Return the name of a run's recipe and the settings in which it differs from the file of that name.

    Epochs and pixel normalization are left out, since they have columns of their own, and a learning rate
    that was given or tuned beforehand, as it is in the column `recipe`.
    """
    name, differing = nearest_recipe(spec)
    left_out = OWN_COLUMNS if spec.protocol.name == "sealed" else (*OWN_COLUMNS, "lr")
    shown = {key: value for key, value in differing.items() if key not in left_out}
    if spec.protocol.lrs:
        shown = {key: value for key, value in shown.items() if key != "lr"} | {"lrs": [*spec.protocol.lrs]}
    if spec.protocol.name == "peek" and spec.protocol.every != group_config("protocol", "peek")["every"]:
        shown["every"] = spec.protocol.every
    words = " ".join(f"{key}={_plain(value)}" for key, value in shown.items())
    return f"{name} with {words}" if words else name


def recipe_words(spec: RunSpec) -> str:
    """Return the recipe of a run in words, its name first."""
    train, augment, average = spec.train, spec.train.augment, spec.train.average
    rate = "searched on val" if spec.protocol.lrs else f"{train.lr:g}"
    parts = [
        f"{counted(train.epochs, 'epoch')} in batches of {train.batch_size}",
        f"AdamW with weight decay {train.weight_decay:g}",
        f"learning rate {rate}, after {counted(train.warmup_epochs, 'epoch')} of warm-up from "
        f"{train.warmup_lr:g}, then by a cosine to {train.min_lr:g}",
        f"drop path {train.drop_path:g}",
        f"pixel normalization {train.normalization}",
    ]
    parts += [f"schedule {counted(train.schedule_lag, 'epoch')} late"] if train.schedule_lag else []
    changed = {key: value for key, value in asdict(augment).items() if value}
    parts += (
        ["augmentation " + " ".join(f"{key}={_plain(value)}" for key, value in changed.items())]
        if changed
        else []
    )
    if average.checkpoints:
        parts += [
            f"mean of {average.checkpoints} states, {average.every} epochs apart, weighted by {average.by}"
        ]
    parts += [f"activations {train.activations}"] if train.activations != "full" else []
    return f"{recipe_name(spec)} ({'; '.join(parts)})"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
