"""What the commands share: the store option and ways to print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petl_bench.errors import DamagedError, UserError, counted
from petl_bench.types import DataSettings, ResultRow

if TYPE_CHECKING:
    from petl_bench.store import Store

StoreOption = Annotated[Path, typer.Option("--store", help="Directory of runs.", show_default=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines on stdout and nothing else.")]
DEFAULT_STORE = Path("results")


def note(message: str) -> None:
    """Tell the user something that is not a result."""
    print(message, file=sys.stderr, flush=True)


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on a line of stdout."""
    print(json.dumps(values, allow_nan=False), flush=True)


def usable_rows(store: Store, needed: bool = False) -> list[ResultRow]:
    """All rows of a store that can be used; one warning says how many cannot.

    Args:
        needed: whether it is an error that there are damaged ones alone.

    Raises:
        UserError: there is no such store, or none of its rows can be used and one is needed.
    """
    damaged: list[DamagedError] = []
    rows = list(store.rows(damaged.append))
    if damaged:
        many = counted(len(damaged), "damaged run")
        way_out = f"petl-bench store check {'names it' if len(damaged) == 1 else 'names them'}"
        first = f"(first: {damaged[0].path}: {damaged[0].why}); {way_out}"
        if needed and not rows:
            raise UserError(f"store {store.root}: holds {many} and no other {first}")
        note(f"warning: {many} of store {store.root} {'is' if len(damaged) == 1 else 'are'} left out {first}")
    return rows


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the benchmark's files; else $PETL_BENCH_DATA, else ./data."),
]
OverrideOption = Annotated[
    Path | None, typer.Option("--override", help="YAML file of split sizes that differ from the manifests.")
]


def data_settings(root: Path | None, override: Path | None = None) -> DataSettings:
    """Return the `data` settings of a command that takes no overrides."""
    return DataSettings(root=str(root or ""), override=str(override or ""))


class Counter:
    """Progress of work on many files: a bar with an estimate on a terminal, silence elsewhere; on stderr."""

    def __init__(self, what: str, total: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (what, BarColumn(), MofNCompleteColumn(), "left", TimeRemainingColumn())
        console = Console(stderr=True)
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Counter:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def __call__(self, count: int) -> None:
        self.bar.advance(self.task, count)
