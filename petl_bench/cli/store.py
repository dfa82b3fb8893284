"""`petl-bench store`: what is wrong with the runs of a store, and setting it aside."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petl_bench.cli.common import DEFAULT_STORE, Counter, JsonOption, StoreOption, note, print_json
from petl_bench.errors import counted
from petl_bench.store import Store

if TYPE_CHECKING:
    from petl_bench.store.check import CheckResult

app = typer.Typer(no_args_is_help=True, help="Check the runs of a store, and set damaged ones aside.")


@app.callback()
def _group() -> None:
    """With one command alone, Typer would make it the group itself."""


@app.command("check")
def check(
    store: StoreOption = DEFAULT_STORE,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move damaged runs and left temporary files to STORE/.damaged; nothing is deleted.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check every run's row, spec and adapter file against each other; exit 1 on any damage."""
    from petl_bench.store.check import check as check_store
    from petl_bench.store.check import repair as set_aside

    shelf = Store(store)
    busy = shelf.claims.busy
    with Counter("runs", len(shelf.names())) as counter:
        report = check_store(shelf, counter, busy)
    for problem in report.problems:
        if json:
            print_json(asdict(problem))
        else:
            print(_shown(f"{problem.run_id}: {problem.kind}: {problem.path}: {problem.message}"))
    moved = set_aside(shelf, report, busy) if repair else {}
    left = {problem.run_id for problem in report.damage} - set(moved)
    if json:
        print_json(_summary(store, report, moved, left))
    else:
        for name, where in moved.items():
            print(_shown(f"{name}: set aside: {where}"))
        print(_said(report))
    if left:
        way_out = f"`petl-bench store check --repair --store {store}` sets aside what is wrong"
        kept = "not ours to read, or someone is at work on them: left where they are"
        note(f"damage in {len(left)} of {counted(report.runs, 'run')}; {kept if repair else way_out}")
        raise typer.Exit(1)


def _summary(store: Path, report: CheckResult, moved: Mapping[str, str], left: set[str]) -> dict[str, Any]:
    return {
        "summary": True,
        "store": str(store),
        "ok": not left,
        "runs": report.runs,
        "problems": len(report.damage),
        "kinds": dict(Tally(problem.kind for problem in report.problems)),
        "set_aside": dict(moved),
    }


def _said(report: CheckResult) -> str:
    """`12 runs: 1 damaged (adapter 1); notes: foreign 2`, or that all is well."""
    damaged = {problem.run_id for problem in report.damage}
    kinds = Tally(problem.kind for problem in report.damage)
    notes = Tally(problem.kind for problem in report.problems if problem not in report.damage)
    text = f"{counted(report.runs, 'run')}: " + (f"{len(damaged)} with damage" if damaged else "no damage")
    text += f" ({_listed(kinds)})" if kinds else ""
    return text + (f"; notes: {_listed(notes)}" if notes else "")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))


def _shown(text: str) -> str:
    """One line, whatever names the files have."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
