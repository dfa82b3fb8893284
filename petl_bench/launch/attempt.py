"""Execution of one run in a worker: claim it, execute it, record its outcome."""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

from petl_bench import plugins
from petl_bench.device import check_int8, find_device
from petl_bench.errors import DivergedError, StoreError, UserError, lost_device, out_of_memory
from petl_bench.launch.failures import keep_failure
from petl_bench.run.execute import execute
from petl_bench.store import ClaimedError, Store
from petl_bench.types import Job, Outcome, Runtime

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
FORBIDDEN = (errno.EACCES, errno.EPERM)
"""Errors of writing that every other run would meet, if they concern the store."""


def attempt(job: Job, runtime: Runtime) -> Outcome:
    """Execute a run unless another process is executing it, or has finished it since it was planned.

    Errors are recorded in the store, with their cause and the command that repeats the run, and not raised.
    """
    store = Store(Path(runtime.store))
    try:
        with store.claims.take(job.run_id, runtime.heartbeat) as claim:
            if (news := store.outcome_elsewhere(job)) is not None:
                return news
            try:
                plugins.keep_to(runtime.config_dirs)
                here = replace(runtime, device=find_device(runtime.device))
                check_int8(job.spec.precision, here.device, here.compile)
                with redirect_stdout(sys.stderr):  # stdout is for the results of commands
                    row = execute(job, here, claim)
                return Outcome(job.run_id, job.spec, row=row)
            except (StoreError, ClaimedError):
                raise
            except Exception as error:
                if _spoils(error, store):
                    raise StoreError(f"store {store.root}: cannot write there: {error.strerror}") from error
                return _failed(job, store, error)
    except ClaimedError as error:
        return Outcome(job.run_id, job.spec, error=str(error), cause="busy")
    except UserError as error:  # or what another process left cannot be read
        cause = "store" if isinstance(error, StoreError) else "error"
        return Outcome(job.run_id, job.spec, error=str(error), cause=cause)


def _spoils(error: Exception, store: Store) -> TypeGuard[OSError]:
    """Return whether every other run would fail likewise, because the store is full or cannot be written."""
    if not isinstance(error, OSError):
        return False
    if error.filename is None:
        return error.errno in FULL
    return error.errno in (*FULL, *FORBIDDEN) and Path(error.filename).is_relative_to(store.root)


def _failed(job: Job, store: Store, error: Exception) -> Outcome:
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if place := plugins.origin(error):
        message = f"{place}: {message}"
    details = {"type": type(error).__name__, "traceback": traceback.format_exc()}
    return keep_failure(job, store, cause_of(error), message, **details)


def cause_of(error: BaseException) -> str:
    """Return the cause of an error, one of petl_bench.types.CAUSES."""
    if isinstance(error, DivergedError):
        return "diverged"
    if out_of_memory(error):
        return "memory"
    return "device" if lost_device(error) else "error"
