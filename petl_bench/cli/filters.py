"""Options of `petl-bench report` that select runs by columns of rows, keys of specs, or tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from petl_bench.cli.common import flat
from petl_bench.errors import DamagedError, UserError, did_you_mean
from petl_bench.store import Store
from petl_bench.types import ResultRow, row_to_dict, spec_to_dict

MOST = 20
"""Values that the message about a filter without a match lists."""


def filtered(rows: Sequence[ResultRow], text: str, store: Store) -> list[ResultRow]:
    """Return the rows that a filter selects; see `selected`."""
    return [rows[number] for number in selected([row_to_dict(row) for row in rows], text, store)]


def on_tasks(rows: Sequence[ResultRow], text: str) -> list[ResultRow]:
    """Return the rows on some tasks.

    Args:
        rows: the rows.
        text: names of tasks, with or without their suite as in `vtab_cifar`, or of groups of tasks for all
            their tasks, as values of overrides: `A,B` or `glob(vtab_*)`.

    Raises:
        UserError: a row is on none of these tasks.
    """
    from petl_bench.config import alternatives

    full = {name for row in rows for name in (row.task, row.group)}
    # Columns of tables leave the suite out: `cifar` is vtab_cifar unless there is a task of that name.
    short = {row.task: row.task.removeprefix(f"{row.suite}_") for row in rows}
    known = sorted(full | {*short.values()})
    try:
        wanted = {str(value) for value in alternatives(text, known)}
    except UserError as error:
        raise UserError(f"--tasks {text}: expected names of tasks, as digits,surfaces") from error
    for name in wanted or [text]:
        if name not in known:
            raise UserError(f"--tasks {text}: no run here is on {name!r}; {did_you_mean(name, known)}")
    abbreviated = wanted - full
    return [row for row in rows if {row.task, row.group} & wanted or short[row.task] in abbreviated]


def chosen(rows: Sequence[ResultRow], text: str, store: Store, option: str) -> frozenset[str]:
    """Return the run_ids of the runs with all settings of a configuration.

    Args:
        rows: the runs.
        text: settings as filters that are joined by commas, `adapter=lora,bits=32`.
        store: store of the runs.
        option: name of the option that the text is the value of.

    Raises:
        UserError: a setting is unknown, or no run has all of them.
    """
    runs = [row_to_dict(row) for row in rows]
    for setting in re.split(r",\s*(?=[^,=]+=)", text):
        runs = [runs[number] for number in selected(runs, setting, store, f"{option} {text}:")]
    return frozenset(str(run["run_id"]) for run in runs)


def selected(
    runs: Sequence[Mapping[str, Any]], text: str, store: Store, option: str = "--filter"
) -> list[int]:
    """Return the numbers of the runs that a filter selects: KEY=VALUE, or KEY=A,B for any of several values.

    Args:
        runs: columns of each run, one of them its run_id; a run that lacks a column has no value there.
        text: the filter. KEY is a column, or a key of the spec as in overrides, such as `protocol.scales`.
        store: store of the runs, which has their specs.
        option: what stands before the filter in messages.

    Raises:
        UserError: there is no such key, or no run has one of the values.
    """
    said = f"{option} {text}"
    key, equals, value = text.partition("=")
    columns = {f.name for f in fields(ResultRow)}.union(*runs[:1])
    if key in columns:
        held = [run.get(key, "") for run in runs]
    else:
        specs = [_spec_keys(store, run["run_id"]) for run in runs]
        known = {name for spec in specs for name in spec}
        if not equals or key not in known:
            hint = did_you_mean(key, sorted(columns | known))
            raise UserError(f"{said}: expected COLUMN=VALUE, or KEY=VALUE of the settings; {hint}")
        held = [spec.get(key) for spec in specs]
    if not equals:
        raise UserError(f"{said}: expected COLUMN=VALUE")
    kept = {number for number, found in enumerate(held) if _same(found, value)}
    for wanted in [] if kept else _alternatives(said, key, value, held):
        own = {number for number, found in enumerate(held) if _same(found, wanted)}
        if not own:
            _refuse(said, key, held)
        kept |= own
    return sorted(kept)


def _refuse(said: str, key: str, held: Sequence[object]) -> None:
    numbers = {value for value in held if isinstance(value, int | float)}
    others = {_text(value) for value in held if not isinstance(value, int | float)}
    found = [*map(_text, sorted(numbers)), *sorted(others)]
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    raise UserError(f"{said}: no row has it; {key} is one of: {', '.join(found[:MOST])}{more}")


def _alternatives(said: str, key: str, value: str, held: Sequence[object]) -> list[Any]:
    """Return the values that a text in Hydra's grammar stands for: one, several as 1,2, or a glob's."""
    from petl_bench.config import alternatives

    try:
        found = alternatives(value, [_text(own) for own in held])
    except UserError:
        found = []
    if not found:
        _refuse(said, key, held)
    return found


def _spec_keys(store: Store, run_id: str) -> dict[str, Any]:
    """Return the values of a run's spec by the keys that overrides have; empty if it cannot be read."""
    try:
        values = spec_to_dict(store.spec(run_id))
    except DamagedError:
        return {}
    values["adapter"] = values["adapter"].pop("settings") | values["adapter"]
    return dict(flat(values))


def _same(held: object, wanted: object) -> bool:
    """Return whether a value equals a wanted one; numbers are compared as numbers, so that 1 finds 1.0."""
    if isinstance(held, list | tuple):
        if not isinstance(wanted, list | tuple) or len(held) != len(wanted):
            return False
        return all(_same(own, other) for own, other in zip(held, wanted, strict=True))
    if isinstance(held, float | int) and not isinstance(held, bool):
        try:
            return isinstance(wanted, float | int | str) and float(held) == float(wanted)
        except ValueError:
            return False
    return _text(held).lower() == _text(wanted).lower()


def _text(value: object) -> str:
    """Return a value as an override writes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    return "null" if value is None else str(value)
