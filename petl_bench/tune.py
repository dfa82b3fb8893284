"""Choose the scales of conf/tuned/pocket.yaml on val: `python -m petl_bench.tune`.

For each adapter and task, every scale of the grid is trained on train and scored on val, at 1 and 32
bits and with two seeds; the best mean wins, the smaller scale on a tie. No test image is looked at. One
scale serves all bit-widths, so that they compare.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean

from rich.progress import track

from petl_bench.config import CONF_DIR, plan
from petl_bench.device import find_precision
from petl_bench.training import validate
from petl_bench.types import RunSpec, Runtime

GRID = "0.01,0.1,1.0,10.0,100.0"
AXES = [
    "adapter=adaptformer,lora",
    "bits=1,32",
    "seed=0,1",
    "protocol=fixed",
    "train.epochs=12",
    f"scale={GRID}",
]

HEADER = """# Scales of the bundled suite: the best mean accuracy on val after training without
# it (800 images), at 1 and 32 bits, with two seeds and 12 epochs, from {grid}. Written by
# `make pocket-scales`; no test image was looked at.
"""


def score(spec: RunSpec) -> float:
    """Accuracy on val of the model as trained on train."""
    return validate(spec, Runtime(store=""))[0]


def choose(runs: Sequence[RunSpec], scores: Sequence[float]) -> dict[str, dict[str, float]]:
    """adapter -> task -> the scale with the best mean score."""
    held: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for run, score in zip(runs, scores, strict=True):
        assert run.scale is not None
        held[run.adapter.name, run.task.name, run.scale].append(score)
    best: dict[str, dict[str, float]] = defaultdict(dict)
    for adapter, task in dict.fromkeys((adapter, task) for adapter, task, _ in held):
        means = {scale: mean(s) for (a, t, scale), s in held.items() if (a, t) == (adapter, task)}
        best[adapter][task] = max(sorted(means), key=lambda scale: means[scale])
        print(f"{adapter} {task}: " + ", ".join(f"{s:g} {means[s]:.4f}" for s in sorted(means)), flush=True)
    return best


def main() -> None:
    """Run the search on all cores and write the table."""
    parser = argparse.ArgumentParser(description="Choose the bundled suite's scales on val.")
    parser.add_argument("--out", type=Path, default=CONF_DIR / "tuned" / "pocket.yaml")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("overrides", nargs="*", help="further overrides, for example task=digits")
    arguments = parser.parse_args()
    planned = plan([*AXES, *arguments.overrides]).runs
    runs = [replace(run, precision=find_precision(run.precision, "cpu")) for run in planned]
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as executor:
        scores = list(track(executor.map(score, runs), "validating", total=len(runs)))
    lines = [HEADER.format(grid=GRID.replace(",", ", ")) + "tables:"]
    for adapter, scales in choose(runs, scores).items():
        lines += [f"  - adapter: {adapter}", "    scales:"]
        lines += [f"      {task}: {scale}" for task, scale in scales.items()]
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
