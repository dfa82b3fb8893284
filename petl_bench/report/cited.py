"""Published rows as tables of their own, and how far ours are from them."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from petl_bench.report.columns import HOLE, Cell, Column, Grid, label, title
from petl_bench.report.published import SUITE, PublishedRow
from petl_bench.report.tables import Line, Table

TITLE = "Published (cited, not run here)"
FULL_PRECISION = 32
"""Bits of a published row that states none."""


def published_grids(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[Grid]:
    """Everything that stands in tables of its own because of published rows."""
    return [*_cited_grids(rows), *_difference_grids(tables, rows)] if rows else []


def _cited_grids(rows: Sequence[PublishedRow]) -> list[Grid]:
    """Two tables, columns as in ours: accuracy by task (of rows that have it), and averages of all rows."""
    marks = _sources(rows)
    by_task = [row for row in rows if row.mean_of_tasks is not None]
    settings = ["hidden", "bits", "head"]
    return [
        Grid(
            f"{TITLE}: test accuracy (%), suite {SUITE}",
            [
                _column("method", [row.method for row in by_task]),
                *(
                    _column(_short(task), [_rounded(row.accuracy[task]) for row in by_task])
                    for task in rows[0].accuracy
                ),
                _column("source", [marks[_source(row)] for row in by_task]),
            ],
        ),
        Grid(
            f"{TITLE}: averages (%) and size",
            [
                _column("method", [row.method for row in rows]),
                *(_column(name, [_stated(getattr(row, name)) for row in rows]) for name in settings),
                *(_column(group, [_rounded(row.groups[group]) for row in rows]) for group in rows[0].groups),
                _column("mean of groups", [_rounded(row.mean_of_groups) for row in rows]),
                _column(
                    f"mean of {len(rows[0].accuracy)} tasks", [_rounded(row.mean_of_tasks) for row in rows]
                ),
                _column("KiB a task", [HOLE if row.kib is None else f"{row.kib:,g}" for row in rows]),
                _column("source", [marks[_source(row)] for row in rows]),
            ],
        ),
    ]


def counterparts(
    tables: Sequence[Table], rows: Sequence[PublishedRow]
) -> list[tuple[Table, Line, PublishedRow]]:
    """Our lines, each with the published rows of its method, width, and hidden size and head where stated."""
    return [
        (table, line, row)
        for table in tables
        if table.key["suite"] == SUITE and not table.key["altered"]
        for line in table.lines
        for row in rows
        if _same(line, row)
    ]


def _difference_grids(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[Grid]:
    """Ours minus published, in points; a hole where either side has one."""
    pairs = counterparts(tables, rows)
    if not pairs:
        return []
    marks = _sources(rows)
    lead = [
        _column("ours", [f"{label(line, table)}; {title(table, tables)}" for table, line, _ in pairs]),
        _column("published", [_name(row) for _, _, row in pairs]),
        _column("source", [marks[_source(row)] for _, _, row in pairs]),
    ]
    first = rows[0]
    by_task = [
        _column(_short(task), [_points(line.tasks[task].mean, row.accuracy[task]) for _, line, row in pairs])
        for task in first.accuracy
    ]
    averages = [
        _column(group, [_points(line.groups[group].mean, row.groups[group]) for _, line, row in pairs])
        for group in first.groups
    ]
    averages += [
        _column(
            "mean of groups",
            [_points(line.mean_of_groups.mean, row.mean_of_groups) for _, line, row in pairs],
        ),
        _column(
            f"mean of {len(first.accuracy)} tasks",
            [_points(line.mean_of_tasks.mean, row.mean_of_tasks) for _, line, row in pairs],
        ),
    ]
    return [
        Grid("Ours minus published, by task (points)", [*lead, *by_task]),
        Grid("Ours minus published, averages (points)", [*lead, *averages]),
    ]


def differences(tables: Sequence[Table], rows: Sequence[PublishedRow]) -> list[dict[str, object]]:
    """The same for programs: fractions; None where either side has a hole."""
    return [
        table.key
        | line.key
        | {
            "published": row.method,
            "source": row.source,
            "tasks": {name: _minus(line.tasks[name].mean, value) for name, value in row.accuracy.items()},
            "groups": {name: _minus(line.groups[name].mean, value) for name, value in row.groups.items()},
            "mean_of_groups": _minus(line.mean_of_groups.mean, row.mean_of_groups),
            "mean_of_tasks": _minus(line.mean_of_tasks.mean, row.mean_of_tasks),
        }
        for table, line, row in counterparts(tables, rows)
    ]


def footnotes(rows: Sequence[PublishedRow]) -> list[str]:
    """What the marks of the published tables stand for, and what their averages are."""
    if not rows:
        return []
    return [
        *(f"{mark}: {source}" for source, mark in _sources(rows).items()),
        "Means are computed from the cited values by task; without these, the mean of groups is cited too. "
        "KiB: 1024 bytes, head included, the mean of the three group means.",
    ]


def _same(line: Line, row: PublishedRow) -> bool:
    wanted = {"adapter": row.adapter, "bits": row.bits or FULL_PRECISION, "head": row.head or "linear"}
    wanted |= {} if row.hidden is None else {"hidden": row.hidden}
    return all(line.key[name] == value for name, value in wanted.items())


def _column(name: str, texts: Sequence[str]) -> Column:
    return Column(name, [Cell(text) for text in texts])


def _short(task: str) -> str:
    return task.removeprefix(f"{SUITE}_")


def _stated(value: object) -> str:
    return HOLE if value is None else str(value)


def _name(row: PublishedRow) -> str:
    said = [
        f"{name} {value}" for name in ("hidden", "bits", "head") if (value := getattr(row, name)) is not None
    ]
    return ", ".join([row.method, *said])


def _sources(rows: Sequence[PublishedRow]) -> dict[str, str]:
    """Source -> its mark: a, b, ..."""
    return dict(zip(dict.fromkeys(map(_source, rows)), ascii_lowercase, strict=False))


def _source(row: PublishedRow) -> str:
    return (
        f"README of {row.source}; weights {row.backbone}; pixel normalization {row.normalization}; "
        f"selection {row.selection}"
    )


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _points(ours: float | None, theirs: float | None) -> str:
    difference = _minus(ours, theirs)
    return HOLE if difference is None else f"{100 * difference:+.1f}"


def _rounded(value: float | None) -> str:
    """Percent, half rounded up as papers do: the mean 84.55 of four tasks is 84.6 in theirs."""
    return HOLE if value is None else f"{100 * value + 1e-9:.1f}"
