"""Accuracy against the bytes of the adapter file, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Sheet

from petl_bench.report.columns import label
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
from petl_bench.report.tables import Table


def pareto(sizes: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other dominates, the smallest first; of equal points the first.

    Args:
        sizes: bytes and accuracy; a point dominates another that has at least its bytes and at most its
            accuracy, unless both are equal.
    """
    front: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: (sizes[index][0], -sizes[index][1], index)):
        if not front or sizes[index][1] > sizes[front[-1]][1]:
            front.append(index)
    return front


def accuracy_bytes(table: Table, stem: str, context: str) -> Figure | None:
    """Mean of groups against bytes of the file, a mark a line; at least two lines."""
    drawn = points(table.lines, lambda line: line.bytes["bytes_file"])
    if len(drawn) < 2:
        return None
    front = [drawn[index] for index in pareto([(point.x, point.y) for point in drawn])]

    def paint(sheet: Sheet) -> None:
        axes = sheet_axes(sheet, context, 3.7)
        series = [
            Series(
                label(point.line, table),
                family(point.line, table),
                str(point.line.key["bits"]),
                point.line.key["bits"],
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

    best = [f"{label(point.line, table)} ({point.y:.1f} % at {in_bytes(point.x)})" for point in front]
    return Figure(
        f"{stem}-accuracy-bytes",
        f"Accuracy against bytes: {context}",
        f"Mean of group accuracies in percent of {len(drawn)} methods against the bytes of one task's file "
        f"on a logarithmic axis, with bars of one standard deviation over seeds where there are several. "
        f"The Pareto front: {listed(best)}.",
        paint,
    )


def _steps(front: Sequence[Point], edge: float) -> list[tuple[float, float]]:
    """Corners of the line under which every dominated point lies, out to the largest file."""
    corners: list[tuple[float, float]] = []
    for point in front:
        corners += [(point.x, corners[-1][1])] if corners else []
        corners.append((point.x, point.y))
    return [*corners, (edge, corners[-1][1])]


def _short(point: Point, table: Table) -> str:
    """`h16, 1 bit`: colour and marker say the adapter, unless it has no more to say or they are too many."""
    without = set() if len(families(table)) > NAMED else {"adapter"}
    return label(point.line, table, without=without) or str(point.line.key["adapter"])
