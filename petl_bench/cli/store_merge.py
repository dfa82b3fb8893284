"""`petl-bench store merge` and `petl-bench store pack`: exchange of runs between stores."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from petl_bench.atomic import write_atomic
from petl_bench.cli.common import DEFAULT_STORE, Counter, StoreOption, note, say
from petl_bench.cli.store_runs import FilterOption, entries
from petl_bench.errors import UserError, counted
from petl_bench.store import Store

SHOWN = 10
"""Refused runs that are printed."""


def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Other stores, or archives of `store pack`.")
    ],
    store: StoreOption = DEFAULT_STORE,
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
    say(f"{counted(len(plan.copied), 'run')} copied into {store}, {len(plan.kept)} were there already")
    if plan.unfinished:
        note(f"warning: {counted(len(plan.unfinished), 'unfinished run')} of the sources not copied")


def pack(
    out: Annotated[Path, typer.Option("--out", help="The archive, for example runs.tar.gz.")],
    store: StoreOption = DEFAULT_STORE,
    filters: FilterOption = None,
) -> None:
    """Pack the finished runs of a store into one .tar.gz archive, which `petl-bench store merge` reads.

    Logs and TensorBoard's files are included. Equal runs give an equal archive.
    """
    from petl_bench.store.merging import pack as packed

    shelf = Store(store)
    done = [entry.run_id for entry in entries(shelf, filters or []) if entry.state == "done"]
    if not done:
        raise UserError(f"store {store}: holds no finished run to pack")
    try:
        write_atomic(out, packed(shelf, done))
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    say(f"{counted(len(done), 'run')} packed into {out} ({out.stat().st_size:,} bytes)")
