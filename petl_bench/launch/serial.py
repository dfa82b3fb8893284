"""One run after another, in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from petl_bench.types import Outcome, RunSpec, Runtime


def launch(specs: Sequence[RunSpec], runtime: Runtime, workers: int) -> Generator[Outcome, None, None]:
    """Outcomes in the order of the plan."""
    from petl_bench.preflight import preflight
    from petl_bench.run import attempt

    preflight(specs)
    for spec in specs:
        yield attempt(spec, runtime)
