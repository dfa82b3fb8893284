"""Reports as LaTeX: tables of booktabs, ready for \\input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from pylatexenc.latexencode import unicode_to_latex

from petl_bench.report.cited import footnotes, published_grids
from petl_bench.report.columns import (
    HOLE,
    Cell,
    Column,
    accuracies,
    averages,
    costs,
    counts,
    heading,
    labels,
    legend,
    title,
)
from petl_bench.report.compared import by_bits, compared, many
from petl_bench.report.content import Report

PREAMBLE = "% In the preamble: \\usepackage{booktabs} \\usepackage{adjustbox}"
MANY = 10
"""Columns of numbers from which their names stand upright and the table spans both columns of a page."""
CROWDED = 16
"""Columns of numbers from which deviations stand below the means, not beside them."""
MARKS = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")


def latex(report: Report) -> str:
    """Two floats a table (accuracy with its averages; costs), and what the statistics say below them."""
    parts = [PREAMBLE]
    for number, table in enumerate(report.tables):
        what = title(table, report.tables)
        said = [
            f"{_escaped(heading(table))}: {_escaped(what)}.",
            *_notes([legend(table, "bold: best, underlined: second best")]),
            *_notes(table.notes),
        ]
        lead = labels(table)
        numbers = [*accuracies(table), *averages(table)]
        key = f"tab:petl-{number + 1}"
        parts.append(_float(lead, [*numbers, *counts(table)], said, f"{key}-accuracy"))
        said = [f"Bytes of one task's adapter file, trained parameters and time: {_escaped(what)}."]
        parts.append(_float(lead, costs(table), [*said, "Means over the tasks run."], f"{key}-costs"))
        found = report.comparisons[number]
        if many(found):
            for grid, name in ((by_bits(found, table), "by-bits"), (compared(found, table), "bits")):
                parts.append(
                    _float(grid.columns[:1], grid.columns[1:], _sentences([grid.title]), f"{key}-{name}")
                )
        else:
            parts += [_escaped(comparison.sentence) + "\n" for comparison in found]
    for number, grid in enumerate(published_grids(report.tables, report.published)):
        said = [f"{_escaped(grid.title)}.", *(_sentences(footnotes(report.published)) if number == 0 else [])]
        parts.append(_float(grid.columns[:1], grid.columns[1:], said, f"tab:petl-published-{number + 1}"))
    parts += [f"% {' '.join(warning.split())}" for warning in report.warnings]
    return "\n".join(parts) + "\n"


def _float(lead: Sequence[Column], numbers: Sequence[Column], caption: Sequence[str], key: str) -> str:
    columns = [*lead, *numbers]
    many, crowded = len(numbers) > MANY, len(numbers) > CROWDED
    kind = "table*" if many else "table"
    head = [_name(column, upright=many and column not in lead) for column in columns]
    lines = [
        f"\\begin{{{kind}}}[t]",
        "\\centering",
        f"\\caption{{{' '.join(part for part in caption if part)}}}",
        f"\\label{{{key}}}",
        "\\begin{adjustbox}{max width=\\linewidth, max totalheight=0.85\\textheight}",
        *(["\\setlength{\\tabcolsep}{3pt}"] if crowded else []),
        f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        "\\toprule",
        *_over(columns),
        _row(head),
        "\\midrule",
        *(
            row
            for cells in zip(*(column.cells for column in columns), strict=True)
            for row in (_two_rows(cells) if crowded else [_row(map(_cell, cells))])
        ),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{adjustbox}",
        f"\\end{{{kind}}}\n",
    ]
    return "\n".join(lines)


def _over(columns: Sequence[Column]) -> list[str]:
    """The groups of the tasks over their columns, with a rule below each."""
    if not any(column.over for column in columns):
        return []
    cells, rules, at = [], [], 1
    for group, members in groupby(columns, key=lambda column: column.over):
        width = len(list(members))
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{_escaped(group)}}}" if group else " & " * (width - 1))
        rules += [f"\\cmidrule(lr){{{at}-{at + width - 1}}}"] if group else []
        at += width
    return [_row(cells), "".join(rules)]


def _name(column: Column, upright: bool) -> str:
    name = _escaped(column.name)
    return f"\\rotatebox{{90}}{{{name}}}" if upright else name


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _two_rows(cells: Sequence[Cell]) -> list[str]:
    """Means, and deviations below them where there are any."""
    parts = [(cell, *cell.text.partition(" ± ")) for cell in cells]
    means = _row(_cell(Cell(mean, cell.rank)) for cell, mean, _, _ in parts)
    spreads = [f"\\tiny$\\pm${spread}" if spread else "" for *_, spread in parts]
    return [f"{means}[-0.5ex]", _row(spreads)] if any(spreads) else [means]


def _cell(cell: Cell) -> str:
    mean, plus_minus, spread = cell.text.partition(" ± ")
    shown = "--" if cell.text == HOLE else _escaped(mean)
    shown = MARKS[cell.rank].format(shown)
    return f"{shown} {{\\scriptsize$\\pm${spread}}}" if plus_minus else shown


def _sentences(notes: Sequence[str]) -> list[str]:
    return [f"{_escaped(note.removesuffix('.'))}." for note in notes if note]


def _notes(notes: Sequence[str]) -> list[str]:
    return _sentences([note[:1].upper() + note[1:] for note in notes])


def _escaped(text: str) -> str:
    return unicode_to_latex(" ".join(text.split()), unknown_char_policy="unihex", unknown_char_warning=False)
