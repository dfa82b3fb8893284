"""Everything that a report prints about one table, built once for all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from petl_bench.report.compared import all_numbers, by_bits, power_grids, verdicts
from petl_bench.report.grid import (
    Grid,
    accuracy_columns,
    average_columns,
    cost_columns,
    count_columns,
    label_columns,
    percent,
)
from petl_bench.report.labels import PEEK, heading, label, title
from petl_bench.report.pareto import MEANING, PARETO
from petl_bench.report.power import Power
from petl_bench.report.sentences import sentences
from petl_bench.report.statistics import Comparison
from petl_bench.report.tables import Table

MOST_SENTENCES = 8
"""Largest number of comparisons of one table that are written as sentences; more are printed as grids."""


@dataclass(frozen=True)
class Section:
    """Grids, sentences and notes about one table of results.

    Attributes:
        title: settings that all rows have in common.
        accuracies: accuracy by task.
        averages: averages over groups and tasks, in the rows of `accuracies`.
        costs: bytes, parameters and seconds, in the rows of `accuracies`.
        comparisons: grids of many comparisons, where there are no sentences, and of their power.
        sentences: a sentence for each comparison; empty where there are grids instead.
        numbers: all numbers of the comparisons; None without comparisons.
        notes: remarks on the runs and the numbers of the table.
        deviation: explanation of the sign ± in its cells; empty where there is none.
        headline: the best mean of groups in percent, with the name of its row; None where there is no mean.
    """

    title: str
    accuracies: Grid
    averages: Grid
    costs: Grid
    comparisons: list[Grid]
    sentences: list[str]
    numbers: Grid | None
    notes: list[str]
    deviation: str
    headline: tuple[str, str] | None = None

    def legend(self, marks: str) -> str:
        """Explain the marks and signs in the cells; empty where there are none.

        Args:
            marks: how the format marks best and second best.
        """
        ranked = self.accuracies.ranked or self.averages.ranked
        front = any(PARETO in cell.text for column in self.averages.columns for cell in column.cells)
        parts = [f"{marks} of a column" if ranked else "", self.deviation, MEANING if front else ""]
        return "; ".join(filter(None, parts))


def section(
    table: Table,
    tables: Sequence[Table],
    comparisons: Sequence[Comparison],
    asked: bool = False,
    reach: Power | None = None,
) -> Section:
    """Build the section of a table.

    Args:
        table: the table.
        tables: all tables of the report, from which the title tells this one apart.
        comparisons: comparisons of rows of this table.
        asked: whether the reader asked for them; otherwise they are of bit-widths.
        reach: power of the comparisons; None: it is not shown.
    """
    labels = label_columns(table)
    many = len(comparisons) > MOST_SENTENCES
    sides = [] if asked or not many else [by_bits(comparisons, table)]
    powers = power_grids(reach, comparisons, table) if reach else []
    several = any(value.std is not None for row in table.rows for value in row.tasks.values())
    peek = f" {PEEK}" if table.key["protocol"] == "peek" else ""
    count = len(labels)
    return Section(
        title=title(table, tables),
        accuracies=Grid(heading(table), [*labels, *accuracy_columns(table)], count),
        averages=Grid(
            f"Averages (%) over groups and tasks{peek}",
            [*labels, *average_columns(table), *count_columns(table)],
            count,
        ),
        costs=Grid(
            "Bytes of one task's adapter file, trainable parameters and time, means over the tasks run",
            [*labels, *cost_columns(table)],
            count,
        ),
        comparisons=[*sides, *([verdicts(comparisons, table, asked)] if many else []), *powers],
        sentences=[] if many else sentences(comparisons, table),
        numbers=all_numbers(comparisons, table) if comparisons else None,
        notes=table.notes,
        deviation=f"±: standard deviation over {table.repetition}" if several else "",
        headline=_headline(table),
    )


def _headline(table: Table) -> tuple[str, str] | None:
    known = [(row.mean_of_groups.mean, row) for row in table.rows if row.mean_of_groups.mean is not None]
    if not known:
        return None
    _, best = max(known, key=lambda pair: pair[0])
    peek = f" {PEEK}" if table.key["protocol"] == "peek" else ""
    return f"{percent(best.mean_of_groups)} %{peek}", label(best, table)
