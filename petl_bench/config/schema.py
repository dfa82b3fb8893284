"""Values -> typed dataclasses: unknown keys and wrong types are refused."""

from __future__ import annotations

import dataclasses
from dataclasses import field, is_dataclass, make_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from petl_bench.errors import UserError


def conform(cls: type, values: Any, where: str) -> dict[str, Any]:
    """Merge into the typed schema of a dataclass: unknown keys and wrong types are refused."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(_thawed(cls)), values)
        return container(merged, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {first_paragraph(error)}".removeprefix(": ")) from error


def like(default: Any, value: Any, key: str) -> Any:
    """`value` in the type of `default`, so that 1 and 1.0 are one setting."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise UserError(f"{key}={value!r}: expected {type(default).__name__}, as in the default {default!r}")
    return value


def container(config: Any, throw_on_missing: bool = False) -> dict[str, Any]:
    """A config node as a plain dictionary, interpolations resolved."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=throw_on_missing)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def first_paragraph(error: Exception) -> str:
    """Hydra's and OmegaConf's messages without the hints that do not apply here."""
    lines = [line.strip() for line in str(error).splitlines()]
    dull = ("reference_type", "object_type", "To append", "See https", "Set the env")
    return "; ".join(line for line in lines if line and not line.startswith(dull))


@cache
def _thawed(cls: type) -> type:
    """A mutable twin of a frozen dataclass: OmegaConf makes frozen ones read-only before the merge."""
    hints = get_type_hints(cls)
    members: list[Any] = []
    for f in dataclasses.fields(cls):
        kind = _thawed_type(hints[f.name])
        if f.default_factory is not dataclasses.MISSING:
            factory: Any = kind if is_dataclass(kind) else f.default_factory
            members.append((f.name, kind, field(default_factory=factory)))
        elif f.default is not dataclasses.MISSING:
            members.append((f.name, kind, field(default=f.default)))
        else:
            members.append((f.name, kind))
    return make_dataclass(cls.__name__, members)


def _thawed_type(hint: Any) -> Any:
    """The hint with every frozen dataclass in it thawed."""
    if isinstance(hint, type) and is_dataclass(hint):
        return _thawed(hint)
    arguments = get_args(hint)
    thawed = tuple(_thawed_type(argument) for argument in arguments)
    return hint if thawed == arguments else get_origin(hint)[thawed]
