"""Bit-widths side by side, and their comparisons as columns: for tables with too many for sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from petl_bench.errors import counted
from petl_bench.report.columns import HOLE, Cell, Column, Grid, label, percents
from petl_bench.report.statistics import Comparison
from petl_bench.report.tables import Line, Statistic, Table

MOST_SENTENCES = 8
"""Of one table; more are a table themselves."""


def many(comparisons: Sequence[Comparison]) -> bool:
    """Whether they are too many for sentences."""
    return len(comparisons) > MOST_SENTENCES


def by_bits(comparisons: Sequence[Comparison], table: Table) -> Grid:
    """A line a configuration, a column a bit-width: means of groups, then bytes of the adapter."""
    rows: dict[tuple[object, ...], dict[int, Line]] = {}
    for found in comparisons:
        row = rows.setdefault(_configuration(found.line), {})
        row |= {line.key["bits"]: line for line in (found.line, found.against)}
    told = {id(line) for row in rows.values() for line in row.values()}
    alone = [{line.key["bits"]: line} for line in table.lines if id(line) not in told]
    held = [*alone, *rows.values()]
    names = [label(row[min(row)], table, without={"bits"}) for row in held]
    columns = [Column("line", [Cell(name) for name in names])]
    widths = sorted({bits for row in held for bits in row})
    for bits in widths:
        means = [row[bits].mean_of_groups if bits in row else Statistic(0, None, None) for row in held]
        columns.append(percents(counted(bits, "bit"), means))
    for bits in widths:
        texts = [f"{row[bits].bytes['bytes_adapter']:,.0f}" if bits in row else HOLE for row in held]
        columns.append(Column(f"bytes, {counted(bits, 'bit')}", [Cell(text) for text in texts]))
    return Grid("Mean of groups (%) and bytes of the adapter by bits", columns)


def _configuration(line: Line) -> tuple[object, ...]:
    return tuple(value for name, value in line.key.items() if name != "bits")


def compared(comparisons: Sequence[Comparison], table: Table) -> Grid:
    """A line each: difference, what it means for other tasks and for these, and what it saves."""
    margin = f"{round(100 * comparisons[0].margin, 6):g}"
    texts: dict[str, Callable[[Comparison], str]] = {
        "line": lambda found: label(found.line, table),
        "against bits": lambda found: str(found.against.key["bits"]),
        "difference": lambda found: f"{100 * found.difference:+.1f}",
        "interval over tasks": lambda found: _interval(found.low, found.high),
        "on a typical task": lambda found: found.verdict,
        f"interval over {table.repetition}": lambda found: (
            _interval(found.repeated.low, found.repeated.high) if found.repeated else HOLE
        ),
        "on these tasks": lambda found: found.repeated.verdict if found.repeated else HOLE,
        "adapter bytes saved": _saved,
    }
    return Grid(
        f"Fewer bits against the most: points, unadjusted 95 % intervals, and whether ±{margin} points hold",
        [Column(name, [Cell(text(found)) for found in comparisons]) for name, text in texts.items()],
    )


def _interval(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _saved(found: Comparison) -> str:
    few, most = found.line.bytes["bytes_adapter"], found.against.bytes["bytes_adapter"]
    return f"{most - few:,.0f} ({100 * (1 - few / most):.0f} %)" if most else HOLE
