"""Lines of a table as series of points, and how series are drawn and named."""

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

from petl_bench.report.columns import label
from petl_bench.report.figures.style import GREY, Look, key_below, key_right, looks
from petl_bench.report.settings import PREFERRED, WIDTH_SETTINGS
from petl_bench.report.statistics import NONE
from petl_bench.report.tables import Line, Table

FAMILY = {"adapter", "backbone"}
"""What colour and marker tell apart."""
WIDTHS = {*WIDTH_SETTINGS}
"""How the weights of a configuration are stored; what is left of a line's key is the configuration."""
NAMED = 10
"""Series that have a name each in the key; of more, families and variants are named apart. More families than
that are told apart by name, too, where a point is named."""


@dataclass(frozen=True)
class Point:
    """One line of a table: where it lies in a figure."""

    x: float
    y: float
    """Percent."""
    spread: float
    """Standard deviation over seeds in percent points; 0 at one seed."""
    line: Line


@dataclass(frozen=True)
class Series:
    """Points that are joined; several series of one family share colour and marker."""

    label: str
    family: str
    variant: str
    rank: Any
    """Place of the variant among the variants, which are ordered by it."""
    points: list[Point]


def points(lines: Iterable[Line], x: Callable[[Line], float | None]) -> list[Point]:
    """Those of lines that have a mean of groups and a positive x, from left to right."""
    found = [
        Point(place, 100 * accuracy.mean, 100 * (accuracy.std or 0), line)
        for line in lines
        if (accuracy := line.mean_of_groups).mean is not None and (place := x(line)) and 0 < place < math.inf
    ]
    return sorted(found, key=lambda point: point.x)


def grouped(lines: Iterable[Line], without: Collection[str]) -> dict[Hashable, list[Line]]:
    """Lines by their key, these settings left out."""
    groups: dict[Hashable, list[Line]] = {}
    for line in lines:
        groups.setdefault(_key(line, without), []).append(line)
    return groups


def _key(line: Line, without: Collection[str]) -> Hashable:
    return tuple((name, value) for name, value in line.key.items() if name not in without)


def configurations(lines: Iterable[Line], free: Collection[str]) -> list[list[Line]]:
    """Lines that differ in these settings alone, accuracy unseen; unquantized ones come last in each.

    A line without a quantizer joins each configuration of its method; of several the one that agrees most in
    scale, rate weight, packing and statistics, in this order, else the first. One that joins none is in a
    configuration of such.
    """
    lines, method = list(lines), WIDTHS | {*free}
    found, alone = list(grouped(filter(quantized, lines), free).values()), []
    for alike in grouped(filterfalse(quantized, lines), WIDTHS - {"bits"}).values():
        joined = set()
        for own in found:
            if _key(own[0], method) == _key(alike[0], method):
                own.append(max(alike, key=partial(_agreement, own[0])))
                joined.add(id(own[-1]))
        alone += [line for line in alike if id(line) not in joined]
    return [*found, *grouped(alone, free).values()]


def quantized(line: Line) -> bool:
    """Whether a quantizer made its weights; those of 32 bits have none."""
    return line.key["quantizer"] != NONE


def _agreement(line: Line, other: Line) -> list[bool]:
    return [other.key.get(name) == line.key.get(name) for name in PREFERRED]


def family(line: Line, table: Table) -> str:
    """The adapter, and the backbone where a table has several."""
    return label(line, table, without=set(line.key) - FAMILY)


def families(table: Table) -> list[str]:
    """In the order of the table's lines."""
    return list(dict.fromkeys(family(line, table) for line in table.lines))


def variant(line: Line, table: Table, without: Collection[str] = ()) -> str:
    """What else tells a line from the others of its family."""
    return label(line, table, without={*without, *FAMILY})


def draw(
    axes: Axes, drawn: Sequence[Series], table: Table, joined: bool = True
) -> dict[tuple[str, str], Look]:
    """Points with bars of one standard deviation, and lines between those of a series.

    Args:
        table: of all lines, so that a family looks the same in each of its figures.

    Returns:
        the looks given, by family and variant.
    """
    ranks = {series.variant: series.rank for series in drawn}
    styles = looks(families(table), sorted(ranks, key=lambda name: ranks[name]))
    for series in drawn:
        look = styles[series.family, series.variant]
        axes.errorbar(
            [point.x for point in series.points],
            [point.y for point in series.points],
            yerr=[point.spread for point in series.points],
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
    """Names of the series; of many series families below the axes, and variants beside them."""
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
) -> None:
    """Families below the axes, variants in grey beside them.

    Args:
        heading: of the variants.
        line: variants differ in dashes too.
        also: what else the axes hold, named by its label.
    """
    methods = {series.family: replace(styles[series.family, series.variant], lightness=0) for series in drawn}
    variants = {variant: replace(look, colour=GREY, marker="o") for (_, variant), look in styles.items()}
    signs = [*(look.sign(line=False) for look in methods.values()), *also]
    key_below(sheet, signs, [*methods, *(str(part.get_label()) for part in also)])
    if len(variants) > 1:
        key_right(sheet, heading, [look.sign(line) for look in variants.values()], list(variants))


def strokes(drawn: Sequence[Series]) -> list[list[tuple[float, float]]]:
    """What of them no text may cover: their bars, and the lines between their points."""
    bars = [[(p.x, p.y - p.spread), (p.x, p.y + p.spread)] for series in drawn for p in series.points]
    return [*bars, *([(p.x, p.y) for p in series.points] for series in drawn)]


def accuracy_axis(axes: Axes, table: Table) -> None:
    """The y axis of every figure of means."""
    looked = " (best of several looks)" if table.key["protocol"] == "peek" else ""
    axes.set_ylabel(f"accuracy, mean of groups (%){looked}")
    axes.margins(y=0.12)
