"""Reports as LaTeX: booktabs tables, ready for \\input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pylatexenc.latexencode import unicode_to_latex

from petl_bench.report.cited import footnotes, published_grids
from petl_bench.report.content import Report
from petl_bench.report.grid import Cell, Column, Grid
from petl_bench.report.sections import Section
from petl_bench.report.tables import BLANK

PREAMBLE = "% In the preamble: \\usepackage{booktabs} \\usepackage{adjustbox}"
MANY = 10
"""Number of columns without labels above which their names are rotated, and the table spans the page."""
CROWDED = 16
"""Number of columns without labels above which standard deviations stand below the means."""
MARKS = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
"""Formats of a cell by its rank."""


def latex(report: Report) -> str:
    """Return a report as LaTeX: floats of accuracies and costs for each table, and its statistics."""
    parts = [PREAMBLE]
    for number, section in enumerate(report.sections):
        parts += _section(section, f"tab:petl-{number + 1}")
    for number, grid in enumerate(published_grids(report.tables, report.published)):
        caption = [
            f"{_escaped(grid.title)}.",
            *(_sentences(footnotes(report.published)) if number == 0 else []),
        ]
        parts.append(_float(grid, caption, f"tab:petl-published-{number + 1}"))
    parts += [f"% {' '.join(warning.split())}" for warning in report.warnings]
    return "\n".join(parts) + "\n"


def _section(section: Section, key: str) -> Iterator[str]:
    caption = [
        f"{_escaped(section.accuracies.title)}: {_escaped(section.title)}.",
        *_notes([section.legend("bold: best, underlined: second best"), *section.notes]),
    ]
    yield _float(section.averages.beside(section.accuracies), caption, f"{key}-accuracy")
    yield _float(
        section.costs, [f"{_escaped(section.costs.title)}: {_escaped(section.title)}."], f"{key}-costs"
    )
    for number, grid in enumerate(section.comparisons):
        yield _float(grid, _sentences([grid.title]), f"{key}-comparisons-{number + 1}")
    yield from (_escaped(sentence) + "\n" for sentence in section.sentences)


def _float(grid: Grid, caption: Sequence[str], key: str) -> str:
    numbers = len(grid.columns) - grid.labels
    many, crowded = numbers > MANY, numbers > CROWDED
    kind = "table*" if many else "table"
    head = [_name(column, many and place >= grid.labels) for place, column in enumerate(grid.columns)]
    lines = [
        f"\\begin{{{kind}}}[t]",
        "\\centering",
        f"\\caption{{{' '.join(part for part in caption if part)}}}",
        f"\\label{{{key}}}",
        "\\begin{adjustbox}{max width=\\linewidth, max totalheight=0.85\\textheight}",
        *(["\\setlength{\\tabcolsep}{3pt}"] if crowded else []),
        f"\\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}}}",
        "\\toprule",
        *_over(grid),
        _row(head),
        "\\midrule",
        *(row for cells in grid.rows for row in (_two_rows(cells) if crowded else [_row(map(_cell, cells))])),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{adjustbox}",
        f"\\end{{{kind}}}\n",
    ]
    return "\n".join(lines)


def _over(grid: Grid) -> list[str]:
    """Return the headings over neighbouring columns, with a rule below each."""
    if not any(group for group, _ in grid.groups):
        return []
    cells, rules = [], []
    for group, members in grid.groups:
        width = len(members)
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{_escaped(group)}}}" if group else " & " * (width - 1))
        rules += [f"\\cmidrule(lr){{{members[0] + 1}-{members[-1] + 1}}}"] if group else []
    return [_row(cells), "".join(rules)]


def _name(column: Column, rotated: bool) -> str:
    name = _escaped(column.name)
    return f"\\rotatebox{{90}}{{{name}}}" if rotated else name


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _two_rows(cells: Sequence[Cell]) -> list[str]:
    """Return a row of means and, where there are any, a row of standard deviations below it."""
    parts = [(cell, *cell.text.partition(" ± ")) for cell in cells]
    means = _row(_cell(Cell(mean, cell.rank)) for cell, mean, _, _ in parts)
    stds = [f"\\tiny$\\pm${_escaped(std)}" if std else "" for *_, std in parts]
    return [f"{means}[-0.5ex]", _row(stds)] if any(stds) else [means]


def _cell(cell: Cell) -> str:
    mean, plus_minus, std = cell.text.partition(" ± ")
    shown = "--" if cell.text == BLANK else _escaped(mean)
    shown = MARKS[cell.rank].format(shown)
    return f"{shown} {{\\scriptsize$\\pm${_escaped(std)}}}" if plus_minus else shown


def _sentences(notes: Sequence[str]) -> list[str]:
    return [f"{_escaped(note.removesuffix('.'))}." for note in notes if note]


def _notes(notes: Sequence[str]) -> list[str]:
    return _sentences([note[:1].upper() + note[1:] for note in notes])


def _escaped(text: str) -> str:
    return unicode_to_latex(" ".join(text.split()), unknown_char_policy="unihex", unknown_char_warning=False)
