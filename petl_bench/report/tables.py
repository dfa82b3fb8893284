"""Rows of the store -> cells (means over seeds) and lines (means over tasks). No average hides a hole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from petl_bench.types import Manifest, ResultRow

TABLE_KEY = [
    "suite",
    "shots",
    "protocol",
    "rungs",
    "precision",
    "normalization",
    "epochs",
    "recipe",
    "altered",
]
"""Rows that differ in one of these never share a table."""
LINE_KEY = [
    "backbone",
    "adapter",
    "settings",
    "hidden",
    "quantizer",
    "bits",
    "head",
    "rate_weight",
    "packing",
    "statistics",
]
"""One line of a table; the scale is chosen per task and joins in only where a task has several."""
REPETITION = ["seed", "split_seed"]
"""What the rows of one cell differ in."""
BYTES = ["bytes_adapter", "bytes_adapter_raw", "bytes_head", "bytes_overhead", "bytes_file"]
PROVENANCE = {
    "version": "petl-bench versions",
    "git_revision": "git revisions",
    "torch_version": "torch versions",
    "pillow_version": "pillow versions",
    "device": "devices",
    "backbone_sha256": "weights of one backbone",
    "data_fingerprint": "versions of one task's data",
}
"""Columns in which the rows of a table should agree, and how a warning calls them."""
WITHIN = {"backbone_sha256": ["backbone"], "data_fingerprint": ["task", "shots", "split_seed"]}
"""Columns that should agree among rows of one backbone or one task only."""
APART = {
    "protocol": "protocols",
    "precision": "precisions",
    "normalization": "pixel normalizations",
    "epochs": "lengths of training",
}
"""What keeps tables apart that a reader could take for one, and how a warning calls it."""


@dataclass(frozen=True)
class Statistic:
    """Mean and standard deviation (unbiased; None at n = 1) over n seeds; mean None is a hole."""

    n: int
    mean: float | None
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic:
        series = pd.Series(values, dtype=float)
        count = len(series)
        return cls(
            count,
            float(series.mean()) if count else None,
            float(series.std()) if count > 1 else None,
        )


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
        _table(dict(zip(TABLE_KEY, values, strict=True)), part, tasks)
        for values, part in frame.groupby(TABLE_KEY, sort=True)
    ]
    warnings = [] if len(tables) == 1 else _mixed(frame)
    for name, what in APART.items():
        if len({table.key[name] for table in tables}) > 1:
            warnings.append(f"several {what}: each has its own table, and numbers do not compare across them")
    said = {note for table in tables for note in table.notes}
    return tables, [warning for warning in warnings if warning not in said]


def warnings_of(tables: Sequence[Table], warnings: Sequence[str]) -> list[str]:
    """The notes of all tables and what else there is to say, each once."""
    return list(dict.fromkeys([*(note for table in tables for note in table.notes), *warnings]))


def _table(key: dict[str, Any], part: pd.DataFrame, tasks: Mapping[str, Manifest]) -> Table:
    notes = _mixed(part)
    given = key["protocol"] != "sealed"  # else the scale is a result
    varied = given and _several(part, [*LINE_KEY, "task", *REPETITION])
    line_key = [*LINE_KEY, "scale"] if varied else LINE_KEY
    cell = [*line_key, "task", *REPETITION]
    if _several(part, cell):
        notes.append(
            "some cells have several runs of one seed that differ in settings a table does not show; "
            "the latest counts (choose with --filter)"
        )
    latest = part.sort_values("finished_at").drop_duplicates(cell, keep="last")
    needed = _tasks(key["suite"], part, tasks)
    lines = [
        _line(dict(zip(line_key, values, strict=True)), group, needed, key["protocol"] == "peek")
        for values, group in latest.groupby(line_key, sort=False)
    ]
    lines.sort(key=lambda line: [_order(value) for value in line.key.values()])
    if key["protocol"] == "peek":
        notes.append("accuracies marked † are the best of several looks at test: no honest number compares")
    if key["altered"]:
        notes.append("its data sets are altered (data.override): they compare with no published row")
    return Table({name: _plain(value) for name, value in key.items()}, needed, lines, notes)


def _tasks(suite: str, part: pd.DataFrame, known: Mapping[str, Manifest]) -> list[Task]:
    """All tasks of a suite in the benchmark's order; of the user's own data those that were run."""
    facts = [m for m in known.values() if m.suite == suite and m.classes]
    if not facts:
        return [Task(*pair) for pair in sorted(set(zip(part["task"], part["group"], strict=True)))]
    facts.sort(key=lambda m: (m.group, m.position or len(known), m.name))
    return [Task(m.name, m.group) for m in facts]


def _line(key: dict[str, Any], part: pd.DataFrame, tasks: Sequence[Task], peek: bool) -> Line:
    shown = "acc_best_peek" if peek else "acc"
    groups = {
        group: [t.name for t in tasks if t.group == group] for group in dict.fromkeys(t.group for t in tasks)
    }
    accuracy, means = _means(part, shown, groups)
    costs = part.groupby("task")[[*BYTES, "params_trainable", "seconds"]].mean()
    present = sum(t.name in costs.index for t in tasks)
    total = costs.mean()
    bits = part["bits_per_weight"].dropna()
    return Line(
        key={name: _plain(value) for name, value in key.items()},
        tasks={t.name: Statistic.of(accuracy[t.name].dropna().tolist()) for t in tasks},
        groups={group: Statistic.of(means[group].dropna().tolist()) for group in groups},
        mean_of_groups=_complete(means),
        mean_of_tasks=_complete(accuracy),
        last_epoch=_complete(_means(part, "acc", groups)[1]) if peek else None,
        complete=f"{present}/{len(tasks)}",
        task_bytes={
            str(name): {column: float(values[column]) for column in BYTES}
            for name, values in costs.to_dict("index").items()
        },
        bytes={name: float(total[name]) for name in BYTES},
        bits_per_weight=float(bits.mean()) if len(bits) else None,
        params_trainable=float(total["params_trainable"]),
        seconds=float(total["seconds"]),
    )


def _means(
    part: pd.DataFrame, column: str, groups: Mapping[str, list[str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values by repetition and task, and their group means."""
    names = [name for group in groups.values() for name in group]
    values = part.pivot(index=REPETITION, columns="task", values=column).reindex(columns=names).astype(float)
    # A mean over tasks exists for a repetition only where it has every task: skipna=False.
    means = {group: values[held].mean(axis=1, skipna=False) for group, held in groups.items()}
    return values, pd.DataFrame(means)


def _complete(values: pd.DataFrame) -> Statistic:
    return Statistic.of(values.mean(axis=1, skipna=False).dropna().tolist())


def _several(frame: pd.DataFrame, key: list[str]) -> bool:
    return bool(frame.duplicated(key).any())


def _order(value: Any) -> tuple[int, Any]:
    """linear first, then adapters by name; numbers by size."""
    return (0, "") if value == "linear" else (1, value)


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's."""
    return value.item() if hasattr(value, "item") else value


def _mixed(frame: pd.DataFrame) -> list[str]:
    """In which provenance rows differ."""
    notes: list[str] = []
    for column, what in PROVENANCE.items():
        within = frame.groupby(WITHIN[column]) if column in WITHIN else frame.groupby(lambda _: 0)
        count = int(within[column].nunique().max())
        if count > 1:
            notes.append(f"rows come from {count} different {what}")
    if frame["git_dirty"].any():
        notes.append(f"{int(frame['git_dirty'].sum())} rows come from a checkout with uncommitted changes")
    return notes
