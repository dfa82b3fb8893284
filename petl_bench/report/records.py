"""Reports for programs: the runs as CSV and Parquet, everything that is computed from them as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from petl_bench.report.cited import differences
from petl_bench.report.content import Report
from petl_bench.report.statistics import Comparison
from petl_bench.report.tables import BYTES, Table
from petl_bench.types import COLUMNS


def to_csv(report: Report) -> str:
    """A line a run; columns are those of ResultRow, None an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(vars, report.rows))
    return buffer.getvalue()


def to_parquet(report: Report) -> bytes:
    """The same as a Parquet file, with the types of ResultRow."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = {
        name: pa.array([getattr(row, name) for row in report.rows], types[kinds[0]])
        for name, kinds in COLUMNS.items()
    }
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def to_json(report: Report) -> str:
    """`rows`: a cell each; `averages`: a configuration each; `comparisons`; `rankings`; `warnings`.

    Accuracies and differences are fractions of 1. `published` and `differences` are there where asked for.
    """
    content: dict[str, Any] = {
        "rows": _cells(report.tables),
        "averages": [
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
                "params_trainable": line.params_trainable,
                "seconds": line.seconds,
            }
            for table in report.tables
            for line in table.lines
        ],
        "comparisons": [
            table.key | _numbers(comparison)
            for table, found in zip(report.tables, report.comparisons, strict=True)
            for comparison in found
        ],
        "rankings": [
            report.tables[number].key
            | {
                "lines": [line.key for line in ranked.lines],
                "mean_ranks": ranked.mean_ranks,
                "friedman_p": ranked.friedman_p,
                "p_holm": ranked.p_holm.to_numpy().tolist(),
            }
            for number, ranked in report.rankings.items()
        ],
        "warnings": report.all_warnings,
    }
    if report.published:
        content["published"] = [asdict(row) for row in report.published]
        content["differences"] = differences(report.tables, report.published)
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _numbers(comparison: Comparison) -> dict[str, Any]:
    """Everything but the two lines, of which the settings are there."""
    held = {name: value for name, value in vars(comparison).items() if name not in ("line", "against")}
    own = asdict(comparison.repeated) if comparison.repeated is not None else None
    return comparison.line.key | {"against": comparison.against.key} | held | {"repeated": own}


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
