"""Ways to spread runs over processes. One interface: iterate over outcomes as they finish."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence

from petl_bench.config import LauncherSpec
from petl_bench.device import find_device
from petl_bench.launch import local, serial
from petl_bench.types import Cache, Outcome, RunSpec, Runtime

LAUNCHERS = {"local": local.launch, "serial": serial.launch}


def launch(
    specs: Sequence[RunSpec], spec: LauncherSpec, store: str, cache: Cache
) -> Generator[Outcome, None, None]:
    """Run all specs and yield what becomes of each; closing the generator ends what is running.

    Args:
        specs: with their tasks settled.
        cache: where decoded images are kept.

    Raises:
        UserError: no such device, or a model of the plan cannot be built.
    """
    device = find_device(spec.device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    automatic = 1 if device.startswith("cuda") else max(1, cores // spec.threads)
    workers = min(spec.workers or automatic, len(specs))
    runtime = Runtime(store, device, spec.threads, spec.loaders, spec.compile, spec.checkpoint, cache=cache)
    return LAUNCHERS[spec.name](specs, runtime, workers)
