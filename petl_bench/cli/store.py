"""`petl-bench store`: check of the runs of a store, and repair; the other commands on stores."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petl_bench.cli import store_merge, store_runs
from petl_bench.cli.common import DEFAULT_STORE, Counter, note, print_json, say
from petl_bench.cli.options import JsonOption, StoreOption
from petl_bench.errors import counted
from petl_bench.store import Store

if TYPE_CHECKING:
    from petl_bench.store.check import CheckResult

app = typer.Typer(no_args_is_help=True, help="List, check, delete, merge and pack the runs of stores.")
app.command("ls")(store_runs.ls)
app.command("rm")(store_runs.rm)
app.command("merge")(store_merge.merge)
app.command("pack")(store_merge.pack)


@app.command("check")
def check(
    store: StoreOption = DEFAULT_STORE,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move damaged runs and leftover temporary files to STORE/.damaged; nothing is deleted.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check the files of all runs and print what is damaged.

    The row, spec and adapter file of each run are compared with each other. The exit code is 1 if any run is
    damaged.
    """
    from petl_bench.run.source import other_makers
    from petl_bench.store.check import check as check_store
    from petl_bench.store.check import repair as set_aside

    shelf = Store(store)
    busy = shelf.claims.busy
    with Counter("runs", len(shelf.names())) as counter:
        result = check_store(shelf, counter, busy, other_makers)
    for problem in result.problems:
        if json:
            print_json("store-problem/1", asdict(problem))
        else:
            say(f"{problem.run_id}: {problem.kind}: {problem.path}: {problem.message}")
    moved = set_aside(shelf, result, busy) if repair else {}
    left = {problem.run_id for problem in result.damage} - set(moved)
    if json:
        print_json("store-check/1", _summary(store, result, moved, left))
    else:
        for name, where in moved.items():
            say(f"{name}: set aside: {where}")
        say(_in_words(result))
    if left:
        way_out = f"`petl-bench store check --repair --store {store}` moves the damaged files away"
        kept = "they cannot be read by this user or are being executed, and were left in place"
        note(f"damage in {len(left)} of {counted(result.runs, 'run')}; {kept if repair else way_out}")
        raise typer.Exit(1)


def _summary(store: Path, result: CheckResult, moved: Mapping[str, str], left: set[str]) -> dict[str, Any]:
    return {
        "summary": True,
        "store": str(store),
        "ok": not left,
        "runs": result.runs,
        "problems": len(result.damage),
        "kinds": dict(Tally(problem.kind for problem in result.problems)),
        "set_aside": dict(moved),
    }


def _in_words(result: CheckResult) -> str:
    """Return a summary, for example `12 runs: 1 with damage (adapter 1); notes: foreign 2`."""
    damaged = {problem.run_id for problem in result.damage}
    kinds = Tally(problem.kind for problem in result.damage)
    notes = Tally(problem.kind for problem in result.problems if problem not in result.damage)
    text = f"{counted(result.runs, 'run')}: " + (f"{len(damaged)} with damage" if damaged else "no damage")
    text += f" ({_listed(kinds)})" if kinds else ""
    return text + (f"; notes: {_listed(notes)}" if notes else "")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
