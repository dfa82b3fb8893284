"""Rows of the store -> cells (means over seeds) and lines (means over tasks). No average hides a hole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from petl_bench.report.mixed import mixed
from petl_bench.report.settings import REPETITIONS, ROW_SETTINGS, SEPARATED, TABLE_SETTINGS, TASK_SETTINGS
from petl_bench.types import Manifest, ResultRow

BY_TASK = -1.0
"""Stands for the scales or rates of a line that has one a task."""
TASK, GROUP, MEAN = "task", "group", "mean"
HEADLINE = (MEAN, "groups")
"""Kinds of columns while means are computed."""
BYTES = ["bytes_adapter", "bytes_adapter_raw", "bytes_head", "bytes_overhead", "bytes_file"]


@dataclass(frozen=True)
class Statistic:
    """Mean and standard deviation (unbiased; None at n = 1) over n seeds; mean None is a hole."""

    n: int
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Task:
    """One column of a table."""

    name: str
    group: str


@dataclass(frozen=True)
class Line:
    """One configuration: a statistic for each task and each average, and bytes a task."""

    key: dict[str, Any]
    tasks: dict[str, Statistic]
    groups: dict[str, Statistic]
    mean_of_groups: Statistic
    mean_of_tasks: Statistic
    last_epoch: Statistic | None  # mean of groups at the last epoch, where the others are best-on-test
    complete: str  # tasks with results out of all tasks of the suite, as "4/5"
    bytes: dict[str, float]  # mean over tasks
    task_bytes: dict[str, dict[str, float]]
    bits_per_weight: float | None
    params_trainable: float  # mean over tasks, whose heads differ
    seconds: float  # of one run: search, training and evaluation; mean over tasks


@dataclass(frozen=True)
class Table:
    """All lines of one suite under one protocol and recipe."""

    key: dict[str, Any]
    tasks: list[Task]
    """In the benchmark's order, a group after the other."""
    lines: list[Line]
    notes: list[str]
    """What its rows do not have in common although they should, and how its numbers were chosen."""
    repetition: str = "seeds"
    """What means and deviations are over."""

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(task.group for task in self.tasks))


def tabulate(rows: Iterable[ResultRow], tasks: Mapping[str, Manifest]) -> tuple[list[Table], list[str]]:
    """Tables, and warnings of what they have not in common.

    Args:
        rows: finished runs.
        tasks: all known tasks; they say which tasks a suite's averages need, and in which order.
    """
    frame = pd.DataFrame([vars(row) for row in rows])
    if frame.empty:
        return [], []
    # Files of older rows were raw.
    frame["bytes_adapter_raw"] = frame["bytes_adapter_raw"].fillna(frame["bytes_adapter"])
    frame["altered"] = frame["data_override"] != ""
    frame["seconds"] = frame["seconds_search"] + frame["seconds_train"] + frame["seconds_eval"]
    tables = [
        _table(dict(zip(TABLE_SETTINGS, values, strict=True)), part, tasks)
        for values, part in frame.groupby(TABLE_SETTINGS, sort=True)
    ]
    warnings = [] if len(tables) == 1 else mixed(frame, rates=False)
    for name, what in SEPARATED.items():
        if len({table.key[name] for table in tables}) > 1:
            warnings.append(f"several {what}: each has its own table, and numbers do not compare across them")
    empty = [note for table in tables if not table.lines for note in table.notes]
    tables = [table for table in tables if table.lines]
    said = {note for table in tables for note in table.notes}
    return tables, [warning for warning in [*warnings, *empty] if warning not in said]


def _table(key: dict[str, Any], part: pd.DataFrame, known: Mapping[str, Manifest]) -> Table:
    key = {name: _plain(value) for name, value in key.items()}
    tasks = _tasks(key["suite"], part, known)
    notes = mixed(part, rates=key["protocol"] != "sealed")
    strange = sorted(set(part["task"]) - {task.name for task in tasks})
    if strange:
        notes.append(
            f"rows of tasks that no manifest of suite {key['suite']} has are left out: {', '.join(strange)}"
        )
        part = part[~part["task"].isin(strange)]
    line_key, part = _split(part) if key["protocol"] != "sealed" else (ROW_SETTINGS, part)
    cell = [*line_key, "task", *REPETITIONS]
    if part.duplicated(cell).any():
        notes.append(
            "some cells have several runs of one seed that differ in what a table does not show (weights, "
            "data or settings); the latest counts (choose with --filter)"
        )
    latest = part.sort_values("finished_at").drop_duplicates(cell, keep="last")
    lines = [] if latest.empty else _lines(latest, line_key, tasks, key["protocol"] == "peek")
    lines.sort(key=lambda line: [_order(value) for value in line.key.values()])
    if any(_uneven(line) for line in lines):
        notes.append(
            "not every line has the same seeds on all its tasks: its means are over the seeds that have "
            "every task, and a comparison of two lines may be between different seeds"
        )
    if key["protocol"] == "peek":
        notes.append("accuracies marked † are the best of several looks at test: no honest number compares")
    if key["altered"]:
        notes.append("its data sets are altered (data.override): they compare with no published row")
    repetition = " and ".join(
        what for column, what in REPETITIONS.items() if latest[column].nunique() > 1 or column == "seed"
    )
    return Table(key, tasks, lines, notes, repetition)


