"""Reports as text: tables for a terminal, and Markdown."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from petl_bench.report.cited import footnotes, published_grids
from petl_bench.report.content import Report
from petl_bench.report.grid import Cell, Grid
from petl_bench.report.labels import printable
from petl_bench.report.sections import Section

MARKS = " ¹²"
"""Marks of a cell by its rank."""
WIDTH = 1_000_000
"""Columns of the terminal that is written for: no table is cut to fit."""


def text(report: Report) -> str:
    """Return a report as tables for a terminal."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=WIDTH, highlight=False, markup=False, emoji=False)
    for section in report.sections:
        _print(console, _grids(section))
        for line in [*_legend(section, "¹ best, ² second best"), *_below(section)]:
            console.print(line, soft_wrap=True)
        console.print()
    _print(console, published_grids(report.tables, report.published))
    for line in footnotes(report.published):
        console.print(line, soft_wrap=True)
    for warning in report.warnings:
        console.print(printable(f"note: {warning}"), soft_wrap=True)
    console.print(f"training curves: {tensorboard(report)}", soft_wrap=True)
    show = f"petl-bench show RUN_ID --store {shlex.quote(str(report.store))}"
    console.print(f"one run, and the command that repeats it: {show}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def markdown(report: Report) -> str:
    """Return a report as Markdown; best values are bold, second best values are in italics."""
    parts = []
    for section in report.sections:
        parts += [_markdown_grid(grid) for grid in _grids(section)]
        parts += _legend(section, "**Best**, *second best*")
        below = [f"- {_escaped(line)}" for line in _below(section)]
        parts += ["\n".join(below)] if below else []
    parts += map(_markdown_grid, published_grids(report.tables, report.published))
    parts += footnotes(report.published)
    parts += [f"> Note: {_escaped(warning)}" for warning in report.warnings]
    return "\n\n".join(parts) + "\n"


def markdown_tables(report: Report, heading: str) -> str:
    """Return only those tables of a report, as Markdown, whose titles begin with `heading`."""
    found = [grid for section in report.sections for grid in _grids(section)]
    return "\n\n".join(_markdown_grid(grid) for grid in found if grid.title.startswith(heading)) + "\n"


def tensorboard(report: Report) -> str:
    """Return the command that shows training curves and settings of the runs."""
    return f"tensorboard --logdir {shlex.quote(str(report.store))}"


def _grids(section: Section) -> list[Grid]:
    """Return the grids of a section, each narrow enough to be read on a screen."""
    first = section.accuracies
    named = Grid(f"{first.title}, {section.title}", first.columns, first.labels)
    return [named, section.averages.plain(), section.costs, *section.comparisons]


def _legend(section: Section, marks: str) -> list[str]:
    legend = section.legend(marks)
    return [legend] if legend else []


def _below(section: Section) -> list[str]:
    """Return the sentences and notes that stand below the grids."""
    return [printable(line) for line in (*section.sentences, *(f"note: {note}" for note in section.notes))]


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
        for cells in grid.rows:
            shown.add_row(
                *(
                    Text(printable(cell.text) + (MARKS[cell.rank] if some else ""))
                    for cell, some in zip(cells, marked, strict=True)
                )
            )
        console.print(shown)


def _markdown_grid(grid: Grid) -> str:
    header = [_escaped(column.name) for column in grid.columns]
    rule = [":--", *["--:"] * (len(header) - 1)]
    body = [list(map(_markdown_cell, cells)) for cells in grid.rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, rule, *body]]
    return "\n".join([f"**{_escaped(grid.title)}**", "", *lines])


def _markdown_cell(cell: Cell) -> str:
    mark = ("", "**", "*")[cell.rank]
    return f"{mark}{_escaped(cell.text)}{mark}"


def _escaped(name: str) -> str:
    """Return a name as plain text, in which no cell, tag or line can begin."""
    return printable(name).replace("|", "\\|").replace("<", "&lt;")
