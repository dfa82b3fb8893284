"""Conversion of configuration, manifests and stored JSON to dataclasses, keys and types checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from petl_bench.errors import UserError, did_you_mean
from petl_bench.types.settings import optional_when_stored

Kind = TypeVar("Kind")


class OtherVersionError(TypeError):
    """A stored object has only additional keys, or only lacks some: another version wrote it."""

    def __init__(self, message: str, newer: bool) -> None:
        super().__init__(message)
        self.newer = newer


def check_keys(values: object, kind: type, what: str) -> None:
    """Check that the keys of a stored object are those of a dataclass; younger ones may be absent.

    Args:
        what: the word for several keys, for example `columns`.

    Raises:
        OtherVersionError: keys are only unknown, or only absent: another version wrote the object.
        TypeError: some keys are unknown and others absent, or it is no object at all.
    """
    unknown, absent = _misfits(values, kind, "")
    if unknown and absent:
        raise TypeError(f"unknown {what} {', '.join(unknown)}; it lacks {', '.join(absent)}")
    if unknown:
        raise OtherVersionError(f"unknown {what} {', '.join(unknown)}: written by a newer petl-bench?", True)
    if absent:
        raise OtherVersionError(f"lacks the {what} {', '.join(absent)}: written by an older version?", False)


def _misfits(values: object, kind: type, prefix: str) -> tuple[list[str], list[str]]:
    """Return unknown and absent keys; those of nested objects as `part.key`."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{prefix.rstrip('.') or 'it'} is {type(values).__name__}, it must be an object")
    known = _known(kind)
    unknown = [f"{prefix}{key}" for key in values if key not in known]
    absent = []
    for name, (required, part) in known.items():
        if name not in values:
            absent += [f"{prefix}{name}"] if required else []
        elif part is not None:
            more = _misfits(values[name], part, f"{prefix}{name}.")
            unknown += more[0]
            absent += more[1]
    return unknown, absent


_hints = cache(get_type_hints)


@cache
def _known(kind: type[Any]) -> dict[str, tuple[bool, type | None]]:
    """Map each field to whether a stored object must have it, and to its dataclass if its value is one."""
    hints = get_type_hints(kind)
    return {
        field.name: (
            not optional_when_stored(field),
            hints[field.name] if is_dataclass(hints[field.name]) else None,
        )
        for field in fields(kind)
    }


def typed(kind: Callable[..., Kind], values: object, prefix: str) -> Kind:
    """Build a dataclass from a mapping; a whole number will do for a float, and a number for text.

    Args:
        prefix: what stands before each key in error messages, for example `train.` or `digits.yaml: `.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type; ranges are for the dataclass.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.: ')}={values!r}: expected {_NAMES[Mapping]}")
    assert isinstance(kind, type)
    hints = _hints(kind)
    for key in values:
        if key not in hints:
            raise UserError(f"{prefix}{key}: unknown key: {did_you_mean(str(key), hints)}")
    missing = [
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING and field.name not in values
    ]
    if missing:
        raise UserError(f"{prefix}missing {', '.join(missing)}")
    return kind(**{key: _value(hints[key], value, prefix + key) for key, value in values.items()})


def _value(hint: Any, value: object, key: str) -> Any:
    """Return `value` as an instance of `hint`."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    found = value
    if isinstance(hint, UnionType):
        return None if value is None and NoneType in arguments else _value(arguments[0], value, key)
    if isinstance(hint, type) and is_dataclass(hint):
        return typed(hint, value, f"{key}.")
    if hint is float and type(value) is int:
        found = float(value) if abs(value) < MOST else math.inf if value > 0 else -math.inf
    elif hint is str and type(value) in (int, float):
        found = str(value)
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        found = origin(_value(arguments[0], item, key) for item in value)
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        found = {name: _value(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    elif hint is not Any and type(value) is not hint:
        raise UserError(f"{key}={value!r}: expected {_NAMES[origin]}")
    return found


MOST = 2**63
"""Bound on whole numbers, which stores and generators hold in 64 bits."""

_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    dict: "keys with values",
    Mapping: "keys with values",
}
