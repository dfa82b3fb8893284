"""The interface of launchers: a function of a round of runs that yields their outcomes as they finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

    def loaders(self, device: str, cores: int = 4) -> int:
        """Return the number of processes that augment the images of each run.

        Args:
            device: device of the runs.
            cores: cores that each run may use besides those of its threads.
        """
        if self.settings.loaders >= 0:
            return self.settings.loaders
        augmented = any(job.spec.train.augment.crop for job in self.jobs)
        return max(0, cores) if augmented and device != "cpu" else 0

    def on(self, device: str, cores: int) -> Runtime:
        """Return the runtime of runs on a device of this machine.

        Args:
            device: the device.
            cores: cores that each run may use.
        """
        return replace(
            self.runtime, device=device, loaders=self.loaders(device, cores - self.settings.threads)
        )
