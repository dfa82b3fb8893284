"""Compare settings without test images: `python -m petl_bench.dev.search FILE OVERRIDES...`.

Every run of the plan is trained on one half of the task's training images, validation images included, and is
scored on the other half. Seeds 2k and 2k + 1 train on the two halves of one random permutation, so that each
image is scored once per pair of seeds. That is 500 images of each bundled task instead of the 200 of val. No
test image is read.

FILE gets one JSON line per run, appended as soon as it is known. Runs that it holds are left out, so that the
command continues where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from petl_bench import data
from petl_bench.config import plan
from petl_bench.device import check_int8, cores_here, find_device, find_precision
from petl_bench.errors import DivergedError
from petl_bench.run.training import train
from petl_bench.train import Pixels, evaluate
from petl_bench.types import TRAINVAL, Cache, RunSpec, Runtime, TaskSpec

SETTINGS = (
    *("hidden", "bits", "scale", "head", "start", "matrix_lr", "float_bits", "statistics_of", "seed"),
)
"""Settings of a run that a line states besides those of its adapter and its recipe."""
HELD_OUT = "held out"
"""Split of the images that a run is not trained on."""
RECIPE = ("epochs", "warmup_epochs", "batch_size", "lr", "weight_decay")


def stated(spec: RunSpec) -> dict[str, Any]:
    """Return the settings of a run that its line states."""
    values = {"adapter": spec.adapter.name, "task": spec.task.name}
    values |= {name: getattr(spec, name) for name in SETTINGS}
    values |= {f"adapter.{name}": value for name, value in spec.adapter.settings.items()}
    return values | {f"train.{name}": getattr(spec.train, name) for name in RECIPE}


def halves(images: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the images that a run trains on, and of those that it is scored on."""
    order = np.random.default_rng(seed // 2).permutation(images)
    parts = [np.sort(order[: images // 2]), np.sort(order[images // 2 :])]
    return parts[seed % 2], parts[1 - seed % 2]


def score(spec: RunSpec, runtime: Runtime) -> float:
    """Train a run on half of its training images, and return the accuracy on the others; 0: it diverges."""

    def load_half(task: TaskSpec, split: str, size: int, cache: Cache, native: bool = False) -> data.Split:
        whole = data.load(task, TRAINVAL, size, cache, native)
        chosen = halves(len(whole), spec.seed)[split != TRAINVAL]
        return data.Split(np.asarray(whole.images)[chosen], whole.labels[chosen])

    size = spec.backbone.image_size
    spec = replace(spec, precision=find_precision(spec.precision, runtime.device))
    try:
        trained = train(spec, runtime, split=TRAINVAL, load=load_half)
        pixels = Pixels(spec.train.normalization, size, torch.device(runtime.device))
        return evaluate(trained.adapted.network, load_half(spec.task, HELD_OUT, size, runtime.cache), pixels)
    except DivergedError:
        return 0.0


def table(lines: Iterable[Mapping[str, Any]], groups: Mapping[str, str]) -> list[list[str]]:
    """Return the mean accuracy of each configuration as rows of a table, the names of the columns first.

    Args:
        lines: lines of a file; settings that are the same in all of them have no column.
        groups: group of each task; the mean is one over groups of means over tasks.
    """
    held = list(lines)
    names = [name for name in dict.fromkeys(name for line in held for name in line) if name not in OF_RUN]
    names = [name for name in names if len({line.get(name) for line in held}) > 1]
    cells: dict[tuple[Any, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in held:
        cells[tuple(line.get(name) for name in names)][line["task"]].append(line["acc"])
    rows = []
    for values, of_task in sorted(cells.items()):
        of_group: dict[str, list[float]] = defaultdict(list)
        for task, found in of_task.items():
            of_group[groups[task]].append(mean(found))
        accuracy = 100 * mean(map(mean, of_group.values()))
        rows.append([*map(str, values), f"{accuracy:.1f}", str(sum(map(len, of_task.values())))])
    titles = [name.removeprefix("adapter.").removeprefix("train.") for name in names]
    return [[*titles, "mean of groups", "runs"], *rows]


OF_RUN = ("task", "seed", "acc")
"""Columns in which the runs of one configuration differ."""


def left(runs: Sequence[RunSpec], text: str) -> list[RunSpec]:
    """Return the runs that the text of a file does not hold."""
    held = {
        json.dumps({k: v for k, v in json.loads(line).items() if k != "acc"}) for line in text.splitlines()
    }
    return [run for run in runs if json.dumps(stated(run)) not in held]


def main() -> None:
    """Score all runs of a plan."""
    parser = argparse.ArgumentParser(description="Compare settings by two-fold cross-validation.")
    parser.add_argument("file", type=Path, help="JSON lines to append to")
    parser.add_argument("--workers", type=int, help="processes; by default one per core, or one on a GPU")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument("overrides", nargs="+", help="overrides, as `petl-bench sweep` takes them")
    arguments = parser.parse_args()
    if unused := [one for one in arguments.overrides if one.startswith("launcher")]:
        parser.error(f"{unused[0]}: has no use here; give --device, --threads or --workers")
    device = find_device(arguments.device, "--device ")
    workers = arguments.workers or (cores_here() if device == "cpu" else 1)
    text = arguments.file.read_text() if arguments.file.is_file() else ""
    runs = left(plan(["protocol=fixed", *arguments.overrides]).runs, text)
    for precision in {run.precision for run in runs}:
        check_int8(find_precision(precision, device), device, "none")
    scored = partial(score, runtime=Runtime(store="", device=device, threads=arguments.threads))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
        jobs = {executor.submit(scored, run): run for run in runs}
        for job in track(as_completed(jobs), "scoring", total=len(jobs)):
            line = stated(jobs[job]) | {"acc": round(job.result(), 5)}
            with arguments.file.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
