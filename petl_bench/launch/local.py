"""A pool of processes on this machine: one a GPU, or several on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from petl_bench.errors import UserError
from petl_bench.identity import identify
from petl_bench.types import Outcome, RunSpec, Runtime


def launch(specs: Sequence[RunSpec], runtime: Runtime, workers: int) -> Generator[Outcome, None, None]:
    """Outcomes as they finish.

    Closing the iterator, or an interrupt, ends the workers at once: only the runs in progress are lost.

    Raises:
        UserError: a model of the plan cannot be built; nothing has run then.
    """
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker)
    try:
        # One check a worker, so that all of them start and import at once; no run before the check is passed.
        for check in [executor.submit(_preflight, specs) for _ in range(workers)]:
            _wait_for(check)
        futures = {executor.submit(_attempt, spec, runtime): spec for spec in specs}
        for future in as_completed(futures):
            yield _outcome(future, futures[future])
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _wait_for(check: Future[None]) -> None:
    try:
        check.result()
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed while it built the models (out of memory?)") from error


def _outcome(future: Future[Outcome], spec: RunSpec) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        message = "a worker process was killed (out of memory?); the run can be started again"
        return Outcome(identify(spec), spec, error=message)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _preflight(specs: Sequence[RunSpec]) -> None:
    from petl_bench.preflight import preflight

    preflight(specs)


def _attempt(spec: RunSpec, runtime: Runtime) -> Outcome:
    from petl_bench.run import attempt

    return attempt(spec, runtime)