def _tasks(suite: str, part: pd.DataFrame, known: Mapping[str, Manifest]) -> list[Task]:
    """All tasks of a suite in the benchmark's order; of the user's own data those that were run."""
    facts = [m for m in known.values() if m.suite == suite and m.classes]
    if not facts:
        last = part.sort_values("finished_at").drop_duplicates("task", keep="last")
        by_group = sorted(zip(last["group"], last["task"], strict=True))
        return [Task(name, group) for group, name in by_group]
    facts.sort(key=lambda m: (m.group, m.position or len(known), m.name))
    return [Task(m.name, m.group) for m in facts]


def _split(part: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The key of lines, with the scale or rate where a line has several on one task and seed.

    Other lines stay whole, although theirs may differ by task: in these the column is empty.
    """
    line_key = list(ROW_SETTINGS)
    for name in TASK_SETTINGS:
        counts = part.groupby([*ROW_SETTINGS, "task", *REPETITIONS])[name].transform("nunique")
        varied = counts.groupby([part[key] for key in ROW_SETTINGS]).transform("max") > 1
        if varied.any():
            line_key.append(name)
            part = part.assign(**{name: part[name].where(varied, BY_TASK).fillna(BY_TASK)})
    return line_key, part


def _lines(latest: pd.DataFrame, line_key: list[str], tasks: Sequence[Task], peek: bool) -> list[Line]:
    """One row a line, task and repetition -> the lines, in any order."""
    shown = "acc_best_peek" if peek else "acc"
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(task.group, []).append(task.name)
    wide = _wide(latest, shown, line_key, groups)
    found: Any = wide.groupby(level=line_key).agg(["count", "mean", "std"]).to_dict("index")
    last = _wide(latest, "acc", line_key, groups)[[HEADLINE]] if peek else wide[[HEADLINE]]
    final: Any = last.groupby(level=line_key).agg(["count", "mean", "std"]).to_dict("index")
    columns = [*BYTES, "bits_per_weight", "params_trainable", "seconds"]
    by_task = latest.groupby([*line_key, "task"])[columns].mean()
    total: Any = by_task.groupby(level=line_key).mean().to_dict("index")
    task_bytes: dict[Any, dict[str, dict[str, float]]] = {}
    of_tasks: Any = by_task[BYTES].to_dict("index")
    for (*key, task), values in of_tasks.items():
        task_bytes.setdefault(tuple(key), {})[task] = values
    return [
        Line(
            key={name: _plain(value) for name, value in zip(line_key, key, strict=True)},
            tasks={t.name: _statistic(values, (TASK, t.name)) for t in tasks},
            groups={group: _statistic(values, (GROUP, group)) for group in groups},
            mean_of_groups=_statistic(values, HEADLINE),
            mean_of_tasks=_statistic(values, (MEAN, "tasks")),
            last_epoch=_statistic(final[key], HEADLINE) if peek else None,
            complete=f"{len(task_bytes[key])}/{len(tasks)}",
            task_bytes=task_bytes[key],
            bytes={name: total[key][name] for name in BYTES},
            bits_per_weight=_number(total[key]["bits_per_weight"]),
            params_trainable=total[key]["params_trainable"],
            seconds=total[key]["seconds"],
        )
        for key, values in found.items()
    ]


def _wide(
    latest: pd.DataFrame, column: str, line_key: list[str], groups: Mapping[str, list[str]]
) -> pd.DataFrame:
    """Accuracies by line and repetition (rows) and task, group and average (columns).

    A mean over tasks exists for a repetition only where it has every task: skipna=False.
    """
    names = [name for held in groups.values() for name in held]
    index = [*line_key, *REPETITIONS]
    tasks = latest.pivot(index=index, columns="task", values=column).reindex(columns=names).astype(float)
    means = {(GROUP, group): tasks[held].mean(axis=1, skipna=False) for group, held in groups.items()}
    averages = {HEADLINE: pd.DataFrame(means).mean(axis=1, skipna=False)}
    averages[MEAN, "tasks"] = tasks.mean(axis=1, skipna=False)
    tasks.columns = pd.MultiIndex.from_product([[TASK], names])
    return pd.concat([tasks, pd.DataFrame(means | averages)], axis=1)


def _statistic(values: Mapping[Any, float], column: tuple[str, str]) -> Statistic:
    return Statistic(
        int(values[(*column, "count")]), _number(values[(*column, "mean")]), _number(values[(*column, "std")])
    )


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _uneven(line: Line) -> bool:
    """Whether a line that has every task lacks seeds on some, so that means rest on fewer or none."""
    present = [value.n for value in line.tasks.values()]
    return min(present) > 0 and line.mean_of_tasks.n < max(present)


def _order(value: Any) -> tuple[int, Any]:
    """linear first, then adapters by name; numbers by size, none first."""
    return (0, "") if value in ("linear", None) else (1, value)


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's; BY_TASK as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if value == BY_TASK else value
