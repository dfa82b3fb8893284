"""Finished runs whose numbers were made by other source code than today's (petl_bench.run.source)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from petl_bench.cli.common import note
from petl_bench.errors import counted
from petl_bench.run.source import changed_parts
from petl_bench.types import ResultRow, RunSpec

SHARED = "training"
"""The part that all methods share. Its source changes with most releases, and its numbers with the protocol
version, which is part of a run's identity."""


def stale_runs(specs: Mapping[str, RunSpec], rows: Iterable[ResultRow], repeated: bool) -> set[str]:
    """Return the run_ids of stale runs, and tell of them.

    A run is stale if the source of its adapter, quantizer or head has changed since it was made.

    Args:
        specs: planned runs by run_id.
        rows: those that are finished.
        repeated: whether stale runs are going to be repeated.
    """
    found = {row.run_id: changed_parts(specs[row.run_id], row) for row in rows}
    stale = {run_id for run_id, parts in found.items() if {*parts} - {SHARED}}
    if stale:
        changed = Counter(
            f"{part} {getattr(specs[run_id], part) if part != 'adapter' else specs[run_id].adapter.name}"
            for run_id in stale
            for part in found[run_id]
            if part != SHARED
        )
        parts = ", ".join(f"{name}: {counted(count, 'run')}" for name, count in sorted(changed.items()))
        end = "repeated" if repeated else "kept; --existing rerun-stale repeats them"
        note(f"warning: the source code has changed since runs were made ({parts}): they are {end}")
    if other := [run_id for run_id, parts in found.items() if parts == [SHARED]]:
        note(
            "the training code that all methods share has changed since runs were made, within one protocol "
            f"version ({counted(len(other), 'run')}): they are kept; --existing rerun repeats all runs"
        )
    return stale
