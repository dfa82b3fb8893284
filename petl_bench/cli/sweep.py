"""`petl-bench sweep`: plan runs, skip those that are done, and execute the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from petl_bench.cli import completion
from petl_bench.cli.common import DEFAULT_STORE, duration, note, print_json, tell_interruption
from petl_bench.cli.configuration import print_configuration
from petl_bench.cli.devices import device_line
from petl_bench.cli.options import JsonOption, StoreOption
from petl_bench.cli.planning import Existing, Prepared, prepare
from petl_bench.cli.progress import Progress, say_failures
from petl_bench.errors import StoreError, UserError, counted
from petl_bench.store import Store
from petl_bench.types import Job, Outcome, row_to_dict

if TYPE_CHECKING:
    from petl_bench.config import Plan


def sweep(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings, e.g. task=digits bits=1,4 seed=0,1,2 or sweep=pocket.",
            autocompletion=completion.overrides,
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan without executing it.")] = False,
    cfg: Annotated[
        bool, typer.Option("--cfg", help="Print all settings of the first run without executing anything.")
    ] = False,
    existing: Annotated[
        Existing,
        typer.Option(
            help="Runs already in the store: skip them, repeat all, the failed ones, or those whose adapter, "
            "quantizer or head has other source code now."
        ),
    ] = Existing.skip,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed run.")] = False,
    json: JsonOption = False,
) -> None:
    """Train and evaluate adapters for all combinations of settings.

    A setting with several values, such as bits=1,4, multiplies the runs; without settings, a suite of bundled
    tasks is run. The grammar is that of Hydra's overrides, and `petl-bench ls keys` lists all settings. The
    store keeps the row and the adapter file of each run, and runs that are done are skipped.
    """
    if dry_run and cfg:
        raise UserError("--dry-run and --cfg: give one of them")
    prepared = prepare(overrides or [], store, existing, plan_only=dry_run or cfg)
    if cfg:
        print_configuration(prepared, json)
    elif dry_run:
        from petl_bench.cli.dry_run import print_plan

        print_plan(prepared, json)
    elif not execute(prepared, fail_fast, json):
        raise typer.Exit(1)


def execute(prepared: Prepared, fail_fast: bool = False, json: bool = False) -> bool:
    """Execute the runs of a sweep that are to be executed, and tell what happens to them.

    Args:
        prepared: the sweep.
        fail_fast: whether to stop at the first failed run.
        json: whether to print the rows, as JSON lines.

    Returns:
        Whether all runs of the sweep are done.
    """
    runs, shelf, todo, states = prepared.runs, prepared.store, prepared.todo, prepared.states
    if todo:
        shelf.create()
    kept = [i for i in runs if i not in set(todo)]
    note(f"{counted(len(runs), 'run')}: {len(kept)} in store {shelf.root}, {len(todo)} to do")
    if todo:
        note(device_line(prepared.plan.launcher, [runs[i] for i in todo]))
    rows = [prepared.done[i] for i in kept if i in prepared.done]
    if json:
        for row in rows:
            print_json("row/1", row_to_dict(row))
    left = [i for i in kept if states[i] == "failed"]
    if left:
        note(f"{len(left)} failed earlier and are skipped; --existing retry-failed runs them again")
    if damaged := [i for i in kept if states[i] == "damaged"]:
        note(_left_alone(shelf, damaged))
    failed = []
    if todo:
        begin = time.monotonic()
        waiting = [replace(prepared.jobs[i], seen=shelf.stamp(i)) for i in todo]
        progress = Progress({i: runs[i] for i in todo}, rows, shelf)
        failed = _run(waiting, prepared.plan, shelf, progress, fail_fast, json)
        note(f"done in {duration(time.monotonic() - begin)}; table: petl-bench report --store {shelf.root}")
        say_failures(failed, shelf)
    return not (left or damaged or failed or prepared.lost)


def _left_alone(store: Store, damaged: Sequence[str]) -> str:
    """Return a message about damaged runs: their number, the first reason, and advice."""
    return (
        f"{counted(len(damaged), 'damaged run')} of the store skipped (first: {store.fault(damaged[0])}); "
        f"`petl-bench store check --repair --store {store.root}` sets damaged runs aside, then the same "
        "command runs them again"
    )


def _run(
    jobs: Sequence[Job], planned: Plan, store: Store, progress: Progress, fail_fast: bool, json: bool
) -> list[Outcome]:
    """Execute jobs, report each outcome, and return the failed ones."""
    from petl_bench.launch import launch

    failed = []
    outcomes = launch(jobs, planned.launcher, store.root, planned.cache, progress.say)
    try:
        with progress:
            for outcome in outcomes:
                progress.advance(outcome)
                if outcome.row is not None and json:
                    print_json("row/1", row_to_dict(outcome.row))
                if outcome.error is not None:
                    failed.append(outcome)
                    if fail_fast:
                        note("stopped at the first failure (--fail-fast)")
                        break
    except StoreError as error:
        if not store.claims.root.is_dir():  # it has vanished, and what was done with it
            raise
        done = f"{progress.count - progress.failed} of {progress.total} runs are done and kept"
        raise StoreError(f"{error}; {done}; the same command continues from there") from error
    except (KeyboardInterrupt, SystemExit):
        tell_interruption("interrupted: finished runs are kept; the same command continues from there")
        raise
    finally:
        outcomes.close()
    return failed
