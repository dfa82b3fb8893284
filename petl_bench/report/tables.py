"""Rows of the store -> cells (means over seeds) and lines (means over tasks). No average hides a hole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from petl_bench.types import Manifest, ResultRow

TABLE_KEY = [
    "suite",
    "shots",
    "backbone",
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


@dataclass(frozen=True)
class Table:
    """All lines of one suite under one protocol and recipe."""

    key: dict[str, Any]
    tasks: list[Task]
    lines: list[Line]


def tabulate(rows: Iterable[ResultRow], tasks: Mapping[str, Manifest]) -> tuple[list[Table], list[str]]:
    """Tables and warnings.

    Args:
        rows: finished runs.
        tasks: all known tasks; they say which tasks a suite's averages need.
    """
    frame = pd.DataFrame([asdict(row) for row in rows])
    if frame.empty:
        return [], []
    # Files of older rows were raw.
    frame["bytes_adapter_raw"] = frame["bytes_adapter_raw"].fillna(frame["bytes_adapter"])
    frame["altered"] = frame["data_override"] != ""
    warnings = _provenance_warnings(frame)
    tables = []
    for values, part in frame.groupby(TABLE_KEY, sort=True):
        given = part["protocol"].iloc[0] != "sealed"  # else the scale is a result
        varied = given and _several(part, [*LINE_KEY, "task", *REPETITION])
        line_key = [*LINE_KEY, "scale"] if varied else LINE_KEY
        if _several(part, [*line_key, "task", *REPETITION]):
            warnings.append(
                "some cells have several runs of one seed that differ in settings a table does not show; "
                "the latest counts (choose with --filter)"
            )
        cell = [*line_key, "task", *REPETITION]
        latest = part.sort_values("finished_at").drop_duplicates(cell, keep="last")
        key = dict(zip(TABLE_KEY, _tuple(values), strict=True))
        needed = [Task(t.name, t.group) for t in tasks.values() if t.suite == key["suite"] and t.classes]
        needed = needed or [Task(*pair) for pair in set(zip(part["task"], part["group"], strict=True))]
        needed = sorted(needed, key=lambda t: (t.group, t.name))
        lines = [
            _line(dict(zip(line_key, _tuple(v), strict=True)), group, needed, key["protocol"] == "peek")
            for v, group in latest.groupby(line_key, sort=False)
        ]
        lines.sort(key=lambda line: [_order(value) for value in line.key.values()])
        tables.append(Table(key, needed, lines))
    if len({t.key["protocol"] for t in tables}) > 1:
        warnings.append("several protocols: each has its own table, and numbers do not compare across them")
    if any(t.key["protocol"] == "peek" for t in tables):
        warnings.append("tables marked † show the best of several looks at test: no honest number compares")
    if any(t.key["altered"] for t in tables):
        warnings.append("tables of altered data sets (data.override) compare with no published row")
    return tables, warnings


def _line(key: dict[str, Any], part: pd.DataFrame, tasks: Sequence[Task], peek: bool) -> Line:
    by_task = {t.name: part[part["task"] == t.name] for t in tasks}
    shown = "acc_best_peek" if peek else "acc"
    groups = {
        group: [t.name for t in tasks if t.group == group] for group in dict.fromkeys(t.group for t in tasks)
    }
    accuracy, means = _means(part, shown, groups)
    present = sum(not held.empty for held in by_task.values())
    bits = part["bits_per_weight"].dropna()
    return Line(
        key={k: v.item() if hasattr(v, "item") else v for k, v in key.items()},
        tasks={name: Statistic.of(held[shown].tolist()) for name, held in by_task.items()},
        groups={group: Statistic.of(means[group].dropna().tolist()) for group in groups},
        mean_of_groups=_complete(means),
        mean_of_tasks=_complete(accuracy),
        last_epoch=_complete(_means(part, "acc", groups)[1]) if peek else None,
        complete=f"{present}/{len(tasks)}",
        task_bytes={
            name: {column: float(held[column].mean()) for column in BYTES}
            for name, held in by_task.items()
            if len(held)
        },
        bytes={name: float(part.groupby("task")[name].mean().mean()) for name in BYTES},
        bits_per_weight=float(bits.mean()) if len(bits) else None,
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


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _provenance_warnings(frame: pd.DataFrame) -> list[str]:
    warnings: list[str] = []
    for column, what in PROVENANCE.items():
        within = frame.groupby(WITHIN[column]) if column in WITHIN else frame.groupby(lambda _: 0)
        count = int(within[column].nunique().max())
        if count > 1:
            warnings.append(f"rows come from {count} different {what}")
    if frame["git_dirty"].any():
        warnings.append(f"{int(frame['git_dirty'].sum())} rows come from a checkout with uncommitted changes")
    return warnings
