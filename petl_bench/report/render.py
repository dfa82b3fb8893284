"""Tables as text, markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from string import ascii_lowercase
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from petl_bench.report.published import SUITE, PublishedRow
from petl_bench.report.tables import BYTES, Line, Statistic, Table

HOLE = "-"
OFF_BY_DEFAULT = ("settings", "rate_weight")
"""Settings that get a column as soon as one line has any, and a hole where a line has none."""
Grid = tuple[str, list[str], list[list[str]]]
"""Title, header and body."""


def text(tables: Sequence[Table], warnings: Sequence[str], published: Sequence[PublishedRow] = ()) -> str:
    """Tables for a terminal; warnings go to stderr, not here."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=400, highlight=False)
    for title, header, body in _all_grids(tables, published):
        console.print(title, markup=False, soft_wrap=True)
        grid = RichTable(box=box.SIMPLE_HEAD)
        for number, name in enumerate(header):
            grid.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
        for cells in body:
            grid.add_row(*cells)
        console.print(grid)
    for footnote in _footnotes(published):
        console.print(footnote, markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def markdown(tables: Sequence[Table], warnings: Sequence[str], published: Sequence[PublishedRow] = ()) -> str:
    """Tables and warnings for a README or an issue."""
    parts = []
    for title, header, body in _all_grids(tables, published):
        rule = [":--", *["--:"] * (len(header) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in [header, rule, *body]]
        parts.append("\n".join([f"**{title}**", "", *lines]))
    parts += _footnotes(published)
    parts += [f"> Warning: {warning}" for warning in warnings]
    return "\n\n".join(parts) + "\n"


def to_csv(tables: Sequence[Table], warnings: Sequence[str], published: Sequence[PublishedRow] = ()) -> str:
    """One line a cell (configuration and task) of the store; published rows are no cells of it."""
    cells = _cells(tables)
    buffer = io.StringIO()
    columns = list(dict.fromkeys(key for cell in cells for key in cell))
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return buffer.getvalue()


def to_json(tables: Sequence[Table], warnings: Sequence[str], published: Sequence[PublishedRow] = ()) -> str:
    """`rows`: a cell each; `averages`: a configuration each; `warnings`; `published`, where asked for."""
    averages = [
        table.key
        | line.key
        | {
            "tasks": line.complete,
            "groups": {group: asdict(value) for group, value in line.groups.items()},
            "mean_of_groups": asdict(line.mean_of_groups),
            "mean_of_tasks": asdict(line.mean_of_tasks),
            "last_epoch": asdict(line.last_epoch) if line.last_epoch else None,
            **line.bytes,
            "bits_per_weight": line.bits_per_weight,
        }
        for table in tables
        for line in table.lines
    ]
    content = {"rows": _cells(tables), "averages": averages, "warnings": list(warnings)}
    if published:
        content["published"] = [asdict(row) for row in published]
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FORMATS = {"text": text, "markdown": markdown, "csv": to_csv, "json": to_json}


def _all_grids(tables: Sequence[Table], published: Sequence[PublishedRow]) -> list[Grid]:
    grids = [grid for table in tables for grid in _grids(table, _differ(tables))]
    return [*grids, *(_published_grids(published) if published else [])]


def _grids(table: Table, recipes: bool) -> list[Grid]:
    """Three tables: accuracy by task, averages, bytes.

    Args:
        recipes: whether titles name the recipe, because there are several.
    """
    what = ", ".join(f"{name} {table.key[name]}" for name in ("suite", "backbone", "protocol"))
    what += f", rungs {table.key['rungs']}" if table.key["rungs"] else ""
    what += f", {table.key['precision']}" if table.key["precision"] != "fp32" else ""
    what += f", {table.key['epochs']} epochs"
    what += f", {table.key['shots']} shots" if table.key["shots"] else ""
    what += f", recipe {table.key['recipe']}" if recipes else ""
    what += ", altered data" if table.key["altered"] else ""
    peek = table.key["protocol"] == "peek"
    accuracy = "Best test accuracy seen (%) †" if peek else "Test accuracy (%)"
    labels = ["adapter", *_shown(table)]
    names = [task.name.removeprefix(f"{table.key['suite']}_") for task in table.tasks]
    groups = list(dict.fromkeys(task.group for task in table.tasks))
    means = ["mean of groups", f"mean of {len(table.tasks)} tasks"]
    means += ["mean of groups, last epoch"] if table.key["protocol"] == "peek" else []
    means += ["tasks", "seeds"]
    sizes = [
        "adapter bytes",
        "adapter raw",
        "head bytes",
        "overhead bytes",
        "file bytes",
        "bits a weight",
        "tasks",
    ]
    by_task, averages, size = [], [], []
    for line in table.lines:
        label = _label(line, table)
        by_task.append([*label, *(_percent(line.tasks[task.name]) for task in table.tasks)])
        values = [*(line.groups[group] for group in groups), line.mean_of_groups, line.mean_of_tasks]
        last = [_percent(line.last_epoch)] if line.last_epoch else []
        averages.append([*label, *map(_percent, values), *last, line.complete, _seeds(line)])
        size.append([*label, *(f"{line.bytes[name]:,.0f}" for name in BYTES), _bits(line), line.complete])
    return [
        (f"{accuracy}, {what}", [*labels, *names], by_task),
        ("Averages (%) over groups and tasks" + (" †" if peek else ""), [*labels, *groups, *means], averages),
        ("Bytes of one task's adapter file, mean over the tasks run", [*labels, *sizes], size),
    ]


def _differ(tables: Sequence[Table]) -> bool:
    return len({table.key["recipe"] for table in tables}) > 1


def _shown(table: Table) -> list[str]:
    """Settings worth a column: bits and hidden always, the others where they differ."""
    names = [name for name in table.lines[0].key if name != "adapter"]
    varied = {name for name in names if len({_setting(line, name) for line in table.lines} - {HOLE}) > 1}
    varied |= {name for name in OFF_BY_DEFAULT if any(line.key[name] for line in table.lines)}
    return [name for name in names if name in varied | {"bits", "hidden"}]


def _label(line: Line, table: Table) -> list[str]:
    return [str(line.key["adapter"]), *(_setting(line, name) for name in _shown(table))]


def _setting(line: Line, name: str) -> str:
    """A setting as text; a hole where the method does not have it."""
    if line.key["hidden"] == 0 and name != "head":
        return HOLE
    if name == "quantizer" and line.key["quantizer"] == "none":
        return HOLE
    if name in OFF_BY_DEFAULT and not line.key[name]:
        return HOLE
    return str(line.key[name])


def _percent(value: Statistic) -> str:
    if value.mean is None:
        return HOLE
    spread = "" if value.std is None else f" ± {100 * value.std:.1f}"
    return f"{100 * value.mean:.1f}{spread}"


def _seeds(line: Line) -> str:
    counts = sorted({value.n for value in line.tasks.values() if value.n})
    return "-".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))


