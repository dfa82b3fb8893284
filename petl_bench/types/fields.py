"""The keys of a stored JSON object against those of the dataclass that it is to become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints


class OtherVersionError(TypeError):
    """An object has only more keys, or only fewer, than this version gives it."""

    def __init__(self, message: str, newer: bool) -> None:
        super().__init__(message)
        self.newer = newer


def check_keys(values: object, kind: type, what: str) -> None:
    """Refuse an object whose keys are not those of the dataclass `kind`; fields with a default may be absent.

    Args:
        what: what a key is called, in the plural.

    Raises:
        OtherVersionError: as a newer version, or an older one, would have written it.
        TypeError: keys are unknown and others absent, or it is no object at all.
    """
    unknown, absent = _misfits(values, kind, "")
    if unknown and absent:
        raise TypeError(f"unknown {what} {', '.join(unknown)}; it lacks {', '.join(absent)}")
    if unknown:
        raise OtherVersionError(f"unknown {what} {', '.join(unknown)}: written by a newer petl-bench?", True)
    if absent:
        raise OtherVersionError(f"lacks the {what} {', '.join(absent)}: written by an older version?", False)


def _misfits(values: object, kind: type, prefix: str) -> tuple[list[str], list[str]]:
    """Unknown keys and absent ones, those of parts as `part.key`."""
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


@cache
def _known(kind: type) -> dict[str, tuple[bool, type | None]]:
    """Each field: whether it must be there, and the dataclass that its value is, if it is one."""
    hints = get_type_hints(kind)

    def required(field: Field[Any]) -> bool:
        return field.default is MISSING and field.default_factory is MISSING

    return {
        field.name: (required(field), hints[field.name] if is_dataclass(hints[field.name]) else None)
        for field in fields(kind)
    }
