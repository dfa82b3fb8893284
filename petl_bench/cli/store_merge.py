"""`petl-bench store merge` and `petl-bench store pack`: exchange of runs between stores."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from petl_bench.atomic import write_atomic
from petl_bench.cli.common import DEFAULT_STORE, Counter, note, print_json, say
from petl_bench.cli.options import FilterOption, JsonOption, OutOption, StoreOption
from petl_bench.cli.store_runs import entries
from petl_bench.errors import UserError, counted
from petl_bench.store import Store

SHOWN = 10
"""Refused runs that are printed."""


def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Other stores, or archives of `store pack`.")
    ],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Copy the runs of other stores or archives into a store.

    A run that the store has already must have the same results there, else nothing is copied. Damaged runs
    are refused too. A run that failed in one store and is finished in another is taken as finished.
    """
    from petl_bench.store.merging import merge as merged
    from petl_bench.store.merging import opened, plan_merge

    target = Store(store)
    for source in sources:
        if not source.exists():
            raise UserError(f"{source}: no such file or directory")
        if source.resolve() == store.resolve():
            raise UserError(f"{source}: is the store itself")
    target.create()
    with ExitStack() as stack:
        plan = plan_merge(target, [stack.enter_context(opened(source, target)) for source in sources])
        if plan.refused:
            for name, reason in list(plan.refused.items())[:SHOWN]:
                note(f"  {name}: {reason}")
            if len(plan.refused) > SHOWN:
                note(f"  and {len(plan.refused) - SHOWN} more")
            raise UserError(
                f"{counted(len(plan.refused), 'run')} cannot be merged; nothing was copied. Delete them from "
                "one of the stores (`petl-bench store rm`), or set damaged ones aside (`store check`)"
            )
        with Counter("runs", len(plan.copied)) as counter:
            for _ in merged(target, plan):
                counter(1)
    if json:
        held = {"copied": [*plan.copied], "kept": [*plan.kept], "unfinished": [*plan.unfinished]}
        print_json("store-merge/1", {"store": str(store), **held})
    else:
        say(f"{counted(len(plan.copied), 'run')} copied into {store}, {len(plan.kept)} were there already")
    if plan.unfinished:
        note(f"warning: {counted(len(plan.unfinished), 'unfinished run')} of the sources not copied")


def pack(
    store: StoreOption = DEFAULT_STORE,
    filters: FilterOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Pack the finished runs of a store into one .tar.gz archive, which `petl-bench store merge` reads.

    Logs and TensorBoard's files are included. Equal runs give an equal archive. By default it is runs.tar.gz.
    """
    from petl_bench.store.merging import pack as packed

    shelf, out = Store(store), out or Path("runs.tar.gz")
    done = [entry.run_id for entry in entries(shelf, filters or []) if entry.state == "done"]
    if not done:
        raise UserError(f"store {store}: holds no finished run to pack")
    try:
        write_atomic(out, packed(shelf, done))
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    size = out.stat().st_size
    if json:
        print_json("store-pack/1", {"store": str(store), "packed": done, "out": str(out), "bytes": size})
    else:
        say(f"{counted(len(done), 'run')} packed into {out} ({size:,} bytes)")
