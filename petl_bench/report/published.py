"""Published results of others, which are cited beside ours and enter no computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from petl_bench.report.suites import Task
from petl_bench.report.tables import Table
from petl_bench.types import Manifest

SUITE = "vtab"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table on VTAB-1K; fields are None where the source does not state them.

    Accuracies are fractions of 1; tasks and groups stand in the order of our tables.

    Attributes:
        method: name of the method in the source.
        source: repository, and folder in it, whose README has the row.
        backbone: pretrained weights, by their name in conf/backbone, or `unknown`.
        normalization: pixel normalization, one of NORMALIZATIONS, or `unknown`.
        selection: how the reported epoch was chosen.
        accuracy: accuracy by task.
        groups: mean accuracy by group of tasks.
        mean_of_groups: mean of the group means.
        mean_of_tasks: mean over all tasks.
        hidden: hidden size of the adapter.
        bits: bits per weight of the adapter.
        head: kind of the classification head.
        adapter: name of the same method in this package.
        kib: size of one task's files with the head, in KiB (1024 bytes), the mean of the three group means.
    """

    method: str
    source: str
    backbone: str
    normalization: str
    selection: str
    accuracy: dict[str, float | None]
    groups: dict[str, float | None]
    mean_of_groups: float
    mean_of_tasks: float | None
    hidden: int | None = None
    bits: int | None = None
    head: str | None = None
    adapter: str | None = None
    kib: float | None = None


def published(manifests: Mapping[str, Manifest]) -> list[PublishedRow]:
    """Return the rows of published.yaml in its order.

    Args:
        manifests: all known tasks by name; they define the group of each task.
    """
    return read(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"), manifests)


def read(text: str, manifests: Mapping[str, Manifest]) -> list[PublishedRow]:
    """Read rows from YAML text in the form of published.yaml, and average those that have every task.

    Args:
        text: YAML text.
        manifests: all known tasks by name; they define the group of each task.

    Raises:
        ValueError: a row has neither one value for each task nor one average, or a value outside 0 to 100.
        TypeError: a row has an unknown key, or lacks one.
    """
    content = yaml.safe_load(text)
    tasks = [Task(name, manifests[name].group) for name in content["tasks"]]
    return [
        _row(tasks, **{key: value for key, value in source.items() if key != "rows"} | row)
        for source in content["sources"]
        for row in source["rows"]
    ]


def cautions(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[str]:
    """Return warnings about differences in weights or pixels between these tables and published rows."""
    ours = [table for table in tables if table.key["suite"] == SUITE]
    if not ours:
        return ["the published rows are results on VTAB-1K, but this report has none on VTAB-1K"]
    facts = {
        "weights": ({row.key["backbone"] for t in ours for row in t.rows}, {row.backbone for row in rows}),
        "pixel normalization": ({t.key["normalization"] for t in ours}, {row.normalization for row in rows}),
    }
    found = []
    for name, (used, cited) in facts.items():
        known = sorted(cited - {UNKNOWN})
        if others := sorted(used - set(known)):
            verb = "are" if name == "weights" else "is"
            found.append(
                f"published rows whose {name} {verb} known were made with {' or '.join(known)}, "
                f"not with {', '.join(others)}"
            )
    return found


def _row(
    tasks: Sequence[Task],
    method: str,
    values: Sequence[float] | None = None,
    average: float | None = None,
    **facts: Any,
) -> PublishedRow:
    if (values is None) == (average is None):
        raise ValueError(f"published row {method}: needs either values or an average")
    if values is not None and len(values) != len(tasks):
        raise ValueError(f"published row {method}: {len(values)} values for {len(tasks)} tasks")
    percent: Sequence[Any] = [average] if values is None else values
    if not all(type(value) in (int, float) and 0 <= value <= 100 for value in percent):
        raise ValueError(f"published row {method}: {percent} must be percent, from 0 to 100")
    fractions = [round(value / 100, 9) for value in values or []]  # 68.9 becomes exactly 0.689
    held = dict(zip(tasks, fractions, strict=False))  # every task, or none
    by_group = {task.group: [held[t] for t in held if t.group == task.group] for task in tasks}
    means = {group: fmean(of_group) for group, of_group in by_group.items() if of_group}
    return PublishedRow(
        method=method,
        accuracy={task.name: held.get(task) for task in tasks},
        groups={group: means.get(group) for group in by_group},
        mean_of_groups=fmean(means.values()) if average is None else round(average / 100, 9),
        mean_of_tasks=fmean(held.values()) if held else None,
        **facts,
    )
