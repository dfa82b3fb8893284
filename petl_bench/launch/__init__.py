"""Launchers, which spread runs over processes and machines and yield the outcomes as they finish."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from petl_bench import plugins
from petl_bench.errors import StoreError, counted
from petl_bench.launch import local, pool, ray, slurm
from petl_bench.launch.base import Round
from petl_bench.launch.failures import keep_failure
from petl_bench.registry import Registry
from petl_bench.store import ClaimedError, Claims, Store
from petl_bench.types import (
    NO_FAULT,
    Cache,
    Job,
    LauncherSettings,
    Outcome,
    ProcessSettings,
    RunSpec,
    Runtime,
)

LAUNCH: Registry[Callable[[Round[Any]], Generator[Outcome, None, None]]] = Registry("launcher", "LAUNCH")
"""Functions of the launchers by their names."""
LAUNCH.register("local")(local.launch)
LAUNCH.register("pool")(pool.launch)
LAUNCH.register("ray")(ray.launch)
LAUNCH.register("slurm")(slurm.launch)
PAUSE = 0.5
"""Seconds between two checks of runs that are in progress elsewhere."""


def launch(
    jobs: Sequence[Job],
    settings: LauncherSettings,
    store: Path,
    cache: Cache,
    say: Callable[[str], None],
) -> Generator[Outcome, None, None]:
    """Execute all jobs and yield their outcomes; closing the generator ends all runs in progress.

    A run in progress in another process is awaited, and executed here if that process dies. A run whose
    process was killed, or whose device failed, is repeated up to `launcher.retries` times.

    Args:
        jobs: the runs.
        settings: the launcher and its settings.
        store: folder of the results.
        cache: folder of decoded images and its bound.
        say: function that is told which runs are awaited or repeated, and what the launcher does.

    Raises:
        UserError: there is no such device, or a model of the plan cannot be built.
        StoreError: the store can no longer be written.
    """
    shelf = Store(store.absolute())
    runtime = Runtime(
        store=str(shelf.root),
        config_dirs=plugins.folders(),
        cache=replace(cache, directory=cache.directory and os.path.abspath(cache.directory)),
        **{field.name: getattr(settings, field.name) for field in fields(ProcessSettings)},
    )
    shelf.claims.tidy()
    trained = [job for job in jobs if not job.spec.compressed]
    compressed = [job for job in jobs if job.spec.compressed]  # of runs that may be among the others
    unchecked = [job.spec for job in jobs]
    try:
        for held in filter(None, (trained, compressed)):
            yield from _rounds(held, settings, shelf, runtime, say, unchecked)
            unchecked = []
    finally:
        shelf.claims.tidy()


def _rounds(
    jobs: Sequence[Job],
    settings: LauncherSettings,
    shelf: Store,
    runtime: Runtime,
    say: Callable[[str], None],
    unchecked: Sequence[RunSpec],
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of all jobs, those repeated and those awaited at their end.

    Args:
        unchecked: runs whose models have not been built yet, of later jobs as well.
    """
    claims = shelf.claims
    tries: Counter[str] = Counter()
    busy: dict[str, Job] = {}
    pending = {job.run_id: job for job in jobs}
    while pending or busy:
        if not pending:
            say(f"waiting for {counted(len(busy), 'run')} at which {_owners(claims, busy)} work")
            yield from _await(shelf, claims, busy, pending)
            continue
        jobs, pending = list(pending.values()), {}
        held = {job.run_id: job for job in jobs}
        work = Round(jobs, runtime, settings, unchecked, say)
        unchecked = ()
        with closing(LAUNCH.get(settings.name)(work)) as outcomes:
            for outcome in outcomes:
                job = held[outcome.run_id]
                if outcome.cause == "store":
                    raise StoreError(outcome.error)
                if outcome.cause == "busy":
                    busy[job.run_id] = job
                elif outcome.cause in NO_FAULT and tries[job.run_id] < settings.retries:
                    tries[job.run_id] += 1
                    if outcome.cause != "killed":  # it kept an error.json, which is no other process' result
                        job = replace(job, seen=shelf.stamp(job.run_id))
                    pending[job.run_id] = job
                    say(f"{job.run_id}: {outcome.error}; it will be tried again")
                elif outcome.cause != "killed":
                    yield outcome
                elif (kept := _keep(job, shelf, outcome, settings.heartbeat)) is not None:
                    yield kept
                else:
                    busy[job.run_id] = job


def _keep(job: Job, store: Store, outcome: Outcome, heartbeat: float) -> Outcome | None:
    """Record the failure of a run whose process was killed; None if another process has taken it over."""
    try:
        with store.claims.take(job.run_id, heartbeat):
            return store.outcome_elsewhere(job) or keep_failure(
                job, store, outcome.cause, outcome.error or ""
            )
    except ClaimedError:
        return None


def _await(
    store: Store, claims: Claims, busy: dict[str, Job], free: dict[str, Job]
) -> Generator[Outcome, None, None]:
    """Yield outcomes of runs in progress elsewhere until the process of one dies; such runs go to `free`."""
    while busy and not free:
        for run_id, job in list(busy.items()):
            if (news := store.outcome_elsewhere(job)) is not None:
                del busy[run_id]
                yield news
        free |= {run_id: busy.pop(run_id) for run_id in claims.clear(busy)}
        if busy and not free:
            time.sleep(PAUSE)


def _owners(claims: Claims, run_ids: Iterable[str]) -> str:
    names = sorted({str(owner) for owner in map(claims.owner, run_ids) if owner is not None})
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "") or "others"
