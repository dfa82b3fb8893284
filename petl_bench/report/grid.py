"""Printed tables, independent of their format: columns of marked cells, built from tables of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from petl_bench.errors import counted
from petl_bench.report.averages import Statistic
from petl_bench.report.pareto import PARETO, front
from petl_bench.report.tables import BLANK, BYTES, Row, Table, setting
from petl_bench.report.variants import TRIED

SIZES = ["adapter bytes", "adapter raw", "head bytes", "overhead bytes", "file bytes"]
"""Column names of BYTES."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: the value as it is printed.
        rank: 1 for the best of its column, 2 for the second best, 0 for all others.
    """

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: heading of the column.
        cells: one cell for each row.
        over: heading over neighbouring columns, for example the group of the tasks.
        measured: whether it holds accuracies, which stay in the table though all of them are equal.
    """

    name: str
    cells: list[Cell]
    over: str = ""
    measured: bool = False


@dataclass(frozen=True)
class Grid:
    """One printed table.

    Attributes:
        title: description of its numbers.
        columns: all columns from left to right.
        labels: number of leading columns that say what a row is.
    """

    title: str
    columns: list[Column]
    labels: int = 1

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))

    @property
    def groups(self) -> list[tuple[str, list[int]]]:
        """Headings over neighbouring columns, each with the numbers of its columns."""
        numbered = groupby(range(len(self.columns)), key=lambda number: self.columns[number].over)
        return [(over, list(numbers)) for over, numbers in numbered]

    @property
    def ranked(self) -> bool:
        """True if any cell is marked as best or second best."""
        return any(cell.rank for column in self.columns for cell in column.cells)

    def plain(self) -> Grid:
        """Return the same grid without headings over its columns."""
        return replace(self, columns=[replace(column, over="") for column in self.columns])

    def with_title_for_constants(self) -> Grid:
        """Return the same grid with the values that all rows share in its title, and not in columns.

        The first column stays, and so do accuracies. A column that is blank in all rows is left out. Rows
        without any setting, as those of methods without an adapter, do not count where the others share a
        setting.
        """
        plain = [all(cell.text == BLANK for cell in cells[1 : self.labels]) for cells in self.rows]
        shared: dict[int, str] = {}
        for number, column in enumerate(self.columns[1:], 1):
            held = zip(column.cells, plain, strict=True)
            texts = {cell.text for cell, none in held if not (none and number < self.labels)}
            if not texts - {BLANK} and not column.measured:
                shared[number] = ""
            elif len(texts) < 2 and len(self.rows) > 1 and not column.measured:
                shared[number] = f"{column.name} {next(iter(texts))}"
        return Grid(
            "; ".join(filter(None, [self.title, ", ".join(filter(None, shared.values()))])),
            [column for number, column in enumerate(self.columns) if number not in shared],
            self.labels - sum(number < self.labels for number in shared),
        )

    def beside(self, other: Grid) -> Grid:
        """Return this grid with the columns of another one, which has the same rows, on its right."""
        return replace(self, columns=[*self.columns, *other.columns[other.labels :]])


def text_column(name: str, texts: Sequence[str]) -> Column:
    """Return a column of texts without marks."""
    return Column(name, [Cell(text) for text in texts])


def percent_column(name: str, values: Sequence[Statistic], over: str = "") -> Column:
    """Return a column of means in percent, best and second best marked; values without a mean are blank."""
    ranks = _ranks([value.mean for value in values])
    cells = [Cell(percent(value), rank) for value, rank in zip(values, ranks, strict=True)]
    return Column(name, cells, over, measured=True)


def label_columns(table: Table) -> list[Column]:
    """Return the columns that say what a row is: adapter, hidden, bits, and settings in which rows differ."""
    names = ["adapter", *table.shown_settings]
    return [text_column(name, [setting(row, name) for row in table.rows]) for name in names]


def accuracy_columns(table: Table) -> list[Column]:
    """Return a column of percents for each task, in the benchmark's order."""
    prefix = f"{table.key['suite']}_"
    return [
        percent_column(
            task.name.removeprefix(prefix), [row.tasks[task.name] for row in table.rows], task.group
        )
        for task in table.tasks
    ]


def average_columns(table: Table) -> list[Column]:
    """Return the columns of the mean of groups, the headline, of group means and of the mean of all tasks.

    Rows on the Pareto front are marked in the first one.
    """
    rows, over = table.rows, "averages"
    means = percent_column("mean of groups", [row.mean_of_groups for row in rows], over)
    best = {id(row) for row in front(rows)}
    marked = [
        replace(cell, text=f"{cell.text} {PARETO}") if id(row) in best else cell
        for cell, row in zip(means.cells, rows, strict=True)
    ]
    last = [Cell(percent(row.last_epoch)) for row in rows if row.last_epoch]
    return [
        replace(means, cells=marked),
        *([Column("mean of groups, last epoch", last, over, measured=True)] if last else []),
        *(percent_column(group, [row.groups[group] for row in rows], over) for group in table.groups),
        percent_column(
            f"mean of {counted(len(table.tasks), 'task')}", [row.mean_of_tasks for row in rows], over
        ),
    ]


def count_columns(table: Table) -> list[Column]:
    """Return the numbers of tasks with results and of repetitions per task: seeds, or seeds times draws."""
    name = "seeds" if table.repetition == "seeds" else "runs"
    return [
        text_column("tasks", [row.complete for row in table.rows]),
        text_column(name, [_repetitions(row) for row in table.rows]),
    ]


def cost_columns(table: Table) -> list[Column]:
    """Return bytes by part, bits per weight, trainable parameters and seconds, means over the tasks run."""
    rows = table.rows
    return [
        *(
            text_column(shown, [f"{row.bytes[name]:,.0f}" for row in rows])
            for shown, name in zip(SIZES, BYTES, strict=True)
        ),
        text_column("bits per weight", [_bits(row) for row in rows]),
        text_column("trainable parameters", [f"{row.params_trainable:,.0f}" for row in rows]),
        text_column("seconds per run", [f"{row.seconds:,.1f}" for row in rows]),
        text_column("tasks", [row.complete for row in rows]),
    ]


def percent(value: Statistic) -> str:
    """Return mean and standard deviation in percent, `83.1 ± 0.4`; only the mean for n = 1.

    The mark TRIED follows where the store holds several variants of a cell.
    """
    if value.mean is None:
        return BLANK
    std = "" if value.std is None else f" ± {100 * value.std:.1f}"
    return f"{100 * value.mean:.1f}{std}" + (f" {TRIED}" if value.variants > 1 else "")


def _ranks(means: Sequence[float | None]) -> list[int]:
    """Return 1 for the best and 2 for the second best mean as printed, so that equal numbers share a rank.

    Nothing is marked where all means are equal, and a second best only among three or more means.
    """
    shown = [None if mean is None else round(100 * mean, 1) for mean in means]
    values = sorted({value for value in shown if value is not None}, reverse=True)
    held = sum(value is not None for value in shown)
    marked = values[: 0 if len(values) < 2 else 1 if held < 3 else 2]
    return [marked.index(value) + 1 if value is not None and value in marked else 0 for value in shown]


def _repetitions(row: Row) -> str:
    found = sorted({value.n for value in row.tasks.values() if value.n})
    return "-".join(str(count) for count in dict.fromkeys([found[0], found[-1]])) if found else "0"


def _bits(row: Row) -> str:
    return BLANK if row.bits_per_weight is None else f"{row.bits_per_weight:.2f}"
