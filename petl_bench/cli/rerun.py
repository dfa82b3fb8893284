"""`petl-bench rerun`: repetition of one run, and comparison with its row."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench.cli.common import DEFAULT_STORE, print_json, say
from petl_bench.cli.options import JsonOption, RunArgument, StoreOption, check_store
from petl_bench.cli.planning import Existing
from petl_bench.cli.show import misfits, provenance
from petl_bench.cli.sweep import sweep
from petl_bench.errors import UserError, counted
from petl_bench.store import ADAPTER, Store, find_run
from petl_bench.types import ResultRow

TIMES = ("started_at", "finished_at", "digest")
"""Columns that differ between any two runs: the times, and the digest over them."""


def rerun(
    run: RunArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of its execution, e.g. data.root=/data or launcher.device=cpu."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Store of the repetition; by default STORE-rerun, or STORE-rerun.2, ..."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Execute a run again and compare it with its row.

    The command is that which `petl-bench show` prints. The repetition of a finished run is kept in another
    store, so its row is never replaced. The exit code is 1 if accuracy or predictions differ from it. A run
    that failed is executed again in its own store.
    """
    from petl_bench.config.command import overrides_of

    check_store(store, run)
    shelf, run_id = find_run(run, Store(store), failed=True)
    state, spec = shelf.state(run_id), shelf.spec(run_id)
    row = shelf.row(run_id) if state == "done" else None
    own = overrides_of(spec)
    if wrong := misfits(own, spec, run_id, row):
        raise UserError(f"run {run_id} cannot be repeated: {wrong[0]}")
    given = {line.partition("=")[0] for line in overrides or []}
    lines = [line for line in own if line.partition("=")[0] not in given] + (overrides or [])
    _require_same(lines, run_id)
    target = shelf if row is None else _target(shelf, run_id, into)
    sweep(lines, store=target.root, existing=Existing.retry_failed)
    if row is None:
        return
    result = _comparison(shelf, row, target, spec)
    if json:
        print_json("rerun/1", result)
    else:
        say(_in_words(result))
    if not result["agrees"]:
        raise typer.Exit(1)


def _require_same(lines: list[str], run_id: str) -> None:
    """Refuse overrides that plan another run with the present data and weights.

    Raises:
        UserError: they do, or the data cannot be found.
    """
    from petl_bench.config import plan
    from petl_bench.run.identity import job_of, resolve_tasks

    planned = plan(lines)
    found = [job_of(spec).run_id for spec in resolve_tasks(planned.runs, planned.cache)]
    if found != [run_id]:
        raise UserError(
            f"these settings, with the data and weights found now, are not run {run_id} but "
            f"{', '.join(found)}: data or weights have changed, or a setting was given that decides numbers"
        )


def _target(store: Store, run_id: str, into: Path | None) -> Store:
    """Return the store of a repetition, which does not hold the run yet.

    Raises:
        UserError: the chosen one holds the run.
    """
    if into is not None:
        if Store(into).state(run_id) == "done":
            raise UserError(
                f"--into {into}: holds run {run_id}, which would be replaced; name another folder"
            )
        return Store(into)
    name = f"{store.root.resolve().name}-rerun"
    names = (name if number == 1 else f"{name}.{number}" for number in itertools.count(1))
    stores = (Store(store.root.resolve().with_name(name)) for name in names)
    return next(held for held in stores if held.state(run_id) != "done")


def _comparison(store: Store, row: ResultRow, target: Store, spec: Any) -> dict[str, Any]:
    """Return how the repetition of a run compares with it."""
    again = target.row(row.run_id)
    kept, new = store.predictions(row.run_id), target.predictions(row.run_id)
    files = [held.directory(row.run_id) / ADAPTER for held in (store, target)]
    made = [provenance(held, spec) for held in (row, again)]
    return {
        "run_id": row.run_id,
        "store": str(target.root),
        "acc": again.acc,
        "acc_row": row.acc,
        "n_test": again.n_test,
        "agrees": again.acc == row.acc and row.predictions in ("", again.predictions),
        "predictions_differ": kept.differing(new) if kept is not None and new is not None else None,
        "same_file": files[0].is_file() and files[0].read_bytes() == files[1].read_bytes(),
        "provenance": {
            name: [value, made[1][name]]
            for name, value in made[0].items()
            if name not in TIMES and value != made[1][name]
        },
    }


def _in_words(result: dict[str, Any]) -> str:
    text = f"{result['run_id']} again in {result['store']}: acc {result['acc']:.4f}"
    if result["agrees"]:
        text += " = row"
    else:
        text += f" DISAGREES with row {result['acc_row']:.4f}"
        if (differing := result["predictions_differ"]) is not None:
            text += f", {differing} of {counted(result['n_test'], 'prediction')} differ"
    text += f"; the adapter file is {'the same' if result['same_file'] else 'another one'} byte for byte"
    others = (f"{name} {old} -> {new}" for name, (old, new) in result["provenance"].items())
    listed = "; ".join(others)
    return f"{text}; made with other: {listed}" if listed else text
