"""What few bits cost: differences in accuracy by task between a configuration's fewest bits and its most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

from petl_bench.errors import counted
from petl_bench.report.columns import label
from petl_bench.report.figures.series import families, family, grouped
from petl_bench.report.figures.style import (
    GREY,
    MARKERS,
    Figure,
    Look,
    brief,
    key_below,
    listed,
    looks,
    parts,
    sheet_axes,
)
from petl_bench.report.tables import Line, Table

TOGETHER = 6
"""Configurations in one figure: more dots in the row of a task are not told apart."""


@dataclass(frozen=True)
class Difference:
    """One configuration: accuracy at its fewest bits less that at its most."""

    label: str
    family: str
    points: list[float]
    """Percent points by task, in the table's order."""


def task_differences(
    pairs: Sequence[tuple[Line, Line]], table: Table, stem: str, context: str, margin: float
) -> list[Figure]:
    """A dot a task and configuration, a band of +-margin (a fraction); six configurations a figure.

    Args:
        pairs: lines and what each is compared with; of those that differ in bits alone the fewest count.
    """
    found = _differences(pairs, table)
    return [
        _figure(part, table, name, said, 100 * margin)
        for part, name, said in parts(found, TOGETHER, f"{stem}-task-differences", context)
    ]


def _differences(pairs: Sequence[tuple[Line, Line]], table: Table) -> list[Difference]:
    alike = grouped([line for line, _ in pairs], {"bits"}).values()
    fewest = {id(min(lines, key=lambda line: int(line.key["bits"]))) for lines in alike}
    return [
        Difference(
            f"{label(few, table, {'bits'})}: {counted(few.key['bits'], 'bit')} minus {many.key['bits']}",
            family(few, table),
            [
                100 * ((few.tasks[task.name].mean or 0) - (many.tasks[task.name].mean or 0))
                for task in table.tasks
            ],
        )
        for few, many in pairs
        if id(few) in fewest
    ]


def _looks(part: Sequence[Difference], table: Table) -> list[Look]:
    """Each its family's, as in the other figures; where two are of one family all markers are new."""
    known = looks(families(table), [""])
    found = [known[difference.family, ""] for difference in part]
    if len({difference.family for difference in part}) < len(part):
        return [replace(look, marker=marker) for look, marker in zip(found, MARKERS, strict=False)]
    return found


def _figure(part: Sequence[Difference], table: Table, name: str, context: str, margin: float) -> Figure:
    rows = np.arange(len(table.tasks))

    def paint(sheet: Sheet) -> None:
        room = max(0.2, 0.075 * len(part) + 0.06)
        axes = sheet_axes(sheet, context, 0.6 + room * len(rows))
        band = axes.axvspan(-margin, margin, color="#e9e9e9", linewidth=0, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
        styles = _looks(part, table)
        for number, (difference, look) in enumerate(zip(part, styles, strict=True)):
            place = (number + 0.5) / len(part) - 0.5
            axes.plot(
                difference.points,
                rows + 0.75 * place,
                linestyle="none",
                label=difference.label,
                **look.mark(),
            )
        _rows(axes, table)
        axes.set_xlabel("difference in accuracy (percent points)")
        signs = [*(look.sign(line=False) for look in styles), band]
        key_below(sheet, signs, [*(difference.label for difference in part), f"within ±{margin:g} points"])

    inside = [
        f"{difference.label} {sum(abs(value) <= margin for value in difference.points)} of {len(rows)}"
        for difference in part
    ]
    return Figure(
        name,
        f"Differences by task: {context}",
        f"Accuracy at the fewest bits less accuracy at the most, in percent points, for each of "
        f"{counted(len(rows), 'task')}; tasks within ±{margin:g} points: {listed(inside)}.",
        paint,
    )


def _rows(axes: Axes, table: Table) -> None:
    """A row a task, the first above; lines between groups, and their names at the right."""
    names = [task.name.removeprefix(f"{table.key['suite']}_") for task in table.tasks]
    axes.set_yticks(range(len(names)), [brief(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    groups = [task.group for task in table.tasks]
    for group in table.groups:
        first, last = groups.index(group), len(groups) - 1 - groups[::-1].index(group)
        if first:
            axes.axhline(first - 0.5, color=GREY, linewidth=0.7, linestyle=(0, (2, 2)))
        axes.text(
            1.015,
            (first + last) / 2,
            brief(group),
            transform=axes.get_yaxis_transform(),
            va="center",
            color=GREY,
        )
