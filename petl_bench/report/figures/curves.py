"""Accuracy in curves: against bits a weight, against hidden size at a byte budget, against shots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

from petl_bench.report.columns import counted, label
from petl_bench.report.figures.labels import place
from petl_bench.report.figures.scales import doubling_axis, in_bytes, listed_axis
from petl_bench.report.figures.series import (
    WIDTHS,
    Point,
    Series,
    accuracy_axis,
    draw,
    family,
    grouped,
    keys,
    most_accurate,
    points,
    strokes,
    variant,
)
from petl_bench.report.figures.style import Figure, listed, sheet_axes
from petl_bench.report.tables import Line, Table

BUDGETS = 3
"""Byte budgets in one figure at most."""
WRITTEN = 20
"""Points that a text each does not bury."""


def accuracy_bits(table: Table, stem: str, context: str) -> Figure | None:
    """Mean of groups against bits a weight, a curve a configuration that has two widths.

    Where several lines of a configuration have as many bits, the most accurate stands for them.
    """
    curves = []
    for lines in grouped(table.lines, WIDTHS).values():
        found = points(most_accurate(lines, "bits"), lambda line: line.bits_per_weight)
        if len(found) > 1:
            line = found[0].line
            name = variant(line, table, WIDTHS)
            curves.append(
                Series(label(line, table, WIDTHS), family(line, table), name, line.key["hidden"], found)
            )
    return _figure(
        curves,
        table,
        f"{stem}-accuracy-bits",
        f"Accuracy against bits a weight: {context}",
        context,
        "bits a weight in the file",
        doubling_axis,
    )


def accuracy_hidden(table: Table, stem: str, context: str) -> Figure | None:
    """Mean of groups against hidden size, a curve an adapter and byte budget.

    A point is the line with the most adapter bytes of those that use more than half of the budget.
    """
    curves = []
    families = grouped([line for line in table.lines if line.key["hidden"]], {"hidden", *WIDTHS})
    for budget in budgets(families.values()):
        for lines in families.values():
            found = points(within(lines, budget), lambda line: float(line.key["hidden"]))
            if len(found) > 1:
                line = found[0].line
                text = f"adapter ≤ {in_bytes(budget)}"
                rest = variant(line, table, {"hidden", *WIDTHS})
                method = label(line, table, {"hidden", *WIDTHS})
                curves.append(
                    Series(
                        f"{method}, {text}",
                        family(line, table),
                        ", ".join(filter(None, [rest, text])),
                        budget,
                        found,
                    )
                )
    return _figure(
        curves,
        table,
        f"{stem}-accuracy-hidden",
        f"Accuracy against hidden size at a fixed byte budget: {context}",
        context,
        "hidden size",
        listed_axis,
        lambda point: counted(point.line.key["bits"], "bit"),
    )


def budgets(families: Iterable[Sequence[Line]]) -> list[float]:
    """Adapter bytes at which the most hidden sizes can be compared, at most three, ascending.

    Candidates are the adapter bytes of all lines, rounded up to two digits. The one in which the most pairs
    of a family and a hidden size take part comes first, of equals the smaller; the others are apart by a
    factor of two at least, so that no line stands for two budgets.
    """
    held = [lines for lines in families if lines]
    sizes = {_rounded_up(line.bytes["bytes_adapter"]) for lines in held for line in lines}
    shares = {size: sum(n for lines in held if (n := len(within(lines, size))) > 1) for size in sizes}
    chosen: list[float] = []
    for size in sorted(shares, key=lambda size: (-shares[size], size)):
        if shares[size] and all(size >= 2 * other or other >= 2 * size for other in chosen):
            chosen.append(size)
    return sorted(chosen[:BUDGETS])


def within(lines: Iterable[Line], budget: float) -> list[Line]:
    """A line a hidden size: that with the most adapter bytes above half of the budget and within it."""
    chosen: dict[int, Line] = {}
    for line in lines:
        size, hidden = line.bytes["bytes_adapter"], line.key["hidden"]
        if line.mean_of_groups.mean is None or not budget / 2 < size <= budget:
            continue
        if hidden not in chosen or size > chosen[hidden].bytes["bytes_adapter"]:
            chosen[hidden] = line
    return list(chosen.values())


def accuracy_shots(tables: Sequence[Table], stem: str, context: str) -> Figure | None:
    """Mean of groups against shots, a curve a line that stands in two tables.

    Args:
        tables: of one suite and protocol, that differ in shots.
    """
    merged = replace(tables[0], lines=[line for table in tables for line in table.lines])
    shots = {id(line): table.key["shots"] for table in tables for line in table.lines}
    curves = []
    for lines in grouped(merged.lines, set()).values():
        found = points(lines, lambda line: float(shots[id(line)]))
        if len(found) > 1:
            line = found[0].line
            rank = (line.key["hidden"], line.key["bits"])
            curves.append(
                Series(label(line, merged), family(line, merged), variant(line, merged), rank, found)
            )
    return _figure(
        curves,
        merged,
        f"{stem}-accuracy-shots",
        f"Accuracy against shots: {context}",
        context,
        "training images a class (shots)",
        listed_axis,
    )


def _figure(
    curves: Sequence[Series],
    table: Table,
    name: str,
    title: str,
    context: str,
    across: str,
    scale: Callable[[Axes, Sequence[float]], None],
    beside: Callable[[Point], str] | None = None,
) -> Figure | None:
    """Curves of means; none if there are no curves.

    Args:
        across: what the x axis is.
        scale: sets the x axis for the given values.
        beside: a text for each point, written where it fits if points are few.
    """
    if not curves:
        return None

    def paint(sheet: Sheet) -> None:
        axes = sheet_axes(sheet, context, 3.7)
        keys(sheet, curves, draw(axes, curves, table))
        scale(axes, [point.x for curve in curves for point in curve.points])
        axes.set_xlabel(across)
        accuracy_axis(axes, table)
        spots = [(point.x, point.y, beside(point)) for curve in curves for point in curve.points if beside]
        if len(spots) <= WRITTEN:
            place(axes, spots, strokes(curves))

    said = [
        f"{curve.label} from {curve.points[0].y:.1f} % at {curve.points[0].x:.3g} "
        f"to {curve.points[-1].y:.1f} % at {curve.points[-1].x:.3g}"
        for curve in curves
    ]
    return Figure(
        name,
        title,
        f"Mean of group accuracies in percent against {across} on a logarithmic axis, in "
        f"{counted(len(curves), 'curve')} with bars of one standard deviation over seeds where there are "
        f"several: {listed(said)}.",
        paint,
    )


def _rounded_up(size: float) -> float:
    """To two digits."""
    step = 10.0 ** max(math.floor(math.log10(size)) - 1, 0) if size > 0 else 1.0
    return step * math.ceil(size / step)
