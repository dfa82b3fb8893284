"""The content of a report, independent of its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from petl_bench.errors import UserError
from petl_bench.report.pairs import Pair, Question, asked, by_width
from petl_bench.report.power import Power, power
from petl_bench.report.published import PublishedRow, cautions, published
from petl_bench.report.recipes import named
from petl_bench.report.sections import Section, section
from petl_bench.report.statistics import Comparison, Ranking, compare, ranking
from petl_bench.report.tables import Table, tabulate
from petl_bench.report.variants import counts, variants
from petl_bench.types import Manifest, ResultRow

if TYPE_CHECKING:
    from petl_bench.report.figures import Figure


@dataclass(frozen=True)
class Report:
    """Everything that a report says; each part is computed when it is first needed.

    Attributes:
        results: the finished runs.
        tables: tables of the results.
        warnings: warnings about the report as a whole; those about one table are its notes.
        published: cited results of others; empty where none were asked for.
        margin: largest difference that counts as equivalent, a fraction of 1.
        store: folder of the store that holds the runs.
        variants: number of variants of each run's cell in the whole store (petl_bench.report.variants).
        pairs: rows of each table that are compared.
        question: what the reader asked to have compared; None: bit-widths are.
        with_power: whether to say what the comparisons could have shown.
    """

    results: Sequence[ResultRow]
    tables: list[Table]
    warnings: list[str]
    published: list[PublishedRow]
    margin: float
    store: Path
    variants: Mapping[str, int]
    pairs: list[list[Pair]]
    question: Question | None
    with_power: bool

    @cached_property
    def comparisons(self) -> list[list[Comparison]]:
        """Comparisons of rows for each table."""
        both = zip(self.tables, self.pairs, strict=True)
        return [compare(table, pairs, self.margin) for table, pairs in both]

    @cached_property
    def powers(self) -> list[Power | None]:
        """Power of the comparisons of each table; None without comparisons, or where it is not asked for."""
        return [power(found) if self.with_power else None for found in self.comparisons]

    @cached_property
    def sections(self) -> list[Section]:
        """Grids, sentences and notes of each table."""
        asked = self.question is not None
        parts = zip(self.tables, self.comparisons, self.powers, strict=True)
        return [section(table, self.tables, found, asked, reach) for table, found, reach in parts]

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """Rankings by the number of their table; tables without one are left out."""
        found = {number: ranking(table) for number, table in enumerate(self.tables)}
        return {number: held for number, held in found.items() if held}

    @cached_property
    def figures(self) -> list[Figure]:
        """All figures that apply to the tables. Imports matplotlib."""
        from petl_bench.report.figures import figures

        return figures(self.tables, self.margin, self.rankings, self.pairs, self.question is not None)

    @property
    def all_warnings(self) -> list[str]:
        """Notes of all tables and warnings about the whole, without repetitions."""
        return list(dict.fromkeys([*(note for table in self.tables for note in table.notes), *self.warnings]))


def build(
    results: Sequence[ResultRow],
    tasks: Mapping[str, Manifest],
    margin: float,
    store: Path,
    cite: bool = False,
    whole: Sequence[ResultRow] | None = None,
    filters: Sequence[str] = (),
    question: Question | None = None,
    with_power: bool = False,
) -> Report:
    """Build a report of finished runs.

    Args:
        results: finished runs.
        tasks: all known tasks by name; they define which tasks the averages of a suite need, and their order.
        margin: largest difference in accuracy that counts as equivalent, a fraction of 1.
        store: folder of the store that holds the runs.
        cite: put published results beside ours.
        whole: all finished runs of the store, of which `results` may be a selection; None: `results`.
        filters: what selected `results`, as KEY=VALUE.
        question: what is compared in place of bit-widths.
        with_power: say what the comparisons could have shown.

    Raises:
        UserError: the question cannot be answered, or nothing is compared whose power could be stated.
    """
    results = named(results, store)
    found = variants(results if whole is None else whole)
    tables, warnings = tabulate(results, tasks, found)
    if filters and whole is not None:
        seen = f"{len(results):,} of {len(whole):,}"
        warnings.insert(0, f"only runs with {' and '.join(filters)} are shown: {seen}")
    pairs, remarks = asked(question, tables) if question else ([by_width(table) for table in tables], [])
    warnings += remarks
    if with_power and not any(pairs):
        raise UserError(
            "--power states what comparisons could have shown, but this report has none: it needs rows that "
            "differ in bits, or --baseline or --compare, with results on at least two tasks"
        )
    cited = published(tasks) if cite else []
    warnings += cautions(tables, cited) if cited else []
    return Report(results, tables, warnings, cited, margin, store, counts(found), pairs, question, with_power)
