"""Reports for programs: runs as CSV and Parquet, everything computed from them as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from petl_bench.report.cited import differences
from petl_bench.report.content import Report
from petl_bench.report.pareto import front
from petl_bench.report.power import CHANCE
from petl_bench.report.sentences import sentences
from petl_bench.report.statistics import Comparison
from petl_bench.report.tables import BYTES, Table
from petl_bench.types import COLUMNS

VARIANTS = "variants"
"""Column of the number of variants of a run's cell in the whole store; see petl_bench.report.variants."""


def to_csv(report: Report) -> str:
    """Return the runs as CSV: one run per row, None as an empty field; the last column is VARIANTS."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*COLUMNS, VARIANTS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(row) | {VARIANTS: report.variants[row.run_id]} for row in report.results)
    return buffer.getvalue()


def to_parquet(report: Report) -> bytes:
    """Return the runs as a Parquet file with the columns and types of ResultRow, and VARIANTS."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = {
        name: pa.array([getattr(row, name) for row in report.results], types[kinds[0]])
        for name, kinds in COLUMNS.items()
    }
    columns[VARIANTS] = pa.array([report.variants[row.run_id] for row in report.results], pa.int64())
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def to_json(report: Report) -> str:
    """Return everything computed from the runs as one line of JSON. Accuracies are fractions of 1.

    `rows` has an object for each cell, `averages` one for each configuration; `comparisons`, `rankings` and
    `warnings` follow. `power` is present only where it was asked for; `published` and `differences` only
    where published results were.
    """
    content: dict[str, Any] = {
        "schema": "petl-bench/report/1",
        "rows": _cells(report.tables),
        "averages": [
            table.key
            | row.key
            | {
                "tasks": row.complete,
                "groups": {group: asdict(value) for group, value in row.groups.items()},
                "mean_of_groups": asdict(row.mean_of_groups),
                "mean_of_tasks": asdict(row.mean_of_tasks),
                "pareto": row in front(table.rows),
                "last_epoch": asdict(row.last_epoch) if row.last_epoch else None,
                **row.bytes,
                "bits_per_weight": row.bits_per_weight,
                "params_trainable": row.params_trainable,
                "seconds": row.seconds,
            }
            for table in report.tables
            for row in table.rows
        ],
        "comparisons": [
            table.key | _numbers(comparison) | {"sentence": sentence}
            for table, found in zip(report.tables, report.comparisons, strict=True)
            for comparison, sentence in zip(found, sentences(found, table), strict=True)
        ],
        "rankings": [
            report.tables[number].key
            | {
                "lines": [row.key for row in ranked.rows],
                "mean_ranks": ranked.mean_ranks,
                "friedman_p": ranked.friedman_p,
                "p_holm": ranked.p_holm.to_numpy().tolist(),
            }
            for number, ranked in report.rankings.items()
        ],
        "warnings": report.all_warnings,
    }
    if report.with_power:
        content["power"] = [
            table.key | {"comparisons": len(found), "chance": CHANCE} | asdict(reach)
            for table, found, reach in zip(report.tables, report.comparisons, report.powers, strict=True)
            if reach
        ]
    if report.published:
        content["published"] = [asdict(row) for row in report.published]
        content["differences"] = differences(report.tables, report.published)
    return json.dumps(content, allow_nan=False) + "\n"


def _numbers(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as an object, with the settings of its two rows in place of the rows."""
    held = {name: value for name, value in vars(comparison).items() if name not in ("row", "against")}
    models = {"repeated": comparison.repeated, "mixed": comparison.mixed}
    nested = {name: asdict(found) if found is not None else None for name, found in models.items()}
    return (
        comparison.row.key
        | {"against": comparison.against.key}
        | held
        | {"paired_seeds": comparison.paired}
        | nested
    )


def _cells(tables: Sequence[Table]) -> list[dict[str, Any]]:
    return [
        table.key
        | row.key
        | {"task": task.name, "group": task.group, **asdict(row.tasks[task.name])}
        | row.task_bytes.get(task.name, dict.fromkeys(BYTES))
        | {"bits_per_weight": row.bits_per_weight}
        for table in tables
        for row in table.rows
        for task in table.tasks
    ]
