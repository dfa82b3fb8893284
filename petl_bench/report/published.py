"""Results that others published, cited beside ours and never computed with: published.yaml and its reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from petl_bench.report.tables import Table, Task
from petl_bench.types import Manifest

SUITE = "vtab"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class PublishedRow:
    """One row of another's table on VTAB-1K; None where its source does not say.

    Accuracies are fractions from 0 to 1, as in rows of the store; tasks and groups stand as in our tables.
    """

    method: str
    source: str
    """Repository, and folder in it, whose README has the row."""
    backbone: str
    """The weights, by their name in conf/backbone, or `unknown`."""
    normalization: str
    """Of pixels: one of NORMALIZATIONS, or `unknown`."""
    selection: str
    """How the reported epoch was chosen."""
    accuracy: dict[str, float | None]
    groups: dict[str, float | None]
    mean_of_groups: float
    mean_of_tasks: float | None
    hidden: int | None = None
    bits: int | None = None
    head: str | None = None
    adapter: str | None = None
    """The same method here, where there is one."""
    kib: float | None = None
    """Size of one task's files, head included, in KiB (1024 bytes): the mean of the three group means."""


def published(manifests: Mapping[str, Manifest]) -> list[PublishedRow]:
    """The rows of published.yaml, in its order.

    Args:
        manifests: all known tasks; they say which group a task is of.
    """
    return read(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"), manifests)


def read(text: str, manifests: Mapping[str, Manifest]) -> list[PublishedRow]:
    """Rows from YAML text as in published.yaml, with the means of those that have a value for every task.

    Raises:
        ValueError: a row has neither one value a task nor one average, or a value outside 0 to 100.
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
    """What keeps these tables from being compared with published rows."""
    ours = [table for table in tables if table.key["suite"] == SUITE]
    if not ours:
        return ["the published rows are of VTAB-1K, and no other row of this report is"]
    facts = {
        "weights": ({line.key["backbone"] for t in ours for line in t.lines}, {row.backbone for row in rows}),
        "pixel normalization": ({t.key["normalization"] for t in ours}, {row.normalization for row in rows}),
    }
    found = []
    for what, (used, published) in facts.items():
        known = sorted(published - {UNKNOWN})
        if others := sorted(used - set(known)):
            verb = "are" if what == "weights" else "is"
            found.append(
                f"published rows whose {what} {verb} known were made with {' or '.join(known)}, "
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
    fractions = [round(value / 100, 9) for value in values or []]  # of 68.9 exactly 0.689
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
