"""One run after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from petl_bench.config import LauncherSpec
from petl_bench.device import find_device
from petl_bench.types import Job, Outcome, RunSpec, Runtime


def launch(
    jobs: Sequence[Job],
    runtime: Runtime,
    spec: LauncherSpec,
    unchecked: Sequence[RunSpec],
    say: Callable[[str], None],
) -> Generator[Outcome, None, None]:
    """Outcomes in the order of the plan.

    Args:
        unchecked: whose models are to be built once before any run.

    Raises:
        UserError: no such device, or a model of the plan cannot be built; nothing has run then.
    """
    runtime = replace(runtime, device=find_device(spec.device))
    from petl_bench.launch.attempt import attempt
    from petl_bench.preflight import preflight

    preflight(unchecked)
    for job in jobs:
        yield attempt(job, runtime)
