"""Execution of one run in a worker: claim it, execute it, record its outcome."""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import torch

from petl_bench import plugins
from petl_bench.device import find_device
from petl_bench.errors import DivergedError, StoreError, UserError, out_of_memory
from petl_bench.launch.failures import keep_failure
from petl_bench.run.execute import execute
from petl_bench.store import ClaimedError, Store
from petl_bench.types import Job, Outcome, Runtime

LOST_DEVICE = (
    *("cuda error", "cuda driver error", "cuda unknown error", "hip error", "nccl error", "triton error ["),
    *("cublas_status", "cudnn_status", "no cuda gpus are available", "found no nvidia driver"),
    "device-side assert",
)
"""Phrases of torch's and Triton's RuntimeErrors about a GPU, in lower case."""
REFUSED = ("status_not_supported", "status_invalid_value", "status_bad_param", "status_arch_mismatch")
"""Phrases among them with which a library refuses what it was asked for, as it would again."""
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
    """Return the cause of an error, one of petl_bench.types.CAUSES.

    torch has a class for errors of a GPU, but reports some of them by RuntimeError alone.
    """
    text = str(error).lower()
    if isinstance(error, DivergedError):
        return "diverged"
    if out_of_memory(error):
        return "memory"
    if isinstance(error, torch.AcceleratorError):
        return "device"
    lost = any(said in text for said in LOST_DEVICE) and not any(said in text for said in REFUSED)
    if isinstance(error, RuntimeError) and lost:
        return "device"
    return "error"
