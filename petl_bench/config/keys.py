"""Keys of the configuration, from the declarations of their settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore

from petl_bench.errors import did_you_mean, meant
from petl_bench.types import (
    LAUNCHERS,
    BackboneSpec,
    DataSettings,
    ProtocolSpec,
    RunSettings,
    Setting,
    TaskSpec,
    TrainSpec,
    declarations,
    methods,
)

PARTS: dict[str, type] = {
    "train": TrainSpec,
    "protocol": ProtocolSpec,
    "backbone": BackboneSpec,
    "data": DataSettings,
}
"""Dataclasses of the settings whose keys have a prefix."""

FREE = tuple(
    f"{group}.{name}"
    for group, kind in PARTS.items()
    for name, hint in get_type_hints(kind).items()
    if name in declarations(kind) and get_origin(hint) is dict
)
"""Settings that are dictionaries of any keys, such as `backbone.options`."""

FEW_SHOT = ("shots", "split_seed")
"""Settings of a task that are chosen for the run."""

PLAIN = {name: known for name, known in declarations(RunSettings).items() if not known.option}
PLAIN |= {name: declarations(TaskSpec)[name] for name in FEW_SHOT}
"""Settings whose keys have no prefix."""


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        default: its value unless chosen; None where the files of a group state it, as those of `train` do.
        option: the option that has the key, for example `adapter=lora`; empty: all options of its group.
    """

    name: str
    default: Any
    setting: Setting
    option: str = ""


def keys() -> Iterator[Key]:
    """Return all keys that have a declaration, in the order of the command line's documentation."""
    for name, known in declarations(RunSettings).items():
        yield Key(name, known.default, known)
    for name in FEW_SHOT:
        yield Key(name, PLAIN[name].default, PLAIN[name])
    for group, kind in PARTS.items():
        yield from _of_part(f"{group}.", kind)
    declared = {f"launcher={name}": declarations(LAUNCHERS.get(name)) for name in LAUNCHERS}
    declared |= {f"adapter={name}": found.settings for name, found in methods().items()}
    for option, settings in declared.items():
        for name, known in settings.items():
            yield Key(f"{option.partition('=')[0]}.{name}", known.default, known, option)


def _of_part(prefix: str, kind: type) -> Iterator[Key]:
    hints, defaults = get_type_hints(kind), _defaults(kind)
    for name, known in declarations(kind).items():
        if is_dataclass(hints[name]):
            yield from _of_part(f"{prefix}{name}.", hints[name])
        else:
            yield Key(prefix + name, defaults.get(name), known)


def _defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of a dataclass as the configuration has them."""
    found: dict[str, Any] = {}
    for field in fields(kind):
        value = field.default_factory() if field.default_factory is not MISSING else field.default
        if value is not MISSING:
            nested = is_dataclass(value) and not isinstance(value, type)
            found[field.name] = _defaults(type(value)) if nested else _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


OTHER_WORDS = {
    **dict.fromkeys(("rank", "r", "lora_r", "bottleneck", "dim", "hidden_dim"), "hidden"),
    **dict.fromkeys(("alpha", "lora_alpha", "s"), "scale"),
    **dict.fromkeys(("bit", "nbits", "n_bits", "bitwidth", "bit_width", "wbits"), "bits"),
    **dict.fromkeys(("method", "peft", "tuner", "petl"), "adapter"),
    **dict.fromkeys(("model", "arch", "architecture", "network"), "backbone"),
    **dict.fromkeys(("checkpoint", "pretrained", "ckpt", "model_path"), "backbone.weights"),
    **dict.fromkeys(("resolution", "img_size", "input_size"), "backbone.image_size"),
    **dict.fromkeys(("dataset", "data_set", "benchmark_task"), "task"),
    **dict.fromkeys(("suite", "benchmark", "experiment"), "sweep"),
    **dict.fromkeys(("data_path", "data_dir", "data_root", "path"), "data.root"),
    **dict.fromkeys(("n_shot", "num_shots", "shot", "k_shot"), "shots"),
    **dict.fromkeys(("learning_rate", "base_lr"), "train.lr"),
    **dict.fromkeys(("bs", "batch", "batchsize"), "train.batch_size"),
    **dict.fromkeys(("wd", "decay"), "train.weight_decay"),
    **dict.fromkeys(("warmup", "warm_up", "warmup_steps"), "train.warmup_epochs"),
    **dict.fromkeys(("num_epochs", "max_epochs", "n_epochs"), "train.epochs"),
    **dict.fromkeys(("droppath", "drop_path_rate", "stochastic_depth"), "train.drop_path"),
    **dict.fromkeys(("amp", "dtype", "fp16", "mixed_precision"), "precision"),
    **dict.fromkeys(("gpu", "cuda"), "launcher.device"),
    **dict.fromkeys(("num_workers", "jobs", "n_jobs", "processes"), "launcher.workers"),
}
"""Names that other programs use for the same settings."""


def suggested(key: str, near: Collection[str]) -> str:
    """Return a clause that suggests keys in place of an unknown one.

    Args:
        key: the unknown key.
        near: keys among which those of similar spelling are looked for.
    """
    word = key.rpartition(".")[2].replace("-", "_").lower()
    if word in OTHER_WORDS:
        return meant([OTHER_WORDS[word]])
    same = {known.name: known.option for known in keys() if known.name.rpartition(".")[2] == word}
    names = sorted(same, key=lambda name: (same[name] != "", name))
    return meant(names[:4]) if names else did_you_mean(key, near)


def store_settings() -> None:
    """Give Hydra the defaults of all settings that belong to no file of conf/, as the config `settings`."""
    node = {name: known.default for name, known in PLAIN.items()}
    node |= {"data": _defaults(DataSettings), "train": _defaults(TrainSpec)}
    ConfigStore.instance().store(name="settings", node=node)
