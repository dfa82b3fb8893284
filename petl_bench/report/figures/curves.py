"""Accuracy in curves: against bits a weight, against hidden size at a byte budget, against shots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

from petl_bench.errors import counted
from petl_bench.report.columns import label
from petl_bench.report.figures.labels import place
from petl_bench.report.figures.scales import doubling_axis, in_bytes, listed_axis
from petl_bench.report.figures.series import (
    Point,
    Series,
    accuracy_axis,
    configurations,
    draw,
    family,
    grouped,
    keys,
    points,
    quantized,
    strokes,
    variant,
)
from petl_bench.report.figures.style import Figure, listed, parts, sheet_axes
from petl_bench.report.tables import Line, Table

SIZES = {"hidden", "bits"}
"""What the lines of one curve at a byte budget may differ in."""
BUDGETS = 3
"""Byte budgets in one figure at most."""
VARIANTS = 10
"""In one figure at most: more are not told apart."""
WRITTEN = 20
"""Points that a text each does not bury."""


def accuracy_bits(table: Table, stem: str, context: str) -> list[Figure]:
    """Mean of groups against bits a weight, a curve a configuration that has two widths."""
    curves = []
    for lines in configurations(table.lines, {"bits"}):
        found = points(lines, lambda line: line.bits_per_weight)
        if len(found) > 1:
            line = lines[0]
            name = variant(line, table, {"bits"})
            curves.append(
                Series(label(line, table, {"bits"}), family(line, table), name, line.key["hidden"], found)
            )
    return _figures(
        curves,
        table,
        f"{stem}-accuracy-bits",
        "Accuracy against bits a weight",
        context,
        "bits a weight in the file",
        doubling_axis,
    )


def accuracy_hidden(table: Table, stem: str, context: str) -> list[Figure]:
    """Mean of groups against hidden size, a curve a configuration and byte budget.

    A point is the line with the most adapter bytes of those that use more than half of the budget.
    """
    curves: dict[str, Series] = {}  # by name: the same unquantized lines in two configurations are one
    found = configurations([line for line in table.lines if line.key["hidden"]], SIZES)
    for budget in budgets(found):
        for lines in found:
            held = points(within(lines, budget), lambda line: float(line.key["hidden"]))
            if len(held) > 1:
                line = max((point.line for point in held), key=quantized)
                text = f"adapter ≤ {in_bytes(budget)}"
                name = f"{label(line, table, SIZES)}, {text}"
                rest = ", ".join(filter(None, [variant(line, table, SIZES), text]))
                curves[name] = Series(name, family(line, table), rest, budget, held)
    return _figures(
        list(curves.values()),
        table,
        f"{stem}-accuracy-hidden",
        "Accuracy against hidden size at a fixed byte budget",
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


def accuracy_shots(tables: Sequence[Table], stem: str, context: str) -> list[Figure]:
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
    return _figures(
        curves,
        merged,
        f"{stem}-accuracy-shots",
        "Accuracy against shots",
        context,
        "training images a class (shots)",
        listed_axis,
    )


def _figures(
    curves: Sequence[Series],
    table: Table,
    name: str,
    title: str,
    context: str,
    across: str,
    scale: Callable[[Axes, Sequence[float]], None],
    beside: Callable[[Point], str] | None = None,
) -> list[Figure]:
    """Curves of means, so many variants a figure; none if there are no curves.

    Args:
        title: of all, without the context.
        across: what the x axis is.
        scale: sets the x axis for the given values.
        beside: a text for each point, written where it fits if points are few.
    """

    def figure(shown: Sequence[Series], name: str, context: str) -> Figure:
        def paint(sheet: Sheet) -> None:
            axes = sheet_axes(sheet, context, 3.7)
            keys(sheet, shown, draw(axes, shown, table))
            scale(axes, [point.x for curve in shown for point in curve.points])
            axes.set_xlabel(across)
            accuracy_axis(axes, table)
            spots = [(point.x, point.y, beside(point)) for curve in shown for point in curve.points if beside]
            if len(spots) <= WRITTEN:
                place(axes, list(dict.fromkeys(spots)), strokes(shown))

        said = [
            f"{curve.label} from {curve.points[0].y:.1f} % at {curve.points[0].x:.3g} "
            f"to {curve.points[-1].y:.1f} % at {curve.points[-1].x:.3g}"
            for curve in shown
        ]
        return Figure(
            name,
            f"{title}: {context}",
            f"Mean of group accuracies in percent against {across} on a logarithmic axis, in "
            f"{counted(len(shown), 'curve')} with bars of one standard deviation over seeds where there are "
            f"several: {listed(said)}.",
            paint,
        )

    ranks = {curve.variant: curve.rank for curve in curves}
    variants = sorted(ranks, key=lambda variant: ranks[variant])
    return [
        figure([curve for curve in curves if curve.variant in part], own, said)
        for part, own, said in parts(variants, VARIANTS, name, context)
    ]


def _rounded_up(size: float) -> float:
    """To two digits."""
    step = 10.0 ** max(math.floor(math.log10(size)) - 1, 0) if size > 0 else 1.0
    return step * math.ceil(size / step)
