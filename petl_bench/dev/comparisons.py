"""Sentences about chosen pairs of configurations of a report, as one family of tests."""

from __future__ import annotations

from petl_bench.errors import UserError
from petl_bench.report import Report
from petl_bench.report.pairs import Pair
from petl_bench.report.sentences import sentences
from petl_bench.report.statistics import compare
from petl_bench.report.tables import Row, Table


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
    if len(report.tables) != 1:
        raise UserError(f"comparisons need a report with one table, not {len(report.tables)}")
    (table,) = report.tables
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
