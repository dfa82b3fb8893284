"""Scales and learning rates of conf/tuned: tables, each for the runs with some settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petl_bench.config.files import group_config
from petl_bench.config.keys import PLAIN
from petl_bench.data import manifests
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types import FLOAT_BITS, AdapterSpec, RunSpec, method

TABLES = "tuned.tables"


def tuned_scale(config: Mapping[str, Any], about: Mapping[str, Any], task: str) -> float:
    """Return the scale of conf/tuned.

    Raises:
        UserError: there is none.
    """
    scale = tuned(config, "scales", about, task)
    if scale is None:
        said = _text({key: about[key] for key in ("adapter", "head", "hidden")})
        known = [
            {key: table[key] for key in about if table.get(key, about[key]) != about[key]}
            for table in _tables(config)
            if table.get("adapter", about["adapter"]) == about["adapter"] and task in table.get("scales", {})
        ]
        nearest = [_text(other) for other in known if len(other) == min(map(len, known))]
        raise UserError(
            f"conf/tuned has no scale for {said} task={task}{', only for ' if nearest else ''}"
            f"{' or '.join(nearest)}: give one, for example scale=1.0, "
            "or let it be chosen on val: protocol=sealed"
        )
    return scale


def _text(settings: Mapping[str, Any]) -> str:
    """Return settings as overrides, for example `adapter=lora hidden=4`."""
    return " ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()
    )


def tuned(values: Mapping[str, Any], what: str, about: Mapping[str, Any], task: str) -> float | None:
    """Return the scale or learning rate of the first table of conf/tuned that fits the run and has one.

    Args:
        what: `scales` or `lrs`.
        about: settings of the run that a table may be restricted to.
    """
    for table in _tables(values):
        fits = all(table.get(key, value) == value for key, value in about.items())
        if fits and task in (found := table.get(what, {})):
            return float(found[task])
    return None


def tuned_value(spec: RunSpec, what: str, file: str) -> float | None:
    """Return the scale or learning rate that a file of conf/tuned has for a run; None if it has none.

    Args:
        what: `scales` or `lrs`.
        file: name of the file.
    """
    hidden = PLAIN["hidden"].default if "hidden" in method(spec.adapter.name).unused else spec.hidden
    values = {"tuned": group_config("tuned", file)}
    bits = FLOAT_BITS if spec.compressed else spec.bits
    return tuned(values, what, facts_of(spec.adapter, spec.head, hidden, bits), spec.task.name)


def facts_of(adapter: AdapterSpec, head: str, hidden: int, bits: int) -> dict[str, Any]:
    """Return the settings of a run that a table of conf/tuned may be restricted to."""
    settings = {f"adapter.{key}": value for key, value in adapter.settings.items()}
    return {"adapter": adapter.name, "head": head, "hidden": hidden, "bits": bits, **settings}


_OF_TABLE = ("adapter", "head", "hidden", "bits", "scales", "lrs", "note")
"""Keys of a table of conf/tuned; beside them it may state settings `adapter.KEY` of its method."""


def _tables(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tables of conf/tuned.

    Raises:
        UserError: they do not have the form of such tables.
    """
    try:
        tables, known = values["tuned"]["tables"], manifests()
        for table in tables:
            if unknown := [key for key in table if key not in _OF_TABLE and not key.startswith("adapter.")]:
                raise UserError(
                    f"tuned.tables: unknown key {unknown[0]!r}: {did_you_mean(unknown[0], _OF_TABLE)}"
                )
            for what in ("scales", "lrs"):
                for task, value in table.get(what, {}).items():
                    if task not in known:
                        raise UserError(
                            f"tuned.tables: {what}: unknown task {task!r}: {did_you_mean(task, known)}"
                        )
                    float(value)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            "tuned.tables: expected a list of {adapter: NAME, scales: {TASK: 1.0}, lrs: {TASK: 0.001}}"
        ) from error
    return list(tables)
