"""One run after another, in this process."""

from __future__ import annotations

from collections.abc import Generator

from petl_bench.device import cores_here, find_device, open_device
from petl_bench.errors import UserError, gpu_failed
from petl_bench.launch.base import Round
from petl_bench.types import LocalSettings, Outcome


def launch(work: Round[LocalSettings]) -> Generator[Outcome, None, None]:
    """Yield the outcomes in the order of the plan.

    Raises:
        UserError: there is no such device, or a model of the plan cannot be built; nothing has run then. Or a
            GPU failed, which this process can no longer use.
    """
    runtime = work.on(find_device(work.settings.device), cores_here())
    from petl_bench.launch.preload import attempt, memory, preflight

    open_device(runtime.device)

    preflight(work.unchecked)
    memory.warn(work.unchecked, runtime.device, 1, lambda fault: work.say(f"warning: {fault}"))
    for job in work.jobs:
        yield (outcome := attempt(job, runtime))
        if outcome.cause == "device" and runtime.device != "cpu":  # such errors stay with the process
            then = "the same command continues from there, and launcher=pool replaces such a process"
            raise UserError(gpu_failed(f"launcher.device={runtime.device}", outcome.error, then))
