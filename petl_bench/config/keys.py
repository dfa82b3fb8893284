"""Keys of the configuration, from the declarations of their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore

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
    declared = {f"launcher={name}": declarations(kind) for name, kind in LAUNCHERS.items()}
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


def store_settings() -> None:
    """Give Hydra the defaults of all settings that belong to no file of conf/, as the config `settings`."""
    node = {name: known.default for name, known in PLAIN.items()}
    node |= {"data": _defaults(DataSettings), "train": _defaults(TrainSpec)}
    ConfigStore.instance().store(name="settings", node=node)
