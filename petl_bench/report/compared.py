"""Grids of comparisons: means of bit-widths side by side, and the comparisons of a table as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from petl_bench.errors import counted
from petl_bench.report.averages import Statistic
from petl_bench.report.grid import Column, Grid, percent_column, text_column
from petl_bench.report.labels import label
from petl_bench.report.power import CHANCE, Design, Power
from petl_bench.report.statistics import Comparison
from petl_bench.report.tables import BLANK, Row, Table

_BY_WIDTH = "Fewer bits compared with the most bits"
Texts = Mapping[str, Callable[[Comparison], str]]
"""Column name -> text of a comparison in it."""


def by_bits(comparisons: Sequence[Comparison], table: Table) -> Grid:
    """Return a grid with a row for each configuration and columns for each bit-width.

    The columns are means of groups at each bit-width, then bytes of the adapter at each.
    """
    rows: dict[tuple[object, ...], dict[int, Row]] = {}
    for found in comparisons:
        widths = rows.setdefault(_configuration(found.row), {})
        widths |= {row.key["bits"]: row for row in (found.row, found.against)}
    compared = {id(row) for widths in rows.values() for row in widths.values()}
    alone = [{row.key["bits"]: row} for row in table.rows if id(row) not in compared]
    held = [*alone, *rows.values()]
    columns = [text_column("configuration", [label(w[min(w)], table, without={"bits"}) for w in held])]
    all_bits = sorted({bits for widths in held for bits in widths})
    for bits in all_bits:
        means = [w[bits].mean_of_groups if bits in w else Statistic(0, None, None) for w in held]
        columns.append(percent_column(counted(bits, "bit"), means))
    for bits in all_bits:
        texts = [f"{w[bits].bytes['bytes_adapter']:,.0f}" if bits in w else BLANK for w in held]
        columns.append(text_column(f"bytes at {counted(bits, 'bit')}", texts))
    return Grid("Mean of groups (%) and adapter bytes by bit-width", columns)


def verdicts(comparisons: Sequence[Comparison], table: Table, asked: bool = False) -> Grid:
    """Return a grid of differences, verdicts and saved bytes, with a row for each comparison.

    Args:
        comparisons: comparisons of rows of the table.
        table: the table.
        asked: whether all are with one configuration that was asked for; otherwise they are of bit-widths.
    """
    what = f"Compared with {label(comparisons[0].against, table)}" if asked else _BY_WIDTH
    baseline: Texts = {} if asked else {"baseline bits": lambda found: str(found.against.key["bits"])}
    margin = f"{round(100 * comparisons[0].margin, 6):g}"
    texts: Texts = {
        "configuration": lambda found: label(found.row, table),
        **baseline,
        "difference": lambda found: f"{100 * found.difference:+.1f}",
        "interval over tasks": lambda found: _interval(found.low, found.high),
        "verdict over tasks": lambda found: found.verdict,
        f"interval over {table.repetition}": lambda found: (
            _interval(found.repeated.low, found.repeated.high) if found.repeated else BLANK
        ),
        f"verdict over {table.repetition}": lambda found: found.repeated.verdict if found.repeated else BLANK,
        "interval of the mixed model": lambda found: (
            _interval(found.mixed.low, found.mixed.high) if found.mixed else BLANK
        ),
        "verdict of the mixed model": lambda found: found.mixed.verdict if found.mixed else BLANK,
        "adapter bytes saved": _saved,
    }
    return Grid(
        f"{what}: differences in points with unadjusted 95 % intervals; equivalence margin ±{margin} points",
        _columns(comparisons, texts),
    )


def power_grids(found: Power, comparisons: Sequence[Comparison], table: Table) -> list[Grid]:
    """Return a grid of what each comparison could have shown, and one of other numbers of tasks and seeds.

    Args:
        found: power of the comparisons.
        comparisons: comparisons of rows of the table.
        table: the table.
    """
    what = (
        f"in points, with a chance of {100 * CHANCE:.0f} % each, p-values adjusted for "
        f"{counted(len(comparisons), 'comparison')}"
    )
    first, *_ = found.designs
    within = "" if first.within is None else f", {_size(first.within)} between seeds"
    names = [
        text_column("configuration", [label(c.row, table) for c in comparisons]),
        text_column("baseline", [label(c.against, table) for c in comparisons]),
        text_column("std between tasks", [_size(design.between) for design in found.own]),
        text_column("std between seeds", [_size(design.within) for design in found.own]),
    ]
    numbers = [
        text_column("tasks", [str(design.tasks) for design in found.designs]),
        text_column("seeds", [str(design.seeds) for design in found.designs]),
        text_column("ranks over tasks can show", [design.ranks for design in found.designs]),
    ]
    design = f"{counted(found.own[0].tasks, 'task')} and {counted(found.own[0].seeds, 'seed')}"
    return [
        Grid(f"Power: what {design} could have shown, {what}", [*names, *_reaches(found.own)]),
        Grid(
            f"Power: what other numbers of tasks and seeds can show, {what}, for the median standard "
            f"deviations ({_size(first.between)} between tasks{within})",
            [*numbers, *_reaches(found.designs)],
            2,
        ),
    ]


def _reaches(designs: Sequence[Design]) -> list[Column]:
    """Return columns of intervals, smallest differences and smallest margins over other and these tasks."""
    values = {"interval": "interval ±", "difference": "smallest difference", "margin": "smallest margin"}
    sides = {"other tasks": "other_tasks", "these tasks": "these_tasks"}
    return [
        text_column(
            f"{name}, {side}",
            [
                _size(getattr(reach, value)) if (reach := getattr(design, held)) else BLANK
                for design in designs
            ],
        )
        for side, held in sides.items()
        for value, name in values.items()
    ]


def all_numbers(comparisons: Sequence[Comparison], table: Table) -> Grid:
    """Return a grid of all numbers of the comparisons, with a row for each comparison."""
    over = f"over {table.repetition}"
    texts: Texts = {
        "configuration": lambda found: label(found.row, table),
        "baseline": lambda found: label(found.against, table),
        "difference": lambda found: _points(found.difference),
        "from": lambda found: _points(found.low),
        "to": lambda found: _points(found.high),
        "effect": lambda found: f"{found.effect:+.2f}",
        "tasks": lambda found: str(found.tasks),
        "wins": lambda found: str(found.wins),
        "ties": lambda found: str(found.ties),
        "losses": lambda found: str(found.losses),
        "p": lambda found: f"{found.p:.2g}",
        "p, Holm": lambda found: f"{found.p_holm:.2g}",
        "margin": lambda found: f"{100 * found.margin:g}",
        "p of equivalence": lambda found: f"{found.p_equivalence:.2g}",
        "p of equivalence, Holm": lambda found: f"{found.p_equivalence_holm:.2g}",
        "verdict": lambda found: found.verdict,
        f"from, {over}": lambda found: _points(found.repeated.low) if found.repeated else BLANK,
        f"to, {over}": lambda found: _points(found.repeated.high) if found.repeated else BLANK,
        f"verdict, {over}": lambda found: found.repeated.verdict if found.repeated else BLANK,
        "seeds paired": lambda found: "yes" if found.paired else "no",
        "from, mixed model": lambda found: _points(found.mixed.low) if found.mixed else BLANK,
        "to, mixed model": lambda found: _points(found.mixed.high) if found.mixed else BLANK,
        "verdict, mixed model": lambda found: found.mixed.verdict if found.mixed else BLANK,
        "std between tasks": lambda found: f"{100 * found.mixed.between:.2f}" if found.mixed else BLANK,
        "std between seeds": lambda found: f"{100 * found.mixed.within:.2f}" if found.mixed else BLANK,
    }
    return Grid(
        "Differences in accuracy in points, with unadjusted 95 % intervals", _columns(comparisons, texts)
    )


def _configuration(row: Row) -> tuple[object, ...]:
    return tuple(value for name, value in row.key.items() if name != "bits")


def _columns(comparisons: Sequence[Comparison], texts: Texts) -> list[Column]:
    return [text_column(name, [text(found) for found in comparisons]) for name, text in texts.items()]


def _size(fraction: float | None) -> str:
    return BLANK if fraction is None else f"{100 * fraction:.2f}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"


def _interval(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _saved(found: Comparison) -> str:
    few, most = found.row.bytes["bytes_adapter"], found.against.bytes["bytes_adapter"]
    return f"{most - few:,.0f} ({100 * (1 - few / most):.0f} %)" if most else BLANK
