"""Files of the methods' authors where they are at hand, and this project's own stand-ins for them.

Tests run on the stand-ins in every clone, and on the authors' files too where the folder that the environment
variable PETL_BENCH_GOLDEN names has them. README.md beside this file says where each file comes from.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from petl_bench.data import manifests
from petl_bench.data.manifest_files import read_manifest
from petl_bench.types import Manifest

STAND_INS = Path(__file__).parent
AUTHORS = Path(os.environ.get("PETL_BENCH_GOLDEN", STAND_INS.parents[2] / "shared/golden"))


@dataclass(frozen=True)
class Checkpoint:
    """A .bin in the format of the released checkpoints, and the .yaml beside it."""

    folder: Path
    name: str
    hidden: int
    classes: int

    @property
    def method(self) -> str:
        return self.name.partition("/")[0]

    @property
    def bin(self) -> Path:
        return self.folder / "petl-vit" / f"{self.name}.bin"

    @property
    def settings(self) -> Path:
        return self.bin.with_suffix(".yaml")

    def __str__(self) -> str:
        return f"{'stand-in' if self.folder == STAND_INS else 'authors'} {self.name}"


def _checkpoints(folder: Path) -> Iterator[Checkpoint]:
    for path in sorted(folder.glob("petl-vit/*/*.yaml")):
        facts = yaml.safe_load(path.read_text())
        name = f"{path.parent.name}/{path.stem}"
        yield Checkpoint(folder, name, facts["dim"], facts["num_class"])


CHECKPOINTS = [*_checkpoints(STAND_INS), *_checkpoints(AUTHORS)]
"""Checkpoints to run tests on; never empty."""


@cache
def released(fact: str) -> dict[tuple[str, int, str], float]:
    """Return (method, hidden, data set) -> the scale or the bytes of each of the 152 released checkpoints.

    Args:
        fact: "scales" or "bytes".
    """
    found = {}
    with (STAND_INS / f"released-{fact}.csv").open() as file:
        for row in csv.DictReader(file):
            task = row.pop("task")
            for column, value in row.items():
                method, _, hidden = column.rpartition("-dim")
                found[method, int(hidden), task] = float(value)
    return found


@dataclass(frozen=True)
class Published:
    """Scale that a repository publishes for one method and task.

    Attributes:
        chosen: setting that belongs to the scale: the rank of FacT, the initializer of Convpass's kernel.
    """

    scale: float
    chosen: str


@cache
def published() -> dict[tuple[str, str], Published]:
    """Return (method, data set) -> the scale that the method's repository publishes for VTAB-1K."""
    found = {}
    with (STAND_INS / "published-scales.csv").open() as file:
        for row in csv.DictReader(file):
            for method in ("fact_tt", "fact_tk", "convpass", "convpass_attn", "repblock", "repattn"):
                chosen = row.get(f"{method}_rank") or row.get(f"{method}_conv") or ""
                found[method, row["task"]] = Published(float(row[method]), chosen)
    return found


@dataclass(frozen=True)
class FewShotSet:
    """Lists of a few-shot set in the folder of oxford-pets, and the manifest that states their hashes.

    Attributes:
        held: images that a test keeps of the lists of val and test.
        batch_size: at most the number of lines of a list of one shot, more than its number of images.
    """

    folder: Path
    manifest: Manifest
    held: int
    batch_size: int

    @property
    def lists(self) -> Path:
        return self.folder / "noah-few-shot/oxford-pets/annotations"

    def lines(self, shots: int) -> int:
        """Return the number of lines of a training list: those of one shot name each image twice."""
        return self.manifest.classes * max(shots, 2)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the manifest of this set be that of fgvc_pets in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(cast(dict[str, Any], manifests()), "fgvc_pets", self.manifest)
            yield

    def __str__(self) -> str:
        return "stand-in" if self.folder == STAND_INS else "authors"


def _few_shot_sets() -> Iterator[FewShotSet]:
    text = (STAND_INS / "fgvc_pets.yaml").read_text()
    yield FewShotSet(STAND_INS, read_manifest(text, "fgvc_pets.yaml"), held=10, batch_size=8)
    theirs = FewShotSet(AUTHORS, manifests()["fgvc_pets"], held=37, batch_size=64)
    if theirs.lists.is_dir():
        yield theirs


FEW_SHOT_SETS = list(_few_shot_sets())
"""Few-shot sets to run tests on; never empty."""
