"""Reports as text: tables for a terminal, and Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from rich.box import SIMPLE_HEAD

from petl_bench.layout import Column, table_lines, wrapped
from petl_bench.report.cited import footnotes, published_grids
from petl_bench.report.content import Report
from petl_bench.report.grid import Cell, Grid
from petl_bench.report.labels import printable
from petl_bench.report.pareto import PARETO
from petl_bench.report.sections import Section
from petl_bench.report.variants import TRIED

MARKS = " ¹²"
"""Marks of a cell by its rank."""


def for_terminal(report: Report, width: int | None = None) -> str:
    """Return a report as tables for a terminal.

    Args:
        report: the report.
        width: number of characters of a line; None: no line is cut or folded.
    """
    return "\n".join(line for text in _lines(report, width) for line in wrapped(text, width)) + "\n"


def _lines(report: Report, width: int | None) -> Iterator[str]:
    for section in report.sections:
        for grid in _grids(section):
            yield from _drawn(grid, width)
        yield from [*_legend(section, "¹ best, ² second best"), *_below(section), ""]
    for grid in published_grids(report.tables, report.published):
        yield from _drawn(grid, width)
    yield from footnotes(report.published)
    yield from (printable(f"note: {warning}") for warning in report.warnings)
    yield f"training curves: {tensorboard(report)}"
    show = f"petl-bench show RUN_ID --store {shlex.quote(str(report.store))}"
    yield f"one run, and the command that repeats it: {show}"


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
    averages = section.averages.plain()
    named = replace(averages, title=f"{averages.title}, {section.title}")
    return [named, section.accuracies, section.costs, *section.comparisons]


def _legend(section: Section, marks: str) -> list[str]:
    legend = section.legend(marks)
    return [legend] if legend else []


def _below(section: Section) -> list[str]:
    """Return the sentences and notes that stand below the grids."""
    return [printable(line) for line in (*section.sentences, *(f"note: {note}" for note in section.notes))]


def _drawn(grid: Grid, width: int | None) -> list[str]:
    """Return the lines of a grid; within a width, numbers have no spaces around their signs."""
    grid = grid if width is None else grid.with_title_for_constants()
    columns = []
    for number, column in enumerate(grid.columns):
        ranked = any(cell.rank for cell in column.cells)
        cells = [printable(cell.text) + (MARKS[cell.rank] if ranked else "") for cell in column.cells]
        if width is not None:
            cells = [re.sub(rf" ?([±{TRIED}{PARETO}]) ?", r"\1", cell) for cell in cells]
        columns.append(Column(printable(column.name), cells, printable(column.over), left=number == 0))
    return [printable(grid.title), *table_lines(columns, grid.labels, width, SIMPLE_HEAD)]


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
