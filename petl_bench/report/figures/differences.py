"""Differences in accuracy by task between rows that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

from petl_bench.errors import counted
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
from petl_bench.report.labels import label
from petl_bench.report.tables import Row, Table

TOGETHER = 6
"""Largest number of configurations in one figure; more points of one task could not be told apart."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of one configuration minus that of another.

    Attributes:
        label: names of both; of bit-widths, the configuration and both numbers of bits.
        family: family of the configuration, which determines its colour and marker.
        points: differences in percent points by task, in the order of the table.
    """

    label: str
    family: str
    points: list[float]


def task_differences(
    pairs: Sequence[tuple[Row, Row]],
    table: Table,
    stem: str,
    context: str,
    margin: float,
    asked: bool = False,
) -> list[Figure]:
    """Draw a point for each task and configuration, over a band of differences within the margin.

    Args:
        pairs: rows and the rows they are compared with.
        table: the table of all rows.
        stem: first part of the file name.
        context: settings that all rows have in common.
        margin: largest difference that counts as equivalent, a fraction of 1.
        asked: draw all pairs; otherwise they are of bit-widths, and of rows that differ only in bits, the one
            with the fewest bits is drawn.

    Returns:
        Figures of at most six configurations each.
    """
    what = "Accuracy at the fewest bits minus accuracy at the most bits"
    found = [] if asked else _of_widths(pairs, table)
    if asked:
        what = "Differences in accuracy"
        found = [_difference(f"{label(a, table)} minus {label(b, table)}", a, b, table) for a, b in pairs]
    return [
        _figure(part, table, name, said, 100 * margin, what)
        for part, name, said in parts(found, TOGETHER, f"{stem}-task-differences", context)
    ]


def _of_widths(pairs: Sequence[tuple[Row, Row]], table: Table) -> list[Difference]:
    alike = grouped([row for row, _ in pairs], {"bits"}).values()
    fewest = {id(min(rows, key=lambda row: int(row.key["bits"]))) for rows in alike}
    return [
        _difference(
            f"{label(few, table, {'bits'})}: {counted(few.key['bits'], 'bit')} minus {many.key['bits']}",
            few,
            many,
            table,
        )
        for few, many in pairs
        if id(few) in fewest
    ]


def _difference(name: str, row: Row, against: Row, table: Table) -> Difference:
    points = [
        100 * ((row.tasks[task.name].mean or 0) - (against.tasks[task.name].mean or 0))
        for task in table.tasks
    ]
    return Difference(name, family(row, table), points)


def _looks(part: Sequence[Difference], table: Table) -> list[Look]:
    """Return the look of each family as in other figures, with new markers where two share a family."""
    known = looks(families(table), [""])
    found = [known[difference.family, ""] for difference in part]
    if len({difference.family for difference in part}) < len(part):
        return [replace(look, marker=marker) for look, marker in zip(found, MARKERS, strict=False)]
    return found


def _figure(
    part: Sequence[Difference], table: Table, name: str, context: str, margin: float, what: str
) -> Figure:
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
        f"{what}, in percent points, for each of "
        f"{counted(len(rows), 'task')}; tasks within ±{margin:g} points: {listed(inside)}.",
        paint,
    )


def _rows(axes: Axes, table: Table) -> None:
    """Set up one row per task from top to bottom, with lines between groups and their names on the right."""
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
