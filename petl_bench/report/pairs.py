"""Choice of the pairs of rows that a report compares.

Without a question of the reader, each row is compared with its otherwise identical counterpart with the most
bits. A question names one configuration, with which all others are compared, or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from petl_bench.errors import UserError, counted
from petl_bench.report.labels import label, title
from petl_bench.report.settings import PREFERRED, WIDTH_SETTINGS
from petl_bench.report.tables import Row, Table
from petl_bench.types import FLOAT_BITS

NONE = "none"
"""Quantizer of a row that is not quantized (32 bits)."""
FEWEST_TASKS = 2
"""Smallest number of tasks that rows are compared over."""
FIRST = ("adapter", "hidden", "bits")
"""Settings by which a message tells rows apart before it needs others."""
MOST = 8
"""Largest number of rows or tasks that a message lists."""

Pair = tuple[Row, Row]
"""A row and the row that it is compared with."""


@dataclass(frozen=True)
class Choice:
    """A configuration that was asked for.

    Attributes:
        text: settings that name it, `adapter=lora,bits=32`.
        runs: run_ids of all runs with its settings.
    """

    text: str
    runs: frozenset[str]


@dataclass(frozen=True)
class Question:
    """A comparison that the reader asks for.

    Attributes:
        text: the option that asks it.
        of: the configuration that is compared with `against`; None: every other one of its table.
        against: the configuration that it is compared with.
    """

    text: str
    of: Choice | None
    against: Choice


def complete(table: Table) -> list[Row]:
    """Return the rows of a table that have a result on every task."""
    return [row for row in table.rows if not _lacking(row)]


def by_width(table: Table) -> list[Pair]:
    """Pair each row with its otherwise identical counterpart with the most bits, where that has more bits.

    Of several counterparts with the most bits, the one that agrees in most of PREFERRED is taken. A row of
    one quantizer is never compared with one of another quantizer, only with its own or with an unquantized
    row. Rows that lack a task take no part.
    """
    rows = [row for row in complete(table) if row.key["hidden"]]
    alike: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        alike.setdefault(_method(row), []).append(row)
    pairs = []
    for row in rows:
        fitting = [o for o in alike[_method(row)] if o.key["quantizer"] in (row.key["quantizer"], NONE)]
        pairs.append((row, max(fitting, key=partial(_closeness, row))))
    return [pair for pair in pairs if fewer_bits(pair)] if len(table.tasks) >= FEWEST_TASKS else []


def fewer_bits(pair: Pair) -> bool:
    """Return whether the first row is the second one with fewer bits, and otherwise identical.

    A row at 32 bits is never compressed, and has its like among those compressed in any way.
    """
    row, against = pair
    same = against.key["bits"] == FLOAT_BITS or row.key.get("compress") == against.key.get("compress")
    return same and _method(row) == _method(against) and row.key["bits"] < against.key["bits"]


def asked(question: Question, tables: Sequence[Table]) -> tuple[list[list[Pair]], list[str]]:
    """Return the pairs of each table that answer a question, and remarks on what is not compared.

    Args:
        question: the question.
        tables: all tables of the report.

    Raises:
        UserError: a configuration is several rows of a table, or no table has rows to compare.
    """
    found, remarks = [], []
    for table in tables:
        pairs, lacking = _of_table(question, table)
        found.append(pairs)
        where = f" in the table {title(table, tables)}" if len(tables) > 1 else ""
        remarks += [f"{question.text}: {reason}{where}" for reason in lacking]
    if not any(found):
        raise UserError(remarks[0] if remarks else f"{question.text}: this report has no table")
    return found, remarks


def _of_table(question: Question, table: Table) -> tuple[list[Pair], list[str]]:
    """Return the pairs of one table, and what is not compared."""
    if len(table.tasks) < FEWEST_TASKS:
        return [], [f"tests need at least {FEWEST_TASKS} tasks, but the runs are on one"]
    chosen = [
        (choice, _row(choice, question, table))
        for choice in (question.of, question.against)
        if choice is not None
    ]
    for choice, row in chosen:
        if row is None:
            return [], [f"no row has {choice.text} in all its runs"]
        if lacking := _lacking(row):
            has = ",".join(task for task in row.tasks if task not in lacking)
            known = f"{counted(len(lacking), 'task')} ({', '.join(lacking[:MOST])})"
            return [], [f"{label(row, table)} has no result on {known}; --tasks {has} compares on the others"]
    rows = [row for _, row in chosen if row is not None]
    if question.of is not None:
        same = rows[0] is rows[1]
        return ([], ["both are the same row"]) if same else ([(rows[0], rows[1])], [])
    others = [row for row in table.rows if row is not rows[0]]
    whole = [row for row in others if not _lacking(row)]
    holed = [label(row, table) for row in others if _lacking(row)]
    named = "; ".join([*holed[:MOST], *(["..."] if len(holed) > MOST else [])])
    without = f"{counted(len(holed), 'row')} without results on all tasks not compared: {named}"
    if not whole:
        return [], [f"no other row has results on all {len(table.tasks)} tasks"]
    return [(row, rows[0]) for row in whole], [without] if holed else []


def _row(choice: Choice, question: Question, table: Table) -> Row | None:
    """Return the row of a table that has a configuration; None if there is none.

    Raises:
        UserError: several rows have it.
    """
    rows = [row for row in table.rows if row.runs <= choice.runs]
    if len(rows) < 2:
        return rows[0] if rows else None
    told: list[str] = []
    for name in sorted(rows[0].key, key=lambda name: name not in FIRST):
        kinds = [{tuple(row.key[n] for n in names) for row in rows} for names in (told, [*told, name])]
        told += [name] if len(kinds[1]) > len(kinds[0]) else []
    named = [",".join(f"{name}={row.key[name]}" for name in told) for row in rows[:MOST]]
    more = " or ..." if len(rows) > MOST else ""
    raise UserError(
        f"{question.text}: {choice.text} is {len(rows)} rows of the table, and must be one: "
        f"add {' or '.join(named)}{more}"
    )


def _lacking(row: Row) -> list[str]:
    return [name for name, value in row.tasks.items() if value.mean is None]


def _closeness(row: Row, other: Row) -> tuple[int, ...]:
    shared = (other.key.get(name) == row.key.get(name) for name in PREFERRED)
    return other.key["bits"], *shared


def _method(row: Row) -> tuple[object, ...]:
    return tuple(value for name, value in row.key.items() if name not in WIDTH_SETTINGS)
