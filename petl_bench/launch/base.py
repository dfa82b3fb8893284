"""What every launcher is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from petl_bench.config import LauncherSpec
from petl_bench.types import Job, RunSpec, Runtime


@dataclass(frozen=True)
class Round:
    """Runs to do once each: a launcher yields one outcome for each of them, and tries none again.

    Attributes:
        runtime: its device is still to be found.
        unchecked: whose models are to be built once before any run.
        say: told what an engine does.
    """

    jobs: Sequence[Job]
    runtime: Runtime
    spec: LauncherSpec
    unchecked: Sequence[RunSpec]
    say: Callable[[str], None]
