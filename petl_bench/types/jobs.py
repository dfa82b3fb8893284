"""Planned runs on their way to a process, where they execute, and what becomes of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from petl_bench.types.launchers import ProcessSettings
from petl_bench.types.row import ResultRow
from petl_bench.types.run import RunSpec, run_id
from petl_bench.types.settings import check_ranges, setting


@dataclass(frozen=True)
class Cache:
    """Directory of decoded images and other data derived from files, and the bytes it may take."""

    directory: str = ""
    """Empty: `petl-bench` in the user's cache folder."""
    limit: int = 50_000_000_000


@dataclass(frozen=True)
class DataSettings:
    """Where data are, and how many of them are taken; the `data` settings of the configuration."""

    root: str = setting("Folder of the benchmark's files; empty: $PETL_BENCH_DATA, else ./data.", "")
    cache: str = setting(
        "Folder of decoded images; empty: $PETL_BENCH_CACHE, else petl-bench in the user's cache folder.", ""
    )
    cache_gb: float = setting(
        "Space that decoded images may take, in GB (1e9 bytes).", 50.0, above=0, most=10**9
    )
    override: str = setting("YAML file of split sizes that differ from the manifests; every row says so.", "")
    images: int = setting(
        "task=tree: images drawn for training, a fifth of them for val.",
        1000,
        least=2,
        most=10**9,
        right="a whole number, 2 or more",
    )

    def __post_init__(self) -> None:
        check_ranges(self, "data.")

    @property
    def folder(self) -> str:
        """Folder of the benchmark's files."""
        return self.root or os.environ.get("PETL_BENCH_DATA", "data")

    @property
    def decoded(self) -> Cache:
        """Folder of decoded images and its bound."""
        return Cache(self.cache or os.environ.get("PETL_BENCH_CACHE", ""), int(self.cache_gb * 1e9))


@dataclass(frozen=True)
class Runtime(ProcessSettings):
    """Place and manner of a run's execution, which change no number of it beyond its last bits."""

    store: str
    device: str = "cpu"
    cache: Cache = field(default_factory=Cache)
    config_dirs: tuple[str, ...] = ()
    """Folders of the plug-ins that the process uses."""


COMMAND_LINE = "command line"
"""Origin of a value that an override gave."""


@dataclass(frozen=True)
class Origin:
    """Where the scale and the learning rate of a run come from; no part of its identity.

    Each is `search on val`, `command line`, a file of conf/ with the beginning of its SHA-256, `method` (it
    has a constant scale), `learned` (the method trains it), or empty where it is unknown.
    """

    scale: str = ""
    lr: str = ""


@dataclass(frozen=True)
class Job:
    """One planned run on its way to a process."""

    run_id: str
    spec: RunSpec
    """With its task resolved (petl_bench.data.resolve)."""
    backbone_sha256: str
    """Checksum of the backbone weights that the identity was computed with."""
    seen: str = ""
    """State of the run's files when it was planned (Store.stamp): anything newer is another process' work."""
    command: str = ""
    """Command that repeats this run alone."""
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        if self.run_id != (found := run_id(self.spec, self.backbone_sha256)):
            raise ValueError(f"job {self.run_id}: spec and backbone weights are those of run {found}")


@dataclass(frozen=True)
class Outcome:
    """Outcome of one planned run: a row, or an error text and its cause."""

    run_id: str
    spec: RunSpec
    row: ResultRow | None = None
    error: str | None = None
    cause: str = ""
    """Cause of the error: one of CAUSES."""
    elsewhere: bool = False
    """Whether another sweep finished it meanwhile."""


CAUSES = {
    "error": "an exception",
    "diverged": "a loss or a model whose values are not finite",
    "memory": "out of memory",
    "device": "the device failed or is lost",
    "killed": "its process was killed; the same command runs it again",
    "store": "the store cannot be written",
    "busy": "another process is at work on it",
}
"""Reasons for which a run has no row."""
NO_FAULT = ("killed", "device")
"""Causes that say nothing against the run: the same command runs it again."""
