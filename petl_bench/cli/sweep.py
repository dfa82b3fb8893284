"""`petl-bench sweep`: plan runs, skip those that are done, and execute the others."""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from petl_bench.cli import completion
from petl_bench.cli.common import (
    DEFAULT_STORE,
    Counter,
    JsonOption,
    StoreOption,
    duration,
    note,
    print_json,
)
from petl_bench.cli.configuration import print_configuration
from petl_bench.cli.idle import idle, unused
from petl_bench.cli.progress import Progress, say_failures
from petl_bench.cli.unbuildable import unbuildable
from petl_bench.errors import StoreError, UserError, counted
from petl_bench.store import Store
from petl_bench.types import Job, Outcome, ResultRow, RunSpec, row_to_dict

if TYPE_CHECKING:
    from petl_bench.config import Plan


class Existing(StrEnum):
    """Treatment of runs that are in the store already."""

    skip = "skip"
    rerun = "rerun"
    retry_failed = "retry-failed"
    rerun_stale = "rerun-stale"


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
    prepared = prepare(overrides or [], store, existing, decode=not (dry_run or cfg))
    if cfg:
        print_configuration(prepared.runs, json)
    elif dry_run:
        from petl_bench.cli.dry_run import print_plan

        runs, todo = prepared.runs, {i: prepared.runs[i] for i in prepared.todo}
        print_plan(runs, todo, prepared.states, prepared.store, prepared.plan.launcher, json)
    elif not execute(prepared, fail_fast, json):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Prepared:
    """A sweep that can be executed.

    Attributes:
        plan: its plan.
        store: its store, which need not exist yet.
        jobs: planned runs by run_id.
        states: state of each run in the store.
        done: rows of the runs that are done.
        todo: run_ids of the runs to be executed.
        lost: number of runs that cannot be built and are left out.
    """

    plan: Plan
    store: Store
    jobs: Mapping[str, Job]
    states: Mapping[str, str]
    done: Mapping[str, ResultRow]
    todo: Collection[str]
    lost: int

    @property
    def runs(self) -> dict[str, RunSpec]:
        """The planned runs by run_id."""
        return {i: job.spec for i, job in self.jobs.items()}


def prepare(overrides: Sequence[str], store: Path, existing: Existing, decode: bool = True) -> Prepared:
    """Plan a sweep, read its data, and look up its runs in the store.

    Args:
        overrides: settings.
        store: path of the store, which need not exist.
        existing: treatment of runs that are in the store already.
        decode: whether all images are decoded, so that damaged ones are found before any training.

    Raises:
        UserError: see `petl_bench.config.plan`; or data cannot be used, or no run can be built.
    """
    from petl_bench.cli.stale import stale_runs
    from petl_bench.config import plan
    from petl_bench.device import find_precision
    from petl_bench.run.identity import (
        build_changed,
        current_backbones,
        files_of,
        job_of,
        resolve_tasks,
        weights_remarks,
    )

    planned, shelf = plan(overrides), Store(store)
    shelf.check_place()
    warnings: list[str] = []
    specs = [replace(s, precision=find_precision(s.precision, planned.launcher.device)) for s in planned.runs]
    remarks: list[str] = []
    specs = current_backbones(specs, remarks.append)
    with Counter("reading data", files_of(specs)) as counter:
        said = warnings.append, remarks.append
        resolved = resolve_tasks(specs, planned.cache, counter, *said, decode=decode)
        found = zip(resolved, planned.alone, planned.origins, strict=True)
        held = (job_of(spec, _command(alone, store), origin) for spec, alone, origin in found)
        jobs = {job.run_id: job for job in held}
    runs = {i: job.spec for i, job in jobs.items()}
    for warning in [*_warnings([*runs.values()]), *unused(overrides, runs.values()), *warnings]:
        note(f"warning: {warning}")
    remarks += build_changed(runs.values())
    for remark in dict.fromkeys([*remarks, *weights_remarks(runs.values())]):
        note(remark)
    states = {i: shelf.state(i) for i in runs}
    done = {i: shelf.row(i) for i in runs if states[i] == "done"}
    again = existing is Existing.rerun_stale
    stale = set() if existing is Existing.rerun else stale_runs(runs, done.values(), again)
    todo = {i: spec for i, spec in runs.items() if _wanted(states[i], existing) or (again and i in stale)}
    lost = unbuildable(todo)
    built = {i: job for i, job in jobs.items() if i not in lost}
    return Prepared(planned, shelf, built, states, done, [i for i in todo if i not in lost], len(lost))


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
    rows = [prepared.done[i] for i in kept if i in prepared.done]
    if json:
        for row in rows:
            print_json(row_to_dict(row))
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


def _command(overrides: Sequence[str], store: Path) -> str:
    """Return the command that repeats one run alone."""
    options = ["--store", str(store.absolute()), "--existing", "retry-failed"]
    return shlex.join(["petl-bench", "sweep", *overrides, *options])


def _left_alone(store: Store, damaged: Sequence[str]) -> str:
    """Return a message about damaged runs: their number, the first reason, and advice."""
    return (
        f"{counted(len(damaged), 'damaged run')} of the store skipped (first: {store.fault(damaged[0])}); "
        f"`petl-bench store check --repair --store {store.root}` sets damaged runs aside, then the same "
        "command runs them again"
    )


PUBLISHED_SUITES = ("vtab", "fgvc")
"""Suites with published results."""


def _warnings(specs: Collection[RunSpec]) -> list[str]:
    """Return warnings: pixels not normalized, results that are not comparable, settings without effect."""
    benchmark = [spec for spec in specs if spec.task.suite in PUBLISHED_SUITES]
    others = sorted({spec.backbone.display_name for spec in benchmark if not spec.backbone.published})
    changed = sorted({f"{spec.task.name} ({spec.task.override})" for spec in benchmark if spec.task.override})
    found = []
    raw = sorted({spec.backbone.display_name for spec in specs if _unnormalized(spec)})
    if raw:
        found.append(
            f"pixels are not normalized, {', '.join(raw)} was pretrained with normalized ones; "
            "train.normalization=backbone normalizes them alike"
        )
    if others:
        found.append(
            f"published results are of other backbone weights than {', '.join(others)} and not comparable "
            "(backbone=vit_b16_in21k has the published ones)"
        )
    if changed:
        found.append(f"split sizes differ from the benchmark: {', '.join(changed)}; rows state this")
    return found + idle(specs)


def _unnormalized(spec: RunSpec) -> bool:
    """Return whether a pretrained backbone lacks its normalization of pixels, and no paper asks for it."""
    trained = spec.backbone.weights != "random" and not spec.backbone.weights.startswith("bundled:")
    if spec.train.normalization != "none" or spec.task.suite in PUBLISHED_SUITES or not trained:
        return False
    if spec.backbone.normalization != "none":
        return True
    from petl_bench.backbones.creation import normalization  # a plan resolves it only where it is needed

    try:
        return normalization(spec.backbone.name) != "none"
    except UserError:  # timm states one that has no name here
        return True


def _wanted(state: str, existing: Existing) -> bool:
    """Return whether a run in some state of the store is to be executed."""
    if existing is Existing.rerun or state in ("missing", "killed"):
        return True
    return existing is Existing.retry_failed and state == "failed"


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
                    print_json(row_to_dict(outcome.row))
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
        note("interrupted: finished runs are kept; the same command continues from there")
        raise
    finally:
        outcomes.close()
    return failed
