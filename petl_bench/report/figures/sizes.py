"""Accuracy against the bytes of the adapter file, with the Pareto front."""

from __future__ import annotations

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
from petl_bench.report.figures.style import GREY, Figure, listed, sheet_axes
from petl_bench.report.labels import label
from petl_bench.report.pareto import pareto
from petl_bench.report.tables import Table


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
                str(point.row.key["bits"]),
                point.row.key["bits"],
                [point],
            )
            for point in drawn
        ]
        styles = draw(axes, series, table, joined=False)
        steps = _steps(front, max(point.x for point in drawn))
        grey = axes.plot(*zip(*steps, strict=True), color=GREY, linewidth=1.0, zorder=2, label="Pareto front")
        keys_apart(sheet, series, styles, "bits", line=False, also=grey)
        byte_axis(axes, [point.x for point in drawn])
        axes.set_xlabel("bytes of the file, adapter and head")
        accuracy_axis(axes, table)
        place(
            axes,
            [(point.x, point.y, _short(point, table)) for point in [front[-1], *front[:-1]]],
            [steps, *strokes(series)],
        )

    best = [f"{label(point.row, table)} ({point.y:.1f} % at {in_bytes(point.x)})" for point in front]
    return Figure(
        f"{stem}-accuracy-bytes",
        f"Accuracy against bytes: {context}",
        f"Mean of group accuracies in percent of {len(drawn)} methods against the bytes of one task's file "
        f"on a logarithmic axis, with error bars of one standard deviation over seeds where there are "
        f"several. The Pareto front: {listed(best)}.",
        paint,
    )


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
