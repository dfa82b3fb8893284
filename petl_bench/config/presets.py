"""Presets: settings that `preset=NAME` chooses together. Those that a sweep or a user gives count instead."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from petl_bench.config.files import group_config, options
from petl_bench.config.keys import suggested
from petl_bench.config.overrides import literal
from petl_bench.errors import UserError
from petl_bench.types import methods

GROUP = "preset"
RELEASED = "released"
"""The preset unless another one is chosen; it changes nothing."""
TUNED = ("scale", "train.lr", "protocol.scales", "protocol.lrs")
"""Settings that no preset states, since their best values differ between tasks."""


def check(name: str, known: Collection[str]) -> None:
    """Check that a preset's keys are those of groups and settings.

    Args:
        name: name of the preset.
        known: all keys but those of the settings of adapters.

    Raises:
        UserError: one is not, or states a scale or a learning rate.
    """
    own = {f"adapter.{key}" for found in methods().values() for key in found.defaults}
    for key in group_config(GROUP, name):
        if key in TUNED:
            raise UserError(f"{GROUP}={name}: {key} stands in conf/tuned, in a file SUITE_{name}.yaml")
        if key not in own and key not in known:
            raise UserError(f"{GROUP}={name}: unknown key {key!r}: {suggested(key, known)}")


def values_of(name: str, adapter: str) -> dict[str, Any]:
    """Return the settings of a preset by their keys.

    Args:
        name: name of the preset.
        adapter: the run's method; settings that only other methods have are left out.
    """
    known = methods().get(adapter)
    own = {f"adapter.{key}" for key in known.defaults} if known else set()
    settings = group_config(GROUP, name).items()
    return {key: value for key, value in settings if not key.startswith("adapter.") or key in own}


def lines_of(name: str, adapter: str) -> dict[str, str]:
    """Return the settings of a preset as overrides, by their keys; for the arguments see `values_of`."""
    return {key: f"{key}={literal(value)}" for key, value in values_of(name, adapter).items()}


def tuned_of_suite(suite: str, preset: str = RELEASED) -> str:
    """Return the file of conf/tuned for a suite's tasks where none is chosen.

    Other settings may need other scales, so that a preset may have a file of its own, SUITE_PRESET.
    """
    names = [f"{suite}_{preset}", suite]
    return next((name for name in names if name in options("tuned")), "none")
