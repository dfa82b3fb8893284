"""One run after another, in this process."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from petl_bench.device import find_device
from petl_bench.launch.base import Round
from petl_bench.types import LocalSettings, Outcome


def launch(work: Round[LocalSettings]) -> Generator[Outcome, None, None]:
    """Yield the outcomes in the order of the plan.

    Raises:
        UserError: there is no such device, or a model of the plan cannot be built; nothing has run then.
    """
    runtime = replace(work.runtime, device=find_device(work.settings.device))
    from petl_bench.launch.preload import attempt, preflight

    preflight(work.unchecked)
    for job in work.jobs:
        yield attempt(job, runtime)
