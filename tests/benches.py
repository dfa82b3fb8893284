"""Data in the layout of a benchmark, with the options that name them, and settings of short runs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import petl, quickly

SMALL = ["adapter=adaptformer", "bits=1", "hidden=4", "train.epochs=1"]
FIXED = ["protocol=fixed", "scale=1"]
ONE = ["sweep=none", *SMALL, *FIXED, "train.batch_size=32", "launcher=local"]


@dataclass(frozen=True)
class Bench:
    """Data in the layout of a benchmark, the file that states their sizes, and their cache."""

    root: Path
    override: Path | None
    cache: Path

    @property
    def data(self) -> list[str]:
        """The overrides that name the data."""
        return [f"data.root={self.root}", f"data.override={self.override or ''}"]

    @property
    def environment(self) -> dict[str, str]:
        return {"PETL_BENCH_CACHE": str(self.cache)}

    def petl(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return petl(*arguments, **self.environment)

    def quickly(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return quickly(*arguments, **self.environment)
