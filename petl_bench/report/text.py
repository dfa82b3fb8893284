"""Reports to read as plain text: for a terminal, and as markdown."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from petl_bench.report.cited import footnotes, published_grids
from petl_bench.report.columns import Cell, Grid, grids, legend, printable
from petl_bench.report.compared import by_bits, compared, many
from petl_bench.report.content import Report

RANKS = " ¹²"
WIDTH = 1_000_000
"""Of a line, in characters; no table is cut to fit a terminal."""


def text(report: Report) -> str:
    """Tables for a terminal."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=WIDTH, highlight=False, markup=False, emoji=False)
    for number in range(len(report.tables)):
        _print(console, _grids(report, number))
        for line in [*_legend(report, number, "¹ best, ² second best"), *_below(report, number)]:
            console.print(line, soft_wrap=True)
        console.print()
    _print(console, published_grids(report.tables, report.published))
    for line in footnotes(report.published):
        console.print(line, soft_wrap=True)
    for warning in report.warnings:
        console.print(printable(f"note: {warning}"), soft_wrap=True)
    console.print(f"training curves: {tensorboard(report)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def markdown(report: Report) -> str:
    """Tables for a README or an issue; best in bold, second best in italics."""
    parts = []
    for number in range(len(report.tables)):
        parts += [_markdown_grid(grid) for grid in _grids(report, number)]
        parts += _legend(report, number, "**Best**, *second best*")
        below = [f"- {_escaped(line)}" for line in _below(report, number)]
        parts += ["\n".join(below)] if below else []
    parts += map(_markdown_grid, published_grids(report.tables, report.published))
    parts += footnotes(report.published)
    parts += [f"> Note: {_escaped(warning)}" for warning in report.warnings]
    return "\n\n".join(parts) + "\n"


def markdown_tables(report: Report, heading: str) -> str:
    """Those of a report's tables alone whose titles begin so."""
    found = [grid for number in range(len(report.tables)) for grid in _grids(report, number)]
    return "\n\n".join(_markdown_grid(grid) for grid in found if grid.title.startswith(heading)) + "\n"


def tensorboard(report: Report) -> str:
    """The command that shows the curves and settings of the runs."""
    return f"tensorboard --logdir {shlex.quote(str(report.store))}"


def _grids(report: Report, number: int) -> list[Grid]:
    found, table = report.comparisons[number], report.tables[number]
    more = [by_bits(found, table), compared(found, table)] if many(found) else []
    return grids(table, report.tables) + more


def _legend(report: Report, number: int, marks: str) -> list[str]:
    said = legend(report.tables[number], marks)
    return [said] if said else []


def _below(report: Report, number: int) -> list[str]:
    """The answers and notes under a table."""
    found = report.comparisons[number]
    said = [] if many(found) else [comparison.sentence for comparison in found]
    return [printable(line) for line in (*said, *(f"note: {n}" for n in report.tables[number].notes))]


def _print(console: Console, printed: Sequence[Grid]) -> None:
    for grid in printed:
        console.print(Text(printable(grid.title)), soft_wrap=True)
        shown = RichTable(box=box.SIMPLE_HEAD)
        grouped = any(column.over for column in grid.columns)
        before = ""
        for number, column in enumerate(grid.columns):
            over = f"{printable(column.over) if column.over != before else ''}\n" if grouped else ""
            side: JustifyMethod = "left" if number == 0 else "right"
            shown.add_column(Text(over + printable(column.name)), justify=side, no_wrap=True)
            before = column.over
        marked = [any(cell.rank for cell in column.cells) for column in grid.columns]
        for cells in grid.lines:
            shown.add_row(
                *(
                    Text(printable(cell.text) + (RANKS[cell.rank] if some else ""))
                    for cell, some in zip(cells, marked, strict=True)
                )
            )
        console.print(shown)


def _markdown_grid(grid: Grid) -> str:
    header = [_escaped(column.name) for column in grid.columns]
    rule = [":--", *["--:"] * (len(header) - 1)]
    body = [list(map(_markdown_cell, cells)) for cells in grid.lines]
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, rule, *body]]
    return "\n".join([f"**{_escaped(grid.title)}**", "", *lines])


def _markdown_cell(cell: Cell) -> str:
    mark = ("", "**", "*")[cell.rank]
    return f"{mark}{_escaped(cell.text)}{mark}"


def _escaped(name: str) -> str:
    """Names as text: no cell, no tag and no line may begin in them."""
    return printable(name).replace("|", "\\|").replace("<", "&lt;")
