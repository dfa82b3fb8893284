"""The plan that `petl-bench sweep --dry-run` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from statistics import median

from rich.console import Console
from rich.table import Table

from petl_bench.cli.common import counted, duration, print_json, usable_rows
from petl_bench.store import Store
from petl_bench.types import ResultRow, RunSpec

_SHOWN_WHERE_VARIED = ("precision", "settings", "rungs", "rate_weight", "packing", "statistics")
_KIND = ("backbone", "adapter", "hidden", "bits", "head", "protocol", *_SHOWN_WHERE_VARIED)
"""Columns of rows whose runs take much the same time and bytes."""


def print_plan(runs: Mapping[str, RunSpec], todo: Mapping[str, RunSpec], store: Store, json: bool) -> None:
    """Runs by cell with their state, and an estimate of what is to do from finished runs."""
    rows = usable_rows(store) if store.root.is_dir() else []
    states = {i: store.state(i) for i in runs}
    if json:
        for i, spec in runs.items():
            held = {"run_id": i, **_cell(spec), "seed": spec.seed, "state": states[i], "to_do": i in todo}
            print_json(held)
        return
    cells = {i: _cell(spec) for i, spec in runs.items()}
    same = {key for key in _SHOWN_WHERE_VARIED if len({cell[key] for cell in cells.values()}) == 1}
    shown = [key for key in next(iter(cells.values())) if key not in same]
    numbers = ["runs", "done", "failed", *({"damaged"} & set(states.values())), "to do"]
    table = Table(*shown, *numbers)
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for i, cell in cells.items():
        counter = counts.setdefault(tuple(str(cell[key]) for key in shown), Counter())
        counter.update(["runs", states[i], *(["to do"] if i in todo else [])])
    for values, counter in counts.items():
        table.add_row(*values, *(str(counter[k]) for k in numbers))
    Console(width=160, highlight=False).print(table)
    print(f"{counted(len(runs), 'run')}, {len(todo)} to do")
    seconds, size, unknown = _estimate(todo, rows)
    if todo and unknown == len(todo):
        print("time and bytes: no finished run of this kind in the store to estimate from")
    elif todo:
        print(f"estimate from finished runs: {duration(seconds)} of one process, {size:,} bytes of files")
        if unknown:
            print(f"({unknown} runs are of a kind that has no finished run yet, and are not counted)")


def _cell(spec: RunSpec) -> dict[str, str | int | float]:
    from petl_bench.config import changed_text

    return {
        "task": spec.task.name,
        "adapter": spec.adapter.name,
        "hidden": spec.hidden,
        "bits": spec.bits,
        "head": spec.head,
        "protocol": spec.protocol.name,
        "shots": spec.task.shots,
        "precision": spec.precision,
        "settings": changed_text(spec.adapter),
        "rungs": spec.protocol.rungs_text,
        "rate_weight": spec.rate_weight,
        "packing": spec.packing,
        "statistics": spec.statistics,
    }


def _estimate(todo: Mapping[str, RunSpec], rows: list[ResultRow]) -> tuple[float, int, int]:
    """Seconds and bytes of the runs to do, and how many nothing is known of.

    Runs of one kind take the same bytes, and seconds in proportion to their epochs.
    """
    seconds: dict[tuple[object, ...], list[float]] = {}
    sizes: dict[tuple[object, ...], list[int]] = {}
    for row in rows:
        kind = tuple(getattr(row, name) for name in _KIND)
        seconds.setdefault(kind, []).append((row.seconds_search + row.seconds_train) / row.epochs)
        sizes.setdefault(kind, []).append(row.bytes_file)
    total, size, unknown = 0.0, 0, 0
    for spec in todo.values():
        known = {"backbone": spec.backbone.display_name, **_cell(spec)}
        kind = tuple(known[name] for name in _KIND)
        if kind not in seconds:
            unknown += 1
            continue
        total += median(seconds[kind]) * spec.train.epochs
        size += int(median(sizes[kind]))
    return total, size, unknown
