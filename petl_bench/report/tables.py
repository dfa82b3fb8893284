"""Tables of results: cells are means over seeds, averages are means over tasks.

An average exists only where every task that it needs has a result; incomplete averages are left blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from petl_bench.report.averages import (
    GROUP,
    HEADLINE,
    LINE,
    MEAN,
    TASK,
    Statistic,
    aggregated,
    number,
    statistic,
    wide,
)
from petl_bench.report.consistency import inconsistencies, mixed_machines
from petl_bench.report.lines import BY_TASK, told_apart
from petl_bench.report.settings import (
    ALWAYS_SHOWN,
    OFF_BY_DEFAULT,
    REPETITIONS,
    SEPARATED,
    TABLE_SETTINGS,
    WITHOUT_ADAPTER,
)
from petl_bench.report.suites import Task, suite_tasks
from petl_bench.report.variants import Variants, remark, variants
from petl_bench.types import Manifest, ResultRow, methods

BLANK = "-"
"""Text of a cell without a value."""

UNKNOWN = -1
"""Placeholder for the image size of an old row whose spec is lost."""
BYTES = ["bytes_adapter", "bytes_adapter_raw", "bytes_head", "bytes_overhead", "bytes_file"]


@dataclass(frozen=True)
class Row:
    """One configuration: a statistic for each task and each average, sizes and times.

    Attributes:
        key: settings that tell the row from the other rows of its table.
        tasks: accuracy by task.
        groups: mean accuracy by group of tasks.
        mean_of_groups: mean of the group means.
        mean_of_tasks: mean over all tasks.
        last_epoch: mean of groups at the last epoch, where the other accuracies are best-on-test; else None.
        complete: number of tasks with results out of all tasks of the table, as "4/5".
        bytes: bytes of each part of one task's adapter file, means over tasks.
        task_bytes: the bytes of each part by task.
        bits_per_weight: mean over tasks; None for a method without adapter weights.
        params_trainable: mean over tasks, whose heads differ in size.
        seconds: duration of one run with search, training and evaluation, mean over tasks.
        runs: run_ids of its runs.
        repeated: accuracy by task and repetition, which is a seed and a draw of the training images.
    """

    key: dict[str, Any]
    tasks: dict[str, Statistic]
    groups: dict[str, Statistic]
    mean_of_groups: Statistic
    mean_of_tasks: Statistic
    last_epoch: Statistic | None
    complete: str
    bytes: dict[str, float]
    task_bytes: dict[str, dict[str, float]]
    bits_per_weight: float | None
    params_trainable: float
    seconds: float
    runs: frozenset[str]
    repeated: dict[str, dict[tuple[int, int], float]]

    @property
    def tried(self) -> bool:
        """Return whether the store holds several variants of one of its cells."""
        return any(value.variants > 1 for value in self.tasks.values())


@dataclass(frozen=True)
class Table:
    """All rows of one suite under one protocol and training recipe.

    Attributes:
        key: settings that all rows have in common, and the tasks of a `subset` of the suite.
        tasks: columns in the benchmark's order, group by group: the tasks of the suite that were run.
        rows: configurations in the order in which they are printed.
        notes: differences between the runs of the table, and remarks on how its numbers were obtained.
        repetition: name of the repetitions that means and standard deviations are over.
        lacking: tasks of the suite that no run is on; averages and tests are over the others alone.
    """

    key: dict[str, Any]
    tasks: list[Task]
    rows: list[Row]
    notes: list[str]
    repetition: str = "seeds"
    lacking: Sequence[Task] = ()

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(task.group for task in self.tasks))

    @cached_property
    def shown_settings(self) -> list[str]:
        """Settings that have a column: bits and hidden always, others where rows differ in them."""
        names = [name for name in self.rows[0].key if name != "adapter"]
        varied = {name for name in names if len({setting(row, name) for row in self.rows} - {BLANK}) > 1}
        varied |= {name for name in OFF_BY_DEFAULT if any(row.key[name] for row in self.rows)}
        return [name for name in names if name in varied | ALWAYS_SHOWN]


def setting(row: Row, name: str) -> str:
    """Return a setting as text, BLANK where the method does not have it."""
    if row.key["hidden"] == 0 and name not in WITHOUT_ADAPTER:
        return BLANK
    if name == "quantizer" and row.key["quantizer"] == "none":
        return BLANK
    if (known := methods().get(row.key["adapter"])) and name in known.unused:
        return BLANK
    if row.key[name] in (None, "") or (name in OFF_BY_DEFAULT and not row.key[name]):
        return BLANK
    return str(row.key[name])


def tabulate(
    results: Sequence[ResultRow], tasks: Mapping[str, Manifest], held: Mapping[str, Variants] | None = None
) -> tuple[list[Table], list[str]]:
    """Arrange finished runs in tables.

    Args:
        results: finished runs.
        tasks: all known tasks by name; they define which tasks the averages of a suite need, and their order.
        held: variants of each run's cell in the whole store; None: the results are the whole store.

    Returns:
        The tables, and warnings about differences between them.
    """
    held = variants(results) if held is None else held
    frame = pd.DataFrame([vars(row) for row in results])
    if frame.empty:
        return [], []
    raw = frame["bytes_adapter_raw"].astype(float).fillna(frame["bytes_adapter"])  # older files were raw
    frame["bytes_adapter_raw"] = raw.astype(int)
    frame["image_size"] = frame["image_size"].astype(float).fillna(UNKNOWN).astype(int)
    frame["searched"] = frame["searched"].fillna("")
    frame["altered"] = frame["data_override"] != ""
    frame["seconds"] = frame["seconds_search"] + frame["seconds_train"] + frame["seconds_eval"]
    tables = [
        _table(dict(zip(TABLE_SETTINGS, values, strict=True)), part, tasks, held)
        for values, part in frame.groupby(TABLE_SETTINGS, sort=True)
    ]
    warnings = [] if len(tables) == 1 else inconsistencies(frame, rates=False)
    for name, values in SEPARATED.items():
        if len({table.key[name] for table in tables}) > 1:
            warnings.append(
                f"there are several {values}: each has its own table, and results of different tables are "
                "not comparable"
            )
    empty = [note for table in tables if not table.rows for note in table.notes]
    tables = [table for table in tables if table.rows]
    said = {note for table in tables for note in table.notes}
    return tables, [warning for warning in [*warnings, *empty] if warning not in said]


def _table(
    key: dict[str, Any], part: pd.DataFrame, known: Mapping[str, Manifest], held: Mapping[str, Variants]
) -> Table:
    key = {name: _plain(value) for name, value in key.items()}
    tasks = suite_tasks(key["suite"], part, known)
    notes = inconsistencies(part, rates=key["protocol"] != "sealed")
    strange = sorted(set(part["task"]) - {task.name for task in tasks})
    if strange:
        notes.append(
            f"results on tasks that suite {key['suite']} does not have are left out: {', '.join(strange)}"
        )
        part = part[~part["task"].isin(strange)]
    lacking = [task for task in tasks if not (part["task"] == task.name).any()]
    tasks = [task for task in tasks if task not in lacking]
    names, part, apart = told_apart(part, key["protocol"] == "sealed")
    part = part.assign(**{LINE: part.groupby(names).ngroup()})
    cell = [LINE, "task", *REPETITIONS]
    if part.duplicated(cell).any():
        notes.append(
            "some cells have several runs of the same seed that differ in something the table does not show "
            "(weights, data or settings); the latest run is used (--filter chooses another)"
        )
    latest = part.sort_values("finished_at").drop_duplicates(cell, keep="last")
    rows = [] if latest.empty else _rows(latest, names, tasks, held, key["protocol"] == "peek")
    notes += [*apart, *mixed_machines(latest, LINE)]
    rows.sort(key=lambda row: [_order(value) for value in row.key.values()])
    if any(_uneven(row) for row in rows):
        notes.append(
            "not every row has the same seeds on all its tasks: averages are over the seeds that have "
            "results on every task, and comparisons of two rows may be between different seeds"
        )
    notes += filter(None, [remark(held[run_id] for run_id in part["run_id"])])
    if key["protocol"] == "peek":
        notes.append(
            "accuracies marked † are the best of several evaluations on the test images; they are too high "
            "to be compared with results of other protocols"
        )
    if key["altered"]:
        notes.append(
            "the data sets of this table were altered (data.override): its results are not comparable with "
            "published ones"
        )
    repetition = " and ".join(
        name for column, name in REPETITIONS.items() if latest[column].nunique() > 1 or column == "seed"
    )
    key["recipe_name"] = next(filter(None, latest["recipe_name"][::-1]), "")
    key["subset"] = ",".join(task.name for task in tasks) if lacking else ""
    return Table(key, tasks, rows, notes, repetition, lacking)


def _rows(
    latest: pd.DataFrame, names: list[str], tasks: Sequence[Task], held: Mapping[str, Variants], peek: bool
) -> list[Row]:
    """Return the rows of a table in any order.

    Args:
        latest: one run for each row, task and repetition.
        names: settings that tell rows apart.
        tasks: columns of the table.
        held: variants of each run's cell.
        peek: show the best accuracy on the test images.
    """
    shown = "acc_best_peek" if peek else "acc"
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(task.group, []).append(task.name)
    found = aggregated(wide(latest, shown, groups))
    final = aggregated(wide(latest, "acc", groups)) if peek else found
    columns = [*BYTES, "bits_per_weight", "params_trainable", "seconds"]
    by_task = latest.groupby([LINE, "task"])[columns].mean()
    total: Any = by_task.groupby(level=LINE).mean().to_dict("index")
    keys: Any = latest.drop_duplicates(LINE).set_index(LINE)[names].to_dict("index")
    task_bytes: dict[int, dict[str, dict[str, float]]] = {}
    of_tasks: Any = by_task[BYTES].to_dict("index")
    for (line, task), values in of_tasks.items():
        task_bytes.setdefault(line, {})[task] = values
    tried: dict[int, dict[str, int]] = {}
    runs: dict[int, set[str]] = {}
    repeated: dict[int, dict[str, dict[tuple[int, int], float]]] = {}
    singly = latest[[LINE, "task", "run_id", *REPETITIONS, shown]]
    for line, task, run_id, seed, draw, accuracy in singly.itertuples(index=False, name=None):
        tried.setdefault(line, {})[task] = held[run_id].count
        runs.setdefault(line, set()).add(run_id)
        repeated.setdefault(line, {}).setdefault(task, {})[seed, draw] = accuracy
    return [
        Row(
            key={name: _plain(value) for name, value in keys[line].items()},
            tasks={t.name: statistic(values, (TASK, t.name), [tried[line].get(t.name, 1)]) for t in tasks},
            groups={
                name: statistic(values, (GROUP, name), [tried[line].get(task, 1) for task in own])
                for name, own in groups.items()
            },
            mean_of_groups=statistic(values, HEADLINE, tried[line].values()),
            mean_of_tasks=statistic(values, (MEAN, "tasks"), tried[line].values()),
            last_epoch=statistic(final[line], HEADLINE, tried[line].values()) if peek else None,
            complete=f"{len(task_bytes[line])}/{len(tasks)}",
            task_bytes=task_bytes[line],
            bytes={name: total[line][name] for name in BYTES},
            bits_per_weight=number(total[line]["bits_per_weight"]),
            params_trainable=total[line]["params_trainable"],
            seconds=total[line]["seconds"],
            runs=frozenset(runs[line]),
            repeated=repeated[line],
        )
        for line, values in found.items()
    ]


def _uneven(row: Row) -> bool:
    """Tell whether a row that has every task lacks repetitions on some, so that its averages use fewer."""
    present = [value.n for value in row.tasks.values()]
    return min(present) > 0 and row.mean_of_tasks.n < max(present)


def _order(value: Any) -> tuple[int, Any]:
    """Return a sort key: `linear` first, then adapters by name; numbers by size, None first."""
    return (0, "") if value in ("linear", None) else (1, value)


def _plain(value: Any) -> Any:
    """Return a NumPy number as a Python number, and a placeholder as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if value in (BY_TASK, UNKNOWN) else value
