"""Curves of accuracy against bits per weight, hidden size at a fixed byte budget, and shots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

from petl_bench.errors import counted
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
from petl_bench.report.labels import label
from petl_bench.report.tables import Row, Table

SIZES = {"hidden", "bits"}
"""Settings in which the points of one curve at a byte budget may differ."""
BUDGETS = 3
"""Largest number of byte budgets in one figure."""
VARIANTS = 10
"""Largest number of variants in one figure; more could not be told apart."""
WRITTEN = 20
"""Largest number of points that are labelled one by one."""


def accuracy_bits(table: Table, stem: str, context: str) -> list[Figure]:
    """Draw mean of groups against bits per weight, a curve for each configuration with several bit-widths."""
    curves = []
    for rows in configurations(table.rows, {"bits"}):
        found = points(rows, lambda row: row.bits_per_weight)
        if len(found) > 1:
            row = rows[0]
            name = variant(row, table, {"bits"})
            curves.append(
                Series(label(row, table, {"bits"}), family(row, table), name, row.key["hidden"], found)
            )
    return _figures(
        curves,
        table,
        f"{stem}-accuracy-bits",
        "Accuracy against bits per weight",
        context,
        "bits per weight in the file",
        doubling_axis,
    )


def accuracy_hidden(table: Table, stem: str, context: str) -> list[Figure]:
    """Draw mean of groups against hidden size, a curve for each configuration and byte budget.

    A point is the row with the most adapter bytes among those that use more than half of the budget.
    """
    curves: dict[
        str, Series
    ] = {}  # by name: unquantized rows may be in two configurations, but are drawn once
    found = configurations([row for row in table.rows if row.key["hidden"]], SIZES)
    for budget in budgets(found):
        for rows in found:
            held = points(within(rows, budget), lambda row: float(row.key["hidden"]))
            if len(held) > 1:
                row = max((point.row for point in held), key=quantized)
                text = f"adapter ≤ {in_bytes(budget)}"
                name = f"{label(row, table, SIZES)}, {text}"
                rest = ", ".join(filter(None, [variant(row, table, SIZES), text]))
                curves[name] = Series(name, family(row, table), rest, budget, held)
    return _figures(
        list(curves.values()),
        table,
        f"{stem}-accuracy-hidden",
        "Accuracy against hidden size at a fixed byte budget",
        context,
        "hidden size",
        listed_axis,
        lambda point: counted(point.row.key["bits"], "bit"),
    )


def budgets(families: Iterable[Sequence[Row]]) -> list[float]:
    """Choose at most three adapter sizes in bytes at which the most hidden sizes can be compared.

    Candidates are the adapter bytes of all rows, rounded up to two digits. The one with the most pairs of a
    family and a hidden size is chosen first, the smaller one on a tie. Budgets differ by a factor of at least
    two, so that no row belongs to two of them.

    Returns:
        Budgets in bytes, ascending.
    """
    held = [rows for rows in families if rows]
    sizes = {_rounded_up(row.bytes["bytes_adapter"]) for rows in held for row in rows}
    shares = {size: sum(n for rows in held if (n := len(within(rows, size))) > 1) for size in sizes}
    chosen: list[float] = []
    for size in sorted(shares, key=lambda size: (-shares[size], size)):
        if shares[size] and all(size >= 2 * other or other >= 2 * size for other in chosen):
            chosen.append(size)
    return sorted(chosen[:BUDGETS])


def within(rows: Iterable[Row], budget: float) -> list[Row]:
    """Return the largest row of each hidden size whose adapter uses more than half of the budget."""
    chosen: dict[int, Row] = {}
    for row in rows:
        size, hidden = row.bytes["bytes_adapter"], row.key["hidden"]
        if row.mean_of_groups.mean is None or not budget / 2 < size <= budget:
            continue
        if hidden not in chosen or size > chosen[hidden].bytes["bytes_adapter"]:
            chosen[hidden] = row
    return list(chosen.values())


def accuracy_shots(tables: Sequence[Table], stem: str, context: str) -> list[Figure]:
    """Draw mean of groups against shots, a curve for each row that is in at least two tables.

    Args:
        tables: tables of one suite and protocol that differ in shots.
        stem: first part of the file name.
        context: settings that all rows have in common.
    """
    merged = replace(tables[0], rows=[row for table in tables for row in table.rows])
    shots = {id(row): table.key["shots"] for table in tables for row in table.rows}
    curves = []
    for rows in grouped(merged.rows, set()).values():
        found = points(rows, lambda row: float(shots[id(row)]))
        if len(found) > 1:
            row = found[0].row
            rank = (row.key["hidden"], row.key["bits"])
            curves.append(Series(label(row, merged), family(row, merged), variant(row, merged), rank, found))
    return _figures(
        curves,
        merged,
        f"{stem}-accuracy-shots",
        "Accuracy against shots",
        context,
        "training images per class (shots)",
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
    """Return figures of curves, each with at most VARIANTS variants; an empty list without curves.

    Args:
        curves: the curves of all figures.
        table: the table of all rows, so that a family looks the same in every figure.
        name: file name of the first figure.
        title: title of all figures, without the context.
        context: settings that all rows have in common.
        across: label of the x axis.
        scale: function that sets up the x axis for the given values.
        beside: label of a point, written where it fits if there are few points.
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
            f"{counted(len(shown), 'curve')} with error bars of one standard deviation over seeds where "
            f"there are several: {listed(said)}.",
            paint,
        )

    ranks = {curve.variant: curve.rank for curve in curves}
    variants = sorted(ranks, key=lambda variant: ranks[variant])
    return [
        figure([curve for curve in curves if curve.variant in part], own, said)
        for part, own, said in parts(variants, VARIANTS, name, context)
    ]


def _rounded_up(size: float) -> float:
    """Round up to two significant digits."""
    step = 10.0 ** max(math.floor(math.log10(size)) - 1, 0) if size > 0 else 1.0
    return step * math.ceil(size / step)
