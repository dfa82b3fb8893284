"""`petl-bench sweep`: plan, skip what is done, run the rest."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from petl_bench.cli.common import (
    DEFAULT_STORE,
    Counter,
    JsonOption,
    StoreOption,
    counted,
    duration,
    note,
    print_json,
)
from petl_bench.store import Store
from petl_bench.types import Outcome, RunSpec

if TYPE_CHECKING:
    from petl_bench.config import Plan


class Existing(StrEnum):
    """What to do with runs that are in the store."""

    skip = "skip"
    rerun = "rerun"
    retry_failed = "retry-failed"


def sweep(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Hydra overrides, for example: task=digits bits=1,4 seed=0,1,2 sweep=pocket"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and run nothing.")] = False,
    existing: Annotated[
        Existing, typer.Option(help="Runs in the store: leave them, repeat all, or repeat failed ones.")
    ] = Existing.skip,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed run.")] = False,
    json: JsonOption = False,
) -> None:
    """Train and evaluate every run that the overrides span, and keep rows and adapter files."""
    from petl_bench.config import plan
    from petl_bench.device import find_precision
    from petl_bench.identity import files_of, identify, settle

    planned = plan(overrides or [])
    warnings: list[str] = []
    specs = [replace(s, precision=find_precision(s.precision, planned.launcher.device)) for s in planned.runs]
    with Counter("reading data", files_of(specs)) as counter:
        settled = settle(specs, planned.cache, counter, warnings.append)
        runs = {identify(spec): spec for spec in settled}
    for warning in [*_cautions(runs.values()), *warnings]:
        note(f"warning: {warning}")
    shelf = Store(store)
    states = {i: shelf.state(i) for i in runs}
    todo = {i: spec for i, spec in runs.items() if _wanted(states[i], existing)}
    if dry_run:
        from petl_bench.cli.plan import print_plan

        print_plan(runs, todo, shelf, json)
        return
    if todo:
        shelf.create()
    kept = [i for i in runs if i not in todo]
    note(f"{counted(len(runs), 'run')}: {len(kept)} in store {store}, {len(todo)} to do")
    if json:
        for i in kept:
            if states[i] == "done":
                print_json(asdict(shelf.row(i)))
    failed = [i for i in kept if states[i] == "failed"]
    if failed:
        note(f"{len(failed)} failed earlier and are left so; --existing retry-failed runs them again")
    if damaged := [i for i in kept if states[i] == "damaged"]:
        note(_left_alone(shelf, damaged))
    begin = time.monotonic()
    failed += _run(list(todo.values()), planned, store, fail_fast, json) if todo else []
    if todo:
        note(f"done in {duration(time.monotonic() - begin)}; table: petl-bench report --store {store}")
    if failed or damaged:
        raise typer.Exit(1)


def _left_alone(store: Store, damaged: Sequence[str]) -> str:
    """What is wrong with the first of some damaged runs, and the way out."""
    return (
        f"{counted(len(damaged), 'run')} damaged in the store and left so (first: "
        f"{store.fault(damaged[0])}); `petl-bench store check --repair --store {store.root}` sets damaged "
        "runs aside, then the same command makes them anew"
    )


PUBLISHED_SUITES = ("vtab", "fgvc")


def _cautions(specs: Iterable[RunSpec]) -> list[str]:
    """What keeps rows of these runs from being compared with the field's published ones."""
    benchmark = [spec for spec in specs if spec.task.suite in PUBLISHED_SUITES]
    others = sorted({spec.backbone.display_name for spec in benchmark if not spec.backbone.published})
    changed = sorted({f"{spec.task.name} ({spec.task.override})" for spec in benchmark if spec.task.override})
    cautions = []
    if others:
        cautions.append(
            f"published rows were made with other weights than {', '.join(others)} "
            "(backbone=vit_b16_in21k has theirs): do not compare them"
        )
    if changed:
        cautions.append(f"sizes of these differ from the benchmark: {', '.join(changed)}; rows say so")
    return cautions


def _wanted(state: str, existing: Existing) -> bool:
    if existing is Existing.rerun or state == "missing":
        return True
    return existing is Existing.retry_failed and state == "failed"


def _run(specs: Sequence[RunSpec], planned: Plan, store: Path, fail_fast: bool, json: bool) -> list[str]:
    """Launch, report each outcome, and return the failed run_ids."""
    from petl_bench.launch import launch

    failed = []
    outcomes = launch(specs, planned.launcher, str(store), planned.cache)
    progress = _Progress(len(specs))
    try:
        with progress:
            for outcome in outcomes:
                progress.advance(outcome)
                if outcome.row is not None and json:
                    print_json(asdict(outcome.row))
                if outcome.error is not None:
                    failed.append(outcome.run_id)
                    if fail_fast:
                        note("stopped at the first failure (--fail-fast)")
                        break
    except (KeyboardInterrupt, SystemExit):
        note("interrupted: finished runs are kept; the same command goes on from there")
        raise
    finally:
        outcomes.close()
    return failed


class _Progress:
    """A bar with an estimate on a terminal, one line a run elsewhere; both on stderr."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.total, self.count = total, 0
        self.bar = None
        if sys.stderr.isatty():
            columns = (
                "runs",
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                "left",
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), speed_estimate_period=600)
            self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> None:
        if self.bar is not None:
            self.bar.start()

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, outcome: Outcome) -> None:
        self.count += 1
        line = f"[{self.count}/{self.total}] {_line(outcome)}"
        if self.bar is None:
            note(line)
            return
        self.bar.advance(self.task)
        self.bar.console.print(line, markup=False, highlight=False)


def _line(outcome: Outcome) -> str:
    from petl_bench.config import changed_text

    spec = outcome.spec
    label = f"{outcome.run_id} {spec.task.name} {spec.adapter.name}"
    if spec.hidden:
        label += f" h={spec.hidden} {spec.bits} bit"
    if spec.task.shots:
        label += f" {spec.task.shots} shots split {spec.task.split_seed}"
    if spec.precision != "fp32":
        label += f" {spec.precision}"
    if spec.rate_weight:
        label += f" rate weight {spec.rate_weight}"
    if settings := changed_text(spec.adapter):
        label += f" {settings}"
    label += f" seed {spec.seed}"
    if outcome.row is None:
        return f"{label}: FAILED: {outcome.error}"
    row = outcome.row
    seconds = duration(row.seconds_train + row.seconds_eval)
    return f"{label}: acc {row.acc:.4f}, {row.bytes_file} bytes, {seconds}"
