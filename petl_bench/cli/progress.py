"""Progress of a sweep: runs done, failed and running, bytes, and time left; the same for all launchers."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from petl_bench.cli.common import command, duration, note
from petl_bench.cli.estimate import Costs, Kind, kind_of, remaining
from petl_bench.errors import counted, presentable
from petl_bench.store import Store
from petl_bench.types import Outcome, ResultRow, RunSpec, names_in_sweep, readable_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

EVERY = 60
"""Seconds between two lines with the state of the sweep, if there is no bar."""


class Progress:
    """Progress on stderr: a bar on a terminal, otherwise one line per run.

    Runs in progress are found by their claims in the store, wherever their processes are.

    Args:
        todo: runs to be executed.
        kept: rows of finished runs, for estimates.
    """

    def __init__(self, todo: Mapping[str, RunSpec], kept: Iterable[ResultRow], store: Store) -> None:
        self.kinds = {run_id: kind_of(spec) for run_id, spec in todo.items()}
        self.left, self.done = Counter(self.kinds.values()), Counter[Kind]()
        self.names = names_in_sweep(todo)
        self.claims = store.claims
        self.costs = Costs()
        for row in kept:
            self.costs.add(row)
        self.total, self.count, self.failed, self.bytes = len(todo), 0, 0, 0
        self.begin = self.said = time.monotonic()
        self.bar: Bar | None = None
        self.console: Console | None = None
        if sys.stderr.isatty():
            self.bar, self.console = bar(self)

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, outcome: Outcome) -> None:
        """Count the outcome of a run and print it."""
        kind = self.kinds.pop(outcome.run_id)
        self.count += 1
        self.done[kind] += 1
        self.left[kind] -= 1
        if outcome.row is not None:
            self.costs.add(outcome.row)
            self.bytes += outcome.row.bytes_file
        self.failed += outcome.row is None
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.count)
        self.say(f"[{self.count}/{self.total}] {_line(outcome, self.names[outcome.run_id])}")
        if self.bar is None and self.kinds and time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            self.say(f"{self.count} of {self.total} done, {self.state()}")

    def say(self, message: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.console is None:
            note(message)
        else:
            self.console.print(presentable(message), markup=False, highlight=False)

    def state(self) -> str:
        """Return the state in words, for example `1 failed, 2 running, 140,032 bytes, 3 min left`."""
        seconds = remaining(self.costs, self.done, self.left, time.monotonic() - self.begin)
        running = len(self.claims.running() & self.kinds.keys())
        parts = [f"{self.failed} failed"] if self.failed else []
        parts += [f"{running} running", f"{self.bytes:,} bytes"]
        return ", ".join([*parts, *([f"{duration(seconds)} left"] if seconds is not None else [])])


def bar(progress: Progress) -> tuple[Bar, Console]:
    """Return the bar of a sweep, one line wide, and the console on which it is shown."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column
    from rich.text import Text

    class State(ProgressColumn):
        max_refresh = 1.0  # seconds, because it reads the store

        def render(self, task: Task) -> Text:
            return Text(progress.state())

    console = Console(stderr=True)
    width = Column(max_width=40)
    shown = Bar(
        *("runs", BarColumn(None, table_column=width), MofNCompleteColumn(), TimeElapsedColumn()),
        State(table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
    )
    shown.add_task("", total=progress.total)
    return shown, console


def say_failures(failed: Iterable[Outcome], store: Store) -> None:
    """Print at the end of a sweep which runs failed, why, and the commands that repeat them."""
    outcomes = list(failed)
    if not outcomes:
        return
    causes = [outcome.cause or "error" for outcome in outcomes]
    each = ", ".join(f"{causes.count(cause)} {cause}" for cause in dict.fromkeys(causes))
    note(f"{counted(len(outcomes), 'run')} failed ({each}); details are in {store.root}/RUN_ID/error.json:")
    for outcome in outcomes[:SHOWN]:
        note(f"  {label(outcome)}: {' '.join((outcome.error or '').split())}")
        if repeat := store.failure(outcome.run_id).get("command"):
            command(repeat)
    if len(outcomes) > SHOWN:
        note(f"  and {len(outcomes) - SHOWN} more")


SHOWN = 10
"""Failures that are printed at the end of a sweep."""


def label(outcome: Outcome) -> str:
    """Return the run_id and the readable name of a run."""
    return f"{outcome.run_id} {readable_name(outcome.spec)}"


def _line(outcome: Outcome, name: str) -> str:
    elsewhere = " (by another sweep)" if outcome.elsewhere else ""
    if outcome.row is None:
        return f"{outcome.run_id} {name}: FAILED: {outcome.error}{elsewhere}"
    row = outcome.row
    seconds = duration(row.seconds_search + row.seconds_train + row.seconds_eval)
    return f"{outcome.run_id} {name}: acc {row.acc:.4f}, {row.bytes_file} bytes, {seconds}{elsewhere}"
