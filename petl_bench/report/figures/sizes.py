"""Accuracy against the bytes of the adapter file, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure as Sheet

from petl_bench.report.figures.labels import place
from petl_bench.report.figures.scales import byte_axis, in_bytes
from petl_bench.report.figures.series import (
    NAMED,
    Point,
    Series,
    accuracy_axis,
    draw,
    families,
    family,
    keys_apart,
    points,
    strokes,
)
from petl_bench.report.figures.style import GREY, Figure, listed, sheet_axes, zoomed_axes
from petl_bench.report.labels import label
from petl_bench.report.pareto import pareto
from petl_bench.report.tables import Row, Table
from petl_bench.types import FLOAT_BITS

MOST = 0.6
"""Share of the points that a zoomed panel shows, at least."""


def accuracy_bytes(table: Table, stem: str, context: str) -> Figure | None:
    """Draw mean of groups against bytes of the file, a marker for each row; None for fewer than two rows."""
    drawn = points(table.rows, lambda row: row.bytes["bytes_file"])
    if len(drawn) < 2:
        return None
    front = [drawn[index] for index in pareto([(point.x, point.y) for point in drawn])]

    def paint(sheet: Sheet) -> None:
        axes = sheet_axes(sheet, context, 3.7)
        series = [
            Series(
                label(point.row, table),
                family(point.row, table),
                str(_bits(point.row)),
                _bits(point.row),
                [point],
            )
            for point in drawn
        ]
        known = dict.fromkeys(one.family for one in series)  # in the order of the legend
        numbers = {name: str(number) for number, name in enumerate(known, 1)} if len(known) > NAMED else None
        crowd = _crowd(drawn) if numbers else []
        panels = [(axes, drawn), *([(zoomed_axes(sheet, 4.2), crowd)] if crowd else [])]
        steps = _steps(front, max(point.x for point in drawn))
        for panel, shown in panels:
            styles = draw(panel, series, table, joined=False)
            grey = panel.plot(
                *zip(*steps, strict=True), color=GREY, linewidth=1.0, zorder=2, label="Pareto front"
            )
            byte_axis(panel, [point.x for point in shown])
            accuracy_axis(panel, table)
        if crowd:
            low, high = crowd[0].y, crowd[-1].y
            panel.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
            panel.set_title("where most points are", loc="left", color=GREY)
        panel.set_xlabel("bytes of the file, adapter and head")
        keys_apart(sheet, series, styles, "bits", line=False, also=grey, numbers=numbers)
        best_first = [(point.x, point.y, _short(point, table)) for point in [front[-1], *front[:-1]]]
        for panel, shown in panels:
            texts = [(point.x, point.y, numbers[family(point.row, table)]) for point in shown if numbers]
            # In a zoomed panel a number may stand on an error bar: else many points would go without.
            around = strokes(series) if panel is axes else [[(point.x, point.y)] for point in drawn]
            place(panel, [*best_first, *texts] if panel is axes else texts, [steps, *around])

    best = [f"{label(point.row, table)} ({point.y:.1f} % at {in_bytes(point.x)})" for point in front]
    return Figure(
        f"{stem}-accuracy-bytes",
        f"Accuracy against bytes: {context}",
        f"Mean of group accuracies in percent of {len(drawn)} configurations against the bytes of one task's "
        f"file on a logarithmic axis, with error bars of one standard deviation over seeds where there are "
        f"several. The Pareto front: {listed(best)}.",
        paint,
    )


def _bits(row: Row) -> int:
    """Return the bits of the matrices, or of the float parameters where there are no matrices."""
    return int(row.key["bits"] if row.key["hidden"] else row.key.get("float_bits", FLOAT_BITS))


def _crowd(drawn: Sequence[Point]) -> list[Point]:
    """Return the points of the narrowest band of accuracy that holds most points, from low to high.

    It is empty where they take more than half of the height of all points.
    """
    rising = sorted(drawn, key=lambda point: point.y)
    count = math.ceil(MOST * len(rising))
    bands = [rising[start : start + count] for start in range(len(rising) - count + 1)]
    found = min(bands, key=lambda band: band[-1].y - band[0].y)
    low, high = found[0].y, found[-1].y
    return found if 0 < high - low < (rising[-1].y - rising[0].y) / 2 else []


def _steps(front: Sequence[Point], edge: float) -> list[tuple[float, float]]:
    """Return the corners of the line below which all dominated points lie, up to the largest file."""
    corners: list[tuple[float, float]] = []
    for point in front:
        corners += [(point.x, corners[-1][1])] if corners else []
        corners.append((point.x, point.y))
    return [*corners, (edge, corners[-1][1])]


def _short(point: Point, table: Table) -> str:
    """Return a short label such as `h16, 1 bit`; it names the adapter only where colour and marker do not."""
    without = set() if len(families(table)) > NAMED else {"adapter"}
    return label(point.row, table, without=without) or str(point.row.key["adapter"])
