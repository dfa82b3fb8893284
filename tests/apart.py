"""Runs in a process of their own, in which an audit hook sees every rename: `python -m tests.apart FILE`.

They are not forked from the tests' process. Once torch.export or torch.compile was used there, and then a
backward pass, forked processes cannot train: FakeTensorMode registers devices, each with threads of autograd.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import sys
from pathlib import Path

from petl_bench.run.execute import execute
from petl_bench.train import checkpoint
from petl_bench.types import Job, Runtime
from tests import processes

RENAMED = "renamed"
"""File of the store with the names of what a run that ended has put into place."""


def run_apart(job: Job, runtime: Runtime, counted: str = "", killed_at: int = 0) -> int:
    """Execute a run, with versions as this process has them, and return the exit code of its process.

    Args:
        counted: what the new path of a rename contains that counts.
        killed_at: number of the rename that counts at which the process kills itself, before it; 0: none.
    """
    folder = Path(runtime.store)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(f"{folder.name}.job")
    file.write_bytes(pickle.dumps((job, runtime, counted, killed_at, {**checkpoint.VERSIONS})))
    return processes.run([sys.executable, "-m", "tests.apart", file]).returncode


def main(file: str) -> None:
    job, runtime, counted, killed_at, versions = pickle.loads(Path(file).read_bytes())
    checkpoint.VERSIONS.update(versions)
    count, names = itertools.count(1), []

    def watch(event: str, given: tuple[object, ...]) -> None:
        if event == "os.rename":
            names.append(os.fsdecode(given[1]))
            if counted in names[-1] and next(count) == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    execute(job, runtime)
    Path(runtime.store, RENAMED).write_text("\n".join(names))


if __name__ == "__main__":
    main(sys.argv[1])