def _bits(line: Line) -> str:
    return HOLE if line.bits_per_weight is None else f"{line.bits_per_weight:.2f}"


def _cells(tables: Sequence[Table]) -> list[dict[str, Any]]:
    return [
        table.key
        | line.key
        | {"task": task.name, "group": task.group, **asdict(line.tasks[task.name])}
        | line.task_bytes.get(task.name, dict.fromkeys(BYTES))
        | {"bits_per_weight": line.bits_per_weight}
        for table in tables
        for line in table.lines
        for task in table.tasks
    ]


def _published_grids(rows: Sequence[PublishedRow]) -> list[Grid]:
    """Two tables, columns as in ours: accuracy by task (of rows that have it), and averages of all rows."""
    title = "Published (cited, not run here):"
    tasks = [name.removeprefix(f"{SUITE}_") for name in rows[0].accuracy]
    settings = ["hidden", "bits", "head"]
    means = ["mean of groups", f"mean of {len(tasks)} tasks", "KiB a task"]
    by_task, averages = [], []
    for row in rows:
        mark = _sources(rows)[_source(row)]
        if row.mean_of_tasks is not None:
            by_task.append([row.method, *map(_rounded, row.accuracy.values()), mark])
        stated = [HOLE if (value := getattr(row, name)) is None else str(value) for name in settings]
        values = [_rounded(value) for value in (*row.groups.values(), row.mean_of_groups, row.mean_of_tasks)]
        size = HOLE if row.kib is None else f"{row.kib:,g}"
        averages.append([row.method, *stated, *values, size, mark])
    return [
        (f"{title} test accuracy (%), suite {SUITE}", ["method", *tasks, "source"], by_task),
        (
            f"{title} averages (%) and size",
            ["method", *settings, *rows[0].groups, *means, "source"],
            averages,
        ),
    ]


def _footnotes(rows: Sequence[PublishedRow]) -> list[str]:
    """What the marks of the published tables stand for, and what their averages are."""
    if not rows:
        return []
    return [
        *(f"{mark}: {source}" for source, mark in _sources(rows).items()),
        "Means are computed from the cited values by task; without these, the mean of groups is cited too. "
        "KiB: 1024 bytes, head included, the mean of the three group means.",
    ]


def _sources(rows: Sequence[PublishedRow]) -> dict[str, str]:
    """Source -> its mark: a, b, ..."""
    return dict(zip(dict.fromkeys(map(_source, rows)), ascii_lowercase, strict=False))


def _source(row: PublishedRow) -> str:
    return (
        f"README of {row.source}; weights {row.backbone}; pixel normalization {row.normalization}; "
        f"selection {row.selection}"
    )


def _rounded(value: float | None) -> str:
    """Percent, half rounded up as papers do: the mean 84.55 of four tasks is 84.6 in theirs."""
    return HOLE if value is None else f"{100 * value + 1e-9:.1f}"
