"""The interface of launchers: a function of a round of runs that yields their outcomes as they finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from petl_bench.types import Job, LauncherSettings, RunSpec, Runtime

Settings = TypeVar("Settings", bound=LauncherSettings)


@dataclass(frozen=True)
class Round(Generic[Settings]):
    """Runs to execute once each: a launcher yields one outcome for each of them and repeats none.

    Attributes:
        jobs: the runs.
        runtime: place and manner of their execution; the launcher sets the device.
        settings: settings of the launcher.
        unchecked: runs whose models are to be built once before any run starts.
        say: function that is told what the launcher does.
    """

    jobs: Sequence[Job]
    runtime: Runtime
    settings: Settings
    unchecked: Sequence[RunSpec]
    say: Callable[[str], None]
