"""Parts of a report about chosen rows: comparisons of pairs, and tables by bytes and by what was changed."""

from __future__ import annotations

from collections.abc import Sequence

from petl_bench.errors import UserError
from petl_bench.report import Report
from petl_bench.report.grid import percent
from petl_bench.report.labels import label
from petl_bench.report.pairs import Pair
from petl_bench.report.pareto import PARETO, front
from petl_bench.report.settings import NAMED_BY_VALUE
from petl_bench.report.statistics import Comparison, compare
from petl_bench.report.t_tests import Tested
from petl_bench.report.tables import BLANK, Row, Table, setting

GROUPS = "mean of groups"
"""Title of the column of the mean of groups."""


def by_size(report: Report, which: str) -> str:
    """Return the configurations of a report as a Markdown table, the smallest file first.

    Args:
        report: a report with one table.
        which: `front` for the Pareto front alone, `all`, or columns as those of `compared`.
    """
    table = _only_table(report)
    best = front(table.rows)
    chosen = best if which == "front" else table.rows if which == "all" else _rows(table, which)
    rows = sorted(chosen, key=lambda row: row.bytes["bytes_file"])
    lines = [["Configuration", "adapter bytes", "file bytes", GROUPS, *table.groups]]
    lines.append([":--", *["--:"] * (len(lines[0]) - 1)])
    for row in rows:
        sizes = [f"{row.bytes[name]:,.0f}" for name in ("bytes_adapter", "bytes_file")]
        mark = f" {PARETO}" if which != "front" and row in best else ""
        shown = [percent(row.groups[group]) for group in table.groups]
        lines.append([label(row, table), *sizes, percent(row.mean_of_groups) + mark, *shown])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def changed_one_at_a_time(report: Report) -> str:
    """Return bytes and accuracy of changed configurations beside the one that they change, in Markdown.

    The rows of one method and hidden size are one configuration and others that differ from it in one
    setting each. It comes first, and the others follow with differences from it.

    Args:
        report: a report with one table.

    Raises:
        UserError: there is no such configuration, or there are several.
    """
    table = _only_table(report)
    names = [name for name in table.shown_settings if name != "hidden"]
    lines = [["Configuration", "Changed", "adapter bytes", "head bytes", "file bytes", GROUPS, "difference"]]
    lines.append([":--", ":--", *["--:"] * (len(lines[0]) - 2)])
    for adapter, hidden in dict.fromkeys((row.key["adapter"], row.key["hidden"]) for row in table.rows):
        rows = [row for row in table.rows if (row.key["adapter"], row.key["hidden"]) == (adapter, hidden)]
        bases = [
            row
            for row in rows
            if all(len(_changes(row, other, names)) == 1 for other in rows if other is not row)
        ]
        if len(bases) != 1 or len(rows) < 3:
            raise UserError(
                f"{adapter} h{hidden}: {len(rows)} rows, of which {len(bases)} differ from each other one in "
                "exactly one setting; it must be one of three or more"
            )
        (base,) = bases
        for row in [base, *(row for row in rows if row is not base)]:
            changes = ", ".join(_changes(base, row, names)) or "nothing"
            lines.append([f"{adapter} h{hidden}", changes, *_sizes_and_accuracy(row), _difference(row, base)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _changes(base: Row, row: Row, names: Sequence[str]) -> list[str]:
    """Return the settings of a row that differ from those of another, in words."""
    found = []
    for name in names:
        before, after = setting(base, name), setting(row, name)
        if before != after:
            label_of = "" if name in NAMED_BY_VALUE else f"{name} "
            found.append(f"without {label_of}{before}" if after == BLANK else f"{label_of}{after}")
    return found


def _sizes_and_accuracy(row: Row) -> list[str]:
    sizes = [f"{row.bytes[name]:,.0f}" for name in ("bytes_adapter", "bytes_head", "bytes_file")]
    return [*sizes, percent(row.mean_of_groups)]


def _difference(row: Row, base: Row) -> str:
    """Return the difference of the means of groups in points."""
    one, other = row.mean_of_groups.mean, base.mean_of_groups.mean
    return (
        BLANK
        if one is None or other is None or row is base
        else f"{round(100 * (one - other), 1) + 0.0:+.1f}"
    )


def _only_table(report: Report) -> Table:
    if len(report.tables) != 1:
        raise UserError(f"chosen rows need a report with one table, not {len(report.tables)}")
    return report.tables[0]


def compared(report: Report, text: str) -> str:
    """Return a Markdown table of the differences between pairs of configurations, with their statistics.

    The pairs are one family: p-values are corrected for their number.

    Args:
        report: a report with one table.
        text: pairs `A B; C D`. Each configuration is written as columns of its row, joined by commas:
            `adapter=lora,hidden=4,bits=1`. A space within a value is written as `+`.

    Raises:
        UserError: the report has several tables, or a configuration is not exactly one row of it.
    """
    table = _only_table(report)
    found = compare(table, [_pair(table, part) for part in text.split(";")], report.margin)
    kinds = ("over tasks", f"over {table.repetition}", "over both")
    titles = ["Configuration", "bytes", "compared with", "bytes", "difference", *kinds]
    lines = [titles, [":--", "--:", ":--", "--:", "--:", ":--", ":--", ":--"]]
    for one in found:
        sides = [text for row in (one.row, one.against) for text in (label(row, table), _bytes(row))]
        tests = [_tested(tested) for tested in (one, one.repeated, one.mixed)]
        lines.append([*sides, f"{100 * one.difference:+.1f}", *tests])
    margin = f"{100 * report.margin:g}"
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + (
        f"\nBytes of the file; differences of the mean over tasks in points, with unadjusted 95 % intervals; "
        f"verdicts corrected for {len(found)} comparisons; equivalence within ±{margin} points.\n"
    )


def _bytes(row: Row) -> str:
    return f"{row.bytes['bytes_file']:,.0f}"


def _tested(found: Comparison | Tested | None) -> str:
    """Return an interval in points and a verdict."""
    if found is None:
        return BLANK
    return f"{100 * found.low:+.1f} to {100 * found.high:+.1f}, {found.verdict}"


def _pair(table: Table, text: str) -> Pair:
    names = text.split()
    if len(names) != 2:
        raise UserError(f"{text.strip()!r}: expected two configurations")
    one, two = (_row(table, name) for name in names)
    return one, two


def _row(table: Table, text: str) -> Row:
    rows = _rows(table, text)
    if len(rows) != 1:
        raise UserError(f"{text} is {len(rows)} rows of the table, and must be one")
    return rows[0]


def _rows(table: Table, text: str) -> list[Row]:
    """Return the rows with the columns of a text such as `adapter=lora,bits=1`."""
    wanted = {key: value.replace("+", " ") for key, _, value in (p.partition("=") for p in text.split(","))}
    return [row for row in table.rows if all(str(row.key.get(key)) == value for key, value in wanted.items())]
