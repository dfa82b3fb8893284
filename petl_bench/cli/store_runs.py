"""`petl-bench store ls` and `petl-bench store rm`: list the runs of a store, and delete runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from petl_bench.cli import completion
from petl_bench.cli.common import DEFAULT_STORE, note, print_json, say
from petl_bench.cli.filters import selected
from petl_bench.cli.options import FilterOption, JsonOption, StoreOption
from petl_bench.errors import DamagedError, UserError, counted
from petl_bench.store import EVENTS, ClaimedError, Store
from petl_bench.types import ResultRow, RunSpec, names_in_sweep, readable_name, row_to_dict


@dataclass(frozen=True)
class Entry:
    """A run of a store in any state; the row is that of a finished one, and an unfinished one has no spec."""

    run_id: str
    state: str
    name: str
    row: ResultRow | None
    spec: RunSpec | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of the run for filters and --json; the settings of its spec are not among them."""
        values = row_to_dict(self.row) if self.row else {}
        return values | {"run_id": self.run_id, "state": self.state, "name": self.name}


def entries(store: Store, filters: list[str]) -> list[Entry]:
    """Return the runs of a store that all filters select, by name.

    Raises:
        UserError: the store cannot be read, or a filter selects nothing.
    """
    running = store.claims.running()
    found = [entry for name in store.names() if (entry := _entry(store, name, name in running))]
    for text in filters:
        kept = selected([entry.columns for entry in found], text, store)
        found = [found[number] for number in kept]
    return sorted(found, key=lambda entry: (entry.name, entry.run_id))


def ls(
    store: StoreOption = DEFAULT_STORE,
    filters: FilterOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs of a store by readable names, with their state, accuracy and bytes.

    Filters may name the state: done, failed, killed, unfinished, running or damaged.
    """
    found = entries(Store(store), filters or [])
    if json:
        for entry in found:
            print_json("store-ls/1", {key: entry.columns[key] for key in (*SHORT, *entry.columns)})
        return
    if not found:
        note(f"store {store}: holds no run")
        return
    names = _names(found)
    width = max(map(len, names.values()))
    for entry in found:
        row = entry.row
        facts = f"{100 * row.acc:5.1f} %  {row.bytes_file:>11,} bytes" if row else entry.state
        say(f"{entry.run_id}  {names[entry.run_id]:<{width}}  {facts}")


def _names(runs: list[Entry]) -> dict[str, str]:
    """Return the names of runs by run_id, with the settings that tell some of them apart."""
    distinct = names_in_sweep({entry.run_id: entry.spec for entry in runs if entry.spec is not None})
    return {entry.run_id: distinct.get(entry.run_id, entry.name) for entry in runs}


SHORT = ("run_id", "name", "state")


def rm(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Runs: a run_id or a unique beginning of it.",
            autocompletion=completion.runs,
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    filters: FilterOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Delete runs of a store, after asking; runs that are being executed are never deleted.

    The runs are given by run_id, or by filters that all of them fulfill, e.g. --filter state=failed.
    """
    shelf = Store(store)
    if bool(runs) == bool(filters):
        raise UserError("name the runs to delete, or select them by --filter: one of both is needed")
    every = entries(shelf, filters or [])
    chosen = every if filters else [_named(text, every, store) for text in dict.fromkeys(runs or [])]
    busy = [entry for entry in chosen if entry.state == "running"]
    chosen = [entry for entry in chosen if entry.state != "running"]
    for entry in busy:
        note(f"warning: {entry.run_id} {entry.name} is being executed, and is left in place")
    if not chosen:
        raise UserError(f"store {store}: nothing to delete")
    if not yes:
        _ask(chosen, store)
    removed, left = [], [entry.run_id for entry in busy]
    for entry in chosen:
        try:
            with shelf.claims.take(entry.run_id, heartbeat=10):
                shelf.remove(entry.run_id)
        except ClaimedError:
            note(f"warning: {entry.run_id} {entry.name} has begun to be executed, and is left in place")
            left.append(entry.run_id)
            continue
        removed.append(entry.run_id)
    if json:
        print_json("store-rm/1", {"store": str(store), "deleted": removed, "running": left})
    else:
        say(f"{counted(len(removed), 'run')} deleted from {store}")


def _entry(store: Store, name: str, running: bool) -> Entry | None:
    """Return the entry of a name in the store; None if it is no run."""
    if not store.holds_run(name):
        return None
    try:
        spec = store.spec(name)
        label = readable_name(spec)
    except DamagedError:
        spec, label = None, _started(store, name)
    state = store.state(name).replace("missing", "unfinished")
    row = store.row(name) if state == "done" else None
    return Entry(name, "running" if running else state, label, row, spec)


def _started(store: Store, run_id: str) -> str:
    """Return the readable name of a run that has no spec yet: that of the folder of its events."""
    directory = store.directory(run_id)
    return next((str(path.parent.relative_to(directory)) for path in directory.glob(f"*/*/{EVENTS}*")), "?")


def _named(text: str, every: list[Entry], store: object) -> Entry:
    found = [entry for entry in every if entry.run_id.startswith(text)]
    if len(found) != 1:
        what = f"is the beginning of {len(found)} runs" if found else "is no run"
        raise UserError(f"{text}: {what} of store {store}; `petl-bench store ls` lists them")
    return found[0]


def _ask(chosen: list[Entry], store: object) -> None:
    """Ask for confirmation on the terminal.

    Raises:
        UserError: there is no terminal, or the answer is not yes.
    """
    names = _names(chosen)
    for entry in chosen[:20]:
        note(f"  {entry.run_id} {names[entry.run_id]} ({entry.state})")
    if len(chosen) > 20:
        note(f"  and {len(chosen) - 20} more")
    question = f"Delete {counted(len(chosen), 'run')} of {store} for good?"
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody can answer here: add --yes")
    if not typer.confirm(question, err=True):
        raise UserError("nothing was deleted")
