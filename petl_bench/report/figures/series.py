"""Series of points from the rows of a table, and functions that draw and name them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import filterfalse
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.lines import Line2D

from petl_bench.report.figures.style import GREY, Look, key_below, key_right, looks
from petl_bench.report.labels import label
from petl_bench.report.pairs import NONE
from petl_bench.report.settings import PREFERRED, WIDTH_SETTINGS
from petl_bench.report.tables import Row, Table

FAMILY = {"adapter", "backbone"}
"""Settings that colour and marker tell apart."""
WIDTHS = {*WIDTH_SETTINGS}
"""Settings of how the weights of a configuration are stored; all other settings define the configuration."""
NAMED = 10
"""Largest number of series that are named one by one in the legend; of more, families and variants are named
separately. With more families than this, labels of points name the family, too."""


@dataclass(frozen=True)
class Point:
    """Position of one row of a table in a figure.

    Attributes:
        x: value on the x axis.
        y: accuracy in percent.
        std: standard deviation over seeds in percent points; 0 for one seed.
        row: the row.
    """

    x: float
    y: float
    std: float
    row: Row


@dataclass(frozen=True)
class Series:
    """Points that are joined by a line; the series of one family share colour and marker.

    Attributes:
        label: full name of the series.
        family: adapter, and backbone where there are several.
        variant: settings that tell the series from others of its family.
        rank: sort key of the variant.
        points: points from left to right.
    """

    label: str
    family: str
    variant: str
    rank: Any
    points: list[Point]


def points(rows: Iterable[Row], x: Callable[[Row], float | None]) -> list[Point]:
    """Return the points of all rows with a mean of groups and a positive x, from left to right."""
    found = [
        Point(place, 100 * accuracy.mean, 100 * (accuracy.std or 0), row)
        for row in rows
        if (accuracy := row.mean_of_groups).mean is not None and (place := x(row)) and 0 < place < math.inf
    ]
    return sorted(found, key=lambda point: point.x)


def grouped(rows: Iterable[Row], without: Collection[str]) -> dict[Hashable, list[Row]]:
    """Group rows by all their settings except `without`."""
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row, without), []).append(row)
    return groups


def _key(row: Row, without: Collection[str]) -> Hashable:
    return tuple((name, value) for name, value in row.key.items() if name not in without)


def configurations(rows: Iterable[Row], free: Collection[str]) -> list[list[Row]]:
    """Group rows that differ only in the settings `free`; unquantized rows come last in each group.

    An unquantized row joins every configuration of its method. Of several unquantized rows, the one that
    agrees in most of PREFERRED joins, the first one on a tie. Those that join none form configurations of
    their own.
    """
    rows, method = list(rows), WIDTHS | {*free}
    found, alone = list(grouped(filter(quantized, rows), free).values()), []
    for alike in grouped(filterfalse(quantized, rows), WIDTHS - {"bits"}).values():
        joined = set()
        for own in found:
            if _key(own[0], method) == _key(alike[0], method):
                own.append(max(alike, key=partial(_agreement, own[0])))
                joined.add(id(own[-1]))
        alone += [row for row in alike if id(row) not in joined]
    return [*found, *grouped(alone, free).values()]


def quantized(row: Row) -> bool:
    """Return True if the weights of the row are quantized; those of 32 bits are not."""
    return row.key["quantizer"] != NONE


def _agreement(row: Row, other: Row) -> list[bool]:
    return [other.key.get(name) == row.key.get(name) for name in PREFERRED]


def family(row: Row, table: Table) -> str:
    """Return the adapter of a row, and its backbone where the table has several."""
    return label(row, table, without=set(row.key) - FAMILY)


def families(table: Table) -> list[str]:
    """Return all families in the order of the rows of the table."""
    return list(dict.fromkeys(family(row, table) for row in table.rows))


def variant(row: Row, table: Table, without: Collection[str] = ()) -> str:
    """Return the settings that tell a row from the others of its family."""
    return label(row, table, without={*without, *FAMILY})


def draw(
    axes: Axes, drawn: Sequence[Series], table: Table, joined: bool = True
) -> dict[tuple[str, str], Look]:
    """Draw points with error bars of one standard deviation, and lines between the points of each series.

    Args:
        axes: the axes to draw in.
        drawn: the series.
        table: the table of all rows, so that a family looks the same in every figure.
        joined: draw the lines.

    Returns:
        The looks of the series by family and variant.
    """
    ranks = {series.variant: series.rank for series in drawn}
    styles = looks(families(table), sorted(ranks, key=lambda name: ranks[name]))
    for series in drawn:
        look = styles[series.family, series.variant]
        axes.errorbar(
            [point.x for point in series.points],
            [point.y for point in series.points],
            yerr=[point.std for point in series.points],
            label=series.label,
            color=look.colour,
            linestyle=look.dashes if joined else "none",
            linewidth=1.3,
            elinewidth=0.8,
            zorder=3,
            **look.mark(),
        )
    return styles


def keys(sheet: Sheet, drawn: Sequence[Series], styles: Mapping[tuple[str, str], Look]) -> None:
    """Draw the legend: all series below the axes, or families below and variants beside if there are many."""
    if len(drawn) <= NAMED:
        signs = [styles[series.family, series.variant].sign(line=True) for series in drawn]
        key_below(sheet, signs, [series.label for series in drawn])
    else:
        keys_apart(sheet, drawn, styles)


def keys_apart(
    sheet: Sheet,
    drawn: Sequence[Series],
    styles: Mapping[tuple[str, str], Look],
    heading: str = "",
    line: bool = True,
    also: Sequence[Line2D] = (),
    numbers: Mapping[str, str] | None = None,
) -> None:
    """Draw the legend of families below the axes, and of variants in grey beside them.

    Args:
        sheet: the figure.
        drawn: the series.
        styles: the looks of the series by family and variant.
        heading: heading of the variants.
        line: show the dashes of variants, too.
        also: other lines in the axes, named by their labels.
        numbers: text before the name of each family, by which points are labelled; None: none.
    """
    methods = {series.family: replace(styles[series.family, series.variant], lightness=0) for series in drawn}
    variants = {variant: replace(look, colour=GREY, marker="o") for (_, variant), look in styles.items()}
    signs = [*(look.sign(line=False) for look in methods.values()), *also]
    names = [f"{numbers[name]}  {name}" if numbers else name for name in methods]
    key_below(sheet, signs, [*names, *(str(part.get_label()) for part in also)])
    if len(variants) > 1:
        key_right(sheet, heading, [look.sign(line) for look in variants.values()], list(variants))


def strokes(drawn: Sequence[Series]) -> list[list[tuple[float, float]]]:
    """Return the lines of series that no text may cover: error bars, and lines between points."""
    bars = [[(p.x, p.y - p.std), (p.x, p.y + p.std)] for series in drawn for p in series.points]
    return [*bars, *([(p.x, p.y) for p in series.points] for series in drawn)]


def accuracy_axis(axes: Axes, table: Table) -> None:
    """Set up the y axis of a figure of means."""
    peek = " (best of several evaluations)" if table.key["protocol"] == "peek" else ""
    axes.set_ylabel(f"accuracy, mean of groups (%){peek}")
    axes.margins(y=0.12)
