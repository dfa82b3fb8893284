"""Choose the scales of conf/tuned/pocket.yaml on val: `python -m petl_bench.tune [ADAPTER ...]`.

For each adapter and task, every scale of the grid is trained on train and scored on val, at 1 and 32
bits and with one seed or more; the best mean wins, the smaller scale on a tie. No test image is looked at.
One scale serves all bit-widths, so that they compare. Other adapters' tables stay as they are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean

from rich.progress import track

from petl_bench.config import CONF_DIR, plan
from petl_bench.device import find_precision
from petl_bench.run import validate
from petl_bench.types import RunSpec, Runtime

GRID = "0.01,0.1,1,10,100"
EPOCHS = 12

HEADER = f"""\
# Scales of the bundled suite: the best mean accuracy on val after training without it (800 images), at
# 1 and 32 bits and {EPOCHS} epochs. By `python -m petl_bench.tune`, but where a table
# says otherwise; no test image was looked at.
tables:
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


def table(adapter: str, about: str, scales: Mapping[str, float]) -> str:
    """The lines of one adapter."""
    lines = [f"  - adapter: {adapter} # {about}", "    scales:"]
    return "\n".join([*lines, *(f"      {task}: {scale}" for task, scale in scales.items())]) + "\n"


def tables(text: str) -> dict[str, str]:
    """The lines of each adapter in a file that this module has written."""
    parts = re.split(r"^(?=  - adapter: )", text, flags=re.MULTILINE)[1:]
    return {part.split()[2]: part for part in parts}


def main() -> None:
    """Run the search on all cores and write the tables."""
    parser = argparse.ArgumentParser(description="Choose the bundled suite's scales on val.")
    parser.add_argument("--out", type=Path, default=CONF_DIR / "tuned" / "pocket.yaml")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--grid", default=GRID, help="scales, separated by commas")
    parser.add_argument("--seeds", default="0,1", help="seeds, separated by commas")
    parser.add_argument("adapters", nargs="*", default=["adaptformer", "lora"])
    arguments = parser.parse_args()
    overrides = [
        f"adapter={','.join(arguments.adapters)}",
        "bits=1,32",
        f"seed={arguments.seeds}",
        "protocol=fixed",
        f"train.epochs={EPOCHS}",
        f"scale={arguments.grid}",
    ]
    planned = plan(overrides).runs
    runs = [replace(run, precision=find_precision(run.precision, "cpu")) for run in planned]
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as executor:
        scores = list(track(executor.map(score, runs), "validating", total=len(runs)))
    about = f"from {arguments.grid.replace(',', ', ')}; seeds {arguments.seeds.replace(',', ', ')}"
    held = tables(arguments.out.read_text()) if arguments.out.is_file() else {}
    held |= {adapter: table(adapter, about, found) for adapter, found in choose(runs, scores).items()}
    arguments.out.write_text(HEADER + "".join(held.values()))


if __name__ == "__main__":
    main()
