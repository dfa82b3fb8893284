"""Record of a failed run in the store."""

from __future__ import annotations

import platform
from datetime import UTC, datetime

from petl_bench.store import Store
from petl_bench.types import Job, Outcome


def keep_failure(job: Job, store: Store, cause: str, message: str, **details: str) -> Outcome:
    """Write error.json and return the outcome of the failed run.

    Args:
        job: the run.
        store: store of the results.
        cause: one of petl_bench.types.CAUSES.
        message: text of the error.
        details: further entries of error.json.

    Raises:
        StoreError: the store cannot be written.
    """
    known = {"message": message, "cause": cause, "command": job.command, "host": platform.node()}
    known |= {"failed_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    store.fail(job.run_id, job.spec, known | details)
    return Outcome(job.run_id, job.spec, error=message, cause=cause)
