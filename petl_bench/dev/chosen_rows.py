"""Parts of a report about chosen rows: sentences on pairs, and a table in the order of bytes."""

from __future__ import annotations

from petl_bench.errors import UserError
from petl_bench.report import Report
from petl_bench.report.grid import percent
from petl_bench.report.labels import label
from petl_bench.report.pairs import Pair
from petl_bench.report.pareto import PARETO, front
from petl_bench.report.sentences import sentences
from petl_bench.report.statistics import compare
from petl_bench.report.tables import Row, Table

GROUPS = "mean of groups"
"""Title of the column of the mean of groups."""


def by_size(report: Report, which: str) -> str:
    """Return the configurations of a report as a Markdown table, the smallest file first.

    Args:
        report: a report with one table.
        which: `front` for the Pareto front alone, or `all`.
    """
    table = _only_table(report)
    best = front(table.rows)
    rows = best if which == "front" else sorted(table.rows, key=lambda row: row.bytes["bytes_file"])
    lines = [["Configuration", "adapter bytes", "file bytes", GROUPS, *table.groups]]
    lines.append([":--", *["--:"] * (len(lines[0]) - 1)])
    for row in rows:
        sizes = [f"{row.bytes[name]:,.0f}" for name in ("bytes_adapter", "bytes_file")]
        mark = f" {PARETO}" if which != "front" and row in best else ""
        shown = [percent(row.groups[group]) for group in table.groups]
        lines.append([label(row, table), *sizes, percent(row.mean_of_groups) + mark, *shown])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _only_table(report: Report) -> Table:
    if len(report.tables) != 1:
        raise UserError(f"chosen rows need a report with one table, not {len(report.tables)}")
    return report.tables[0]


def compared(report: Report, text: str) -> str:
    """Return one Markdown list entry for each pair of configurations.

    The pairs are one family: p-values are corrected for their number.

    Args:
        report: a report with one table.
        text: pairs `A B; C D`. Each configuration is written as columns of its row, joined by commas:
            `adapter=lora,hidden=4,bits=1`.

    Raises:
        UserError: the report has several tables, or a configuration is not exactly one row of it.
    """
    table = _only_table(report)
    pairs = [_pair(table, part) for part in text.split(";")]
    return "".join(f"- {sentence}\n" for sentence in sentences(compare(table, pairs, report.margin), table))


def _pair(table: Table, text: str) -> Pair:
    names = text.split()
    if len(names) != 2:
        raise UserError(f"{text.strip()!r}: expected two configurations")
    one, two = (_row(table, name) for name in names)
    return one, two


def _row(table: Table, text: str) -> Row:
    wanted = dict(part.partition("=")[::2] for part in text.split(","))
    rows = [
        row for row in table.rows if all(str(row.key.get(name)) == value for name, value in wanted.items())
    ]
    if len(rows) != 1:
        raise UserError(f"{text} is {len(rows)} rows of the table, and must be one")
    return rows[0]
