"""Ways to spread runs over processes and machines. One interface: iterate over outcomes as they finish."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from petl_bench.config import LauncherSpec
from petl_bench.errors import StoreError, counted
from petl_bench.launch import local, pool, ray, slurm
from petl_bench.launch.base import Round
from petl_bench.launch.failures import keep_failure
from petl_bench.store import ClaimedError, Claims, Store
from petl_bench.types import NO_FAULT, Cache, Job, Outcome, Runtime

LAUNCHERS = {"local": local.launch, "pool": pool.launch, "ray": ray.launch, "slurm": slurm.launch}
PAUSE = 0.5
"""Seconds between two looks at runs that others are at work on."""


def launch(
    jobs: Sequence[Job],
    spec: LauncherSpec,
    store: Path,
    cache: Cache,
    say: Callable[[str], None],
) -> Generator[Outcome, None, None]:
    """Run all jobs and yield what becomes of each; closing the generator ends what is running.

    A run that another process is at work on is waited for, and done here if that process dies. One whose
    process was killed, or whose device failed, is tried again `launcher.retries` times.

    Args:
        cache: where decoded images are kept.
        say: told what is waited for, what is tried again, and what an engine does.

    Raises:
        UserError: no such device, or a model of the plan cannot be built.
        StoreError: the store cannot be written any more.
    """
    shelf = Store(store.absolute())
    runtime = Runtime(
        store=str(shelf.root),
        threads=spec.threads,
        loaders=spec.loaders,
        compile=spec.compile,
        checkpoint=spec.checkpoint,
        heartbeat=spec.heartbeat,
        cache=replace(cache, directory=cache.directory and os.path.abspath(cache.directory)),
    )
    claims = shelf.claims
    claims.tidy()
    tries: Counter[str] = Counter()
    checked = False
    busy: dict[str, Job] = {}
    pending = {job.run_id: job for job in jobs}
    while pending or busy:
        if not pending:
            say(f"waiting for {counted(len(busy), 'run')} at which {_owners(claims, busy)} work")
            yield from _await(shelf, claims, busy, pending)
            continue
        jobs, pending = list(pending.values()), {}
        unchecked, checked = () if checked else [job.spec for job in jobs], True
        held = {job.run_id: job for job in jobs}
        work = Round(jobs, runtime, spec, unchecked, say)
        with closing(LAUNCHERS[spec.name](work)) as outcomes:
            for outcome in outcomes:
                job = held[outcome.run_id]
                if outcome.cause == "store":
                    raise StoreError(outcome.error)
                if outcome.cause == "busy":
                    busy[job.run_id] = job
                elif outcome.cause in NO_FAULT and tries[job.run_id] < spec.retries:
                    tries[job.run_id] += 1
                    if outcome.cause != "killed":  # it kept an error.json, which is no other process' result
                        job = replace(job, seen=shelf.stamp(job.run_id))
                    pending[job.run_id] = job
                    say(f"{job.run_id}: {outcome.error}; it will be tried again")
                elif outcome.cause != "killed":
                    yield outcome
                elif (kept := _keep(job, shelf, outcome, spec.heartbeat)) is not None:
                    yield kept
                else:
                    busy[job.run_id] = job


def _keep(job: Job, store: Store, outcome: Outcome, heartbeat: float) -> Outcome | None:
    """The failure of a run whose process could not say it; None where another process has taken it over."""
    try:
        with store.claims.take(job.run_id, heartbeat):
            return store.news(job) or keep_failure(job, store, outcome.cause, outcome.error or "")
    except ClaimedError:
        return None


def _await(
    store: Store, claims: Claims, busy: dict[str, Job], free: dict[str, Job]
) -> Generator[Outcome, None, None]:
    """Yield what others make of busy runs, until one is free because they died; those go to `free`."""
    while busy and not free:
        for run_id, job in list(busy.items()):
            if (news := store.news(job)) is not None:
                del busy[run_id]
                yield news
        free |= {run_id: busy.pop(run_id) for run_id in claims.clear(busy)}
        if busy and not free:
            time.sleep(PAUSE)


def _owners(claims: Claims, run_ids: Iterable[str]) -> str:
    names = sorted({str(owner) for owner in map(claims.owner, run_ids) if owner is not None})
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "") or "others"
