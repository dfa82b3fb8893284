"""Settings of the launchers, which spread runs over processes and machines; `launcher=NAME` chooses one."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import ClassVar

from petl_bench.registry import Registry
from petl_bench.types.settings import check_ranges, require, setting

COMPILERS = ("none", "default", "reduce-overhead")
"""Modes of torch.compile for the training step; the last one replays CUDA graphs on a GPU."""

CLUSTERS = ("slurm", "local")
"""Executors of submitit."""

CORES = 1024
GPUS = 64
MANY = 100_000
LEAST_MEMORY = 0.01  # GB
"""Bounds of values: no machine has more cores or GPUs, and Slurm takes 0 MB for all the memory there is."""


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """Settings of the process in which a run executes."""

    threads: int = setting(
        "CPU threads of each run; another number may change the last bits of results.",
        1,
        least=1,
        most=CORES,
    )
    loaders: int = setting(
        "Processes of each run that augment images (train=fgvc); 0: none besides the run's own; -1: on a GPU "
        "its share of the cores (with Ray and Slurm 4), on a CPU none.",
        -1,
        least=-1,
        most=CORES,
    )
    compile: str = setting(
        "torch.compile of the training step: none, default, or reduce-overhead (CUDA graphs, untested).",
        "none",
        choices=COMPILERS,
    )
    checkpoint: int = setting(
        "Epochs between two checkpoints, from which an interrupted run resumes; 0: none.",
        0,
        least=0,
        most=MANY,
    )
    predictions: bool = setting(
        "Whether each run keeps the classes that it predicts for the test images, about a kilobyte.", True
    )
    heartbeat: float = setting(
        "Seconds between two signs of life of a run; after eight without one another sweep may take it over.",
        10.0,
        least=0.1,
        most=3600,
    )


@dataclass(frozen=True, kw_only=True)
class LauncherSettings(ProcessSettings):
    """Settings that all launchers share; the first line of a subclass's docstring describes the launcher."""

    name: ClassVar[str]

    device: str = setting("Device of the runs; auto: a GPU (cuda) if there is one, else the CPU.", "auto")
    retries: int = setting(
        "Times that a run is repeated after its process was killed or its device failed.",
        1,
        least=0,
        most=MANY,
    )

    def __post_init__(self) -> None:
        check_ranges(self, "launcher.")
        fine = re.fullmatch(r"auto|cpu|(cuda|xpu|mps|hpu)(:\d{1,3})?", self.device, re.ASCII) is not None
        require(fine, "launcher.device", self.device, "auto, cpu, cuda, cuda:N or another device of torch")

    @property
    def elsewhere(self) -> bool:
        """Return whether runs go to machines whose hardware this one does not know."""
        return False


@dataclass(frozen=True, kw_only=True)
class LocalSettings(LauncherSettings):
    """One run after another, in this process."""

    name = "local"


@dataclass(frozen=True, kw_only=True)
class PoolSettings(LauncherSettings):
    """Processes of this machine: one per GPU, or one for every `threads` cores."""

    name = "pool"

    device: str = setting("Devices of the runs; auto: every GPU, else the CPU; cuda:1: this one.", "auto")
    workers: int = setting(
        "Number of processes, spread over the devices; 0: one per GPU or per `threads` cores.",
        0,
        least=0,
        most=CORES,
    )


@dataclass(frozen=True, kw_only=True)
class RaySettings(LauncherSettings):
    """A Ray cluster, started on this machine or running already."""

    name = "ray"

    address: str = setting(
        "Empty: a cluster of its own; auto: the one that runs on this machine; or HOST:PORT.", ""
    )
    workers: int = setting("Runs at a time; 0: as many as the cluster has room for.", 0, least=0, most=MANY)
    gpus: float = setting(
        "GPUs of each run, unless it runs on the CPU; 0.5: two runs share one.", 1.0, least=0, most=GPUS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = self.gpus < 1 or self.gpus % 1 == 0
        require(whole, "launcher.gpus", self.gpus, "a whole number, or a fraction below 1")
        known = self.address in ("", "auto") or _is_host_and_port(self.address)
        require(known, "launcher.address", self.address, "empty, auto, or HOST:PORT")

    @property
    def elsewhere(self) -> bool:
        """Return whether runs go to machines whose hardware this one does not know."""
        return bool(self.address)


@dataclass(frozen=True, kw_only=True)
class SlurmSettings(LauncherSettings):
    """Jobs of a Slurm cluster, submitted through submitit."""

    name = "slurm"

    cluster: str = setting(
        "slurm, or local: processes of this machine, for trying it out.", "slurm", choices=CLUSTERS
    )
    runs_per_job: int = setting("Runs of each job, one after another.", 8, least=1, most=MANY)
    jobs: int = setting("Maximum number of jobs at a time.", 64, least=1, most=MANY)
    minutes: int = setting(
        "Time limit of each job; one that needs more is queued again, `retries` times.",
        240,
        least=1,
        most=MANY,
    )
    partition: str = setting("Partition of the cluster; empty: its default.", "")
    gpus: int = setting("GPUs of each job; none with device=cpu.", 1, least=0, most=GPUS)
    memory_gb: float = setting("Memory of each job in GB; 0: the cluster's default.", 0.0, least=0, most=MANY)
    options: str = setting("Further options of sbatch, for example '--account=lab --qos=low'.", "")

    def __post_init__(self) -> None:
        super().__post_init__()
        enough = self.memory_gb == 0 or self.memory_gb >= LEAST_MEMORY
        require(enough, "launcher.memory_gb", self.memory_gb, f"0, or {LEAST_MEMORY} or more")
        fine = re.fullmatch(r"[!-~]*", self.partition) is not None
        require(fine, "launcher.partition", self.partition, "the name of a partition, without spaces")
        right = "options of the form --NAME or --NAME=VALUE, with quotes around spaces"
        require(self._options() is not None, "launcher.options", self.options, right)

    @property
    def sbatch(self) -> dict[str, str | bool]:
        """Further options of sbatch by name, without the leading dashes; True for those without a value."""
        return self._options() or {}

    def _options(self) -> dict[str, str | bool] | None:
        try:
            words = [re.fullmatch(r"--([a-z][a-z-]*)(?:=(.+))?", word) for word in shlex.split(self.options)]
        except ValueError:  # an open quote
            return None
        if not self.options.isprintable() or not all(words):
            return None
        return {word[1]: word[2] or True for word in words if word is not None}

    @property
    def elsewhere(self) -> bool:
        """Return whether runs go to machines whose hardware this one does not know."""
        return True


def _is_host_and_port(address: str) -> bool:
    found = re.fullmatch(r"[\w.-]+:(\d{1,5})|\[[\da-f:.]+\]:(\d{1,5})", address, re.ASCII | re.IGNORECASE)
    return found is not None and 0 < int(found[1] or found[2]) < 2**16


LAUNCHERS: Registry[type[LauncherSettings]] = Registry("launcher", "LAUNCHERS")
"""Settings of each launcher by its name."""
for _kind in (LocalSettings, PoolSettings, RaySettings, SlurmSettings):
    LAUNCHERS.register(_kind.name)(_kind)
