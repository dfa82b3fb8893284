"""Everything one report says, whatever its form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from petl_bench.report.published import PublishedRow, cautions, published
from petl_bench.report.statistics import Comparison, Ranking, ranking, widths
from petl_bench.report.tables import Table, tabulate
from petl_bench.types import Manifest, ResultRow

if TYPE_CHECKING:
    from petl_bench.report.figures import Figure


@dataclass(frozen=True)
class Report:
    rows: Sequence[ResultRow]
    tables: list[Table]
    warnings: list[str]
    """Of the report as a whole; those of one table are its notes."""
    published: list[PublishedRow]
    margin: float
    """Of equivalence, a fraction of 1."""
    store: Path
    """Where the rows are from."""

    @cached_property
    def comparisons(self) -> list[list[Comparison]]:
        """Fewer bits against the most, for each table."""
        return [widths(table, self.margin) for table in self.tables]

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """Of the tables that have one, by their place."""
        found = {number: ranking(table) for number, table in enumerate(self.tables)}
        return {number: held for number, held in found.items() if held}

    @cached_property
    def figures(self) -> list[Figure]:
        """Every figure that the rows allow. Loads matplotlib."""
        from petl_bench.report.figures import figures

        return figures(self.tables, self.margin, self.rankings, self.comparisons)

    @property
    def all_warnings(self) -> list[str]:
        """The notes of all tables and the warnings of the whole, each once."""
        return list(dict.fromkeys([*(note for table in self.tables for note in table.notes), *self.warnings]))


def build(
    rows: Sequence[ResultRow], tasks: Mapping[str, Manifest], margin: float, store: Path, cite: bool = False
) -> Report:
    """A report of some rows.

    Args:
        tasks: all known tasks; they say which tasks a suite's averages need, and in which order.
        margin: within which accuracies count as equivalent, a fraction of 1.
        cite: whether to put published rows beside ours.
    """
    tables, warnings = tabulate(rows, tasks)
    cited = published(tasks) if cite else []
    warnings += cautions(tables, cited) if cited else []
    return Report(rows, tables, warnings, cited, margin, store)
