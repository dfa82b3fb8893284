"""Grids of published rows, and of the differences between our results and them."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from petl_bench.report.averages import Statistic
from petl_bench.report.grid import Column, Grid, text_column
from petl_bench.report.labels import label, title
from petl_bench.report.published import SUITE, PublishedRow
from petl_bench.report.tables import BLANK, Row, Table

TITLE = "Published (cited, not run here)"
FULL_PRECISION = 32
"""Bits of a published row that states none."""

Pair = tuple[Table, Row, PublishedRow]
"""A row of ours, its table, and the published row of the same method."""


def published_grids(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[Grid]:
    """Return all grids that published rows add to a report."""
    return [*_cited_grids(rows), *_difference_grids(tables, rows)] if rows else []


def _cited_grids(rows: Sequence[PublishedRow]) -> list[Grid]:
    """Return two grids with the columns of ours: accuracy by task where it is known, averages of all rows."""
    marks = _sources(rows)
    by_task = [row for row in rows if row.mean_of_tasks is not None]
    settings = ["hidden", "bits", "head"]
    return [
        Grid(
            f"{TITLE}: test accuracy (%), suite {SUITE}",
            [
                text_column("method", [row.method for row in by_task]),
                *(
                    text_column(_short(task), [_rounded(row.accuracy[task]) for row in by_task])
                    for task in rows[0].accuracy
                ),
                text_column("source", [marks[_source(row)] for row in by_task]),
            ],
        ),
        Grid(
            f"{TITLE}: averages (%) and size",
            [
                text_column("method", [row.method for row in rows]),
                *(text_column(name, [_stated(getattr(row, name)) for row in rows]) for name in settings),
                text_column("mean of groups", [_rounded(row.mean_of_groups) for row in rows]),
                *(
                    text_column(group, [_rounded(row.groups[group]) for row in rows])
                    for group in rows[0].groups
                ),
                text_column(
                    f"mean of {len(rows[0].accuracy)} tasks", [_rounded(row.mean_of_tasks) for row in rows]
                ),
                text_column("KiB per task", [BLANK if row.kib is None else f"{row.kib:,g}" for row in rows]),
                text_column("source", [marks[_source(row)] for row in rows]),
            ],
        ),
    ]


def _counterparts(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[Pair]:
    """Pair our rows with published ones of the same method and bits, and of the same hidden size and head.

    A hidden size that the source does not state fits any; a head that it does not state is linear.
    """
    return [
        (table, own, row)
        for table in tables
        if table.key["suite"] == SUITE and not table.key["altered"]
        for own in table.rows
        for row in rows
        if _same(own, row)
    ]


def _difference_grids(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[Grid]:
    """Return our accuracies minus published ones in points; cells that lack either of them are blank."""
    pairs = _counterparts(tables, rows)
    if not pairs:
        return []
    marks = _sources(rows)
    lead = [
        text_column("ours", [f"{label(own, table)}; {title(table, tables)}" for table, own, _ in pairs]),
        text_column("published", [_name(row) for _, _, row in pairs]),
        text_column("source", [marks[_source(row)] for _, _, row in pairs]),
    ]
    first = rows[0]

    def column(name: str, accuracies: Sequence[tuple[float | None, float | None]]) -> Column:
        return text_column(name, [_points(ours, theirs) for ours, theirs in accuracies])

    by_task = [
        column(_short(task), [(_mean(own.tasks.get(task)), row.accuracy[task]) for _, own, row in pairs])
        for task in first.accuracy
    ]
    averages = [
        column(
            "mean of groups",
            [(_whole(own.mean_of_groups, table), row.mean_of_groups) for table, own, row in pairs],
        ),
        *(
            column(group, [(_of_group(own, group, table), row.groups[group]) for table, own, row in pairs])
            for group in first.groups
        ),
        column(
            f"mean of {len(first.accuracy)} tasks",
            [(_whole(own.mean_of_tasks, table), row.mean_of_tasks) for table, own, row in pairs],
        ),
    ]
    return [
        Grid("Ours minus published, averages (points)", [*lead, *averages]),
        Grid("Ours minus published, by task (points)", [*lead, *by_task]),
    ]


def differences(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[dict[str, object]]:
    """Return our accuracies minus published ones as objects of fractions; None where either is missing."""
    return [
        table.key
        | own.key
        | {
            "published": row.method,
            "source": row.source,
            "tasks": {
                name: _minus(_mean(own.tasks.get(name)), value) for name, value in row.accuracy.items()
            },
            "groups": {
                name: _minus(_of_group(own, name, table), value) for name, value in row.groups.items()
            },
            "mean_of_groups": _minus(_whole(own.mean_of_groups, table), row.mean_of_groups),
            "mean_of_tasks": _minus(_whole(own.mean_of_tasks, table), row.mean_of_tasks),
        }
        for table, own, row in _counterparts(tables, rows)
    ]


def footnotes(rows: Sequence[PublishedRow]) -> list[str]:
    """Explain the source marks and the averages of the published grids."""
    if not rows:
        return []
    return [
        *(f"{mark}: {source}" for source, mark in _sources(rows).items()),
        "Means are computed from the cited values by task; where the source has none, its mean of groups is "
        "cited. KiB: 1024 bytes, head included, the mean of the three group means.",
    ]


def _same(own: Row, row: PublishedRow) -> bool:
    wanted = {"adapter": row.adapter, "bits": row.bits or FULL_PRECISION, "head": row.head or "linear"}
    wanted |= {} if row.hidden is None else {"hidden": row.hidden}
    return all(own.key[name] == value for name, value in wanted.items())


def _short(task: str) -> str:
    return task.removeprefix(f"{SUITE}_")


def _stated(value: object) -> str:
    return BLANK if value is None else str(value)


def _name(row: PublishedRow) -> str:
    said = [
        f"{name} {value}" for name in ("hidden", "bits", "head") if (value := getattr(row, name)) is not None
    ]
    return ", ".join([row.method, *said])


def _sources(rows: Sequence[PublishedRow]) -> dict[str, str]:
    """Return the mark of each source: a, b, ..."""
    return dict(zip(dict.fromkeys(map(_source, rows)), ascii_lowercase, strict=False))


def _source(row: PublishedRow) -> str:
    return (
        f"README of {row.source}; weights {row.backbone}; pixel normalization {row.normalization}; "
        f"selection {row.selection}"
    )


def _mean(value: Statistic | None) -> float | None:
    return value.mean if value else None


def _whole(average: Statistic, table: Table) -> float | None:
    """Return an average over all tasks of a suite; None in a table of a part of it."""
    return None if table.lacking else average.mean


def _of_group(row: Row, group: str, table: Table) -> float | None:
    """Return the mean of a group; None where the table lacks one of its tasks."""
    return None if any(task.group == group for task in table.lacking) else _mean(row.groups.get(group))


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _points(ours: float | None, theirs: float | None) -> str:
    difference = _minus(ours, theirs)
    return BLANK if difference is None else f"{100 * difference:+.1f}"


def _rounded(value: float | None) -> str:
    """Return percent with halves rounded up, as papers do: the mean 84.55 of four tasks is 84.6 in theirs."""
    return BLANK if value is None else f"{100 * value + 1e-9:.1f}"
