"""Values and messages of OmegaConf as plain Python objects."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from petl_bench.errors import UserError
from petl_bench.types.fields import MOST


def like(default: Any, value: Any, key: str) -> Any:
    """Return `value` in the type of `default`, so that 1 and 1.0 are one setting.

    Raises:
        UserError: it has another type.
    """
    if isinstance(value, int | float) and not abs(value) < MOST:  # not a number neither
        raise UserError(f"{key}={value} is out of range: it must be a finite number, and below 2**63")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise UserError(f"{key}={value!r}: expected {type(default).__name__}, as in the default {default!r}")
    return value


def container(config: Any, throw_on_missing: bool = False) -> dict[str, Any]:
    """Return a config node as a plain dictionary with its interpolations resolved."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=throw_on_missing)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def first_paragraph(error: Exception) -> str:
    """Return a message of Hydra or OmegaConf without the hints that do not apply here."""
    lines = [line.strip() for line in str(error).splitlines()]
    dull = ("reference_type", "object_type", "To append", "See https", "Set the env")
    return "; ".join(line for line in lines if line and not line.startswith(dull))
