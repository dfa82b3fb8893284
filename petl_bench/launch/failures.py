"""What is kept of a run that failed."""

from __future__ import annotations

import platform
from datetime import UTC, datetime

from petl_bench.store import Store
from petl_bench.types import Job, Outcome


def keep_failure(job: Job, store: Store, cause: str, message: str, **details: str) -> Outcome:
    """Write error.json; the outcome that says the same.

    Args:
        cause: one of petl_bench.types.CAUSES.

    Raises:
        StoreError: the store cannot be written.
    """
    known = {"message": message, "cause": cause, "command": job.command, "host": platform.node()}
    known |= {"failed_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    store.fail(job.run_id, job.spec, known | details)
    return Outcome(job.run_id, job.spec, error=message, cause=cause)
