"""Choose the scales and learning rates of conf/tuned/pocket.yaml on val: `python -m petl_bench.dev.tune`.

For each adapter and task, every scale of a grid (with `--lrs`, every learning rate, for methods without a
scale) is used to train on train and is evaluated on val, at 1 and 32 bits and with one or more seeds. The
value with the best mean accuracy is chosen, the smaller one on a tie. No test image is read. One value is
used for all bit-widths so that they are comparable. All other content of the file is kept.
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
from typing import Any

import yaml
from rich.progress import track

from petl_bench.config import CONF_DIR, plan
from petl_bench.device import find_precision
from petl_bench.run.training import validate
from petl_bench.types import RunSpec, Runtime

SCALES = "0.01,0.1,1,10,100"
EPOCHS = 12

HEADER = f"""\
# Scales of the bundled suite, and learning rates of methods without a scale, with the best mean accuracy on
# val after training on train (800 images) for {EPOCHS} epochs at 1 and 32 bits. They were chosen by
# `python -m petl_bench.dev.tune` unless the note of a table says otherwise. No test image was read.
"""


def score(spec: RunSpec) -> float:
    """Train on train and return the accuracy on val."""
    return validate(spec, Runtime(store=""))[0]


def choose(runs: Sequence[RunSpec], scores: Sequence[float], what: str) -> dict[str, dict[str, float]]:
    """Choose the value with the best mean score for each adapter and task, the smaller one on a tie.

    Args:
        runs: runs that differ in scale or learning rate, bits and seed.
        scores: accuracy of each run.
        what: "scales" or "lrs".

    Returns:
        Adapter -> task -> scale or learning rate.
    """
    held: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, found in zip(runs, scores, strict=True):
        assert run.scale is not None
        value = run.scale if what == "scales" else run.train.lr
        held[run.adapter.name, run.task.name][value].append(found)
    best: dict[str, dict[str, float]] = defaultdict(dict)
    for (adapter, task), values in held.items():
        best[adapter][task] = max(sorted(values), key=lambda value: mean(values[value]))
        print(
            f"{adapter} {task}: " + ", ".join(f"{v:g} {mean(values[v]):.4f}" for v in sorted(values)),
            flush=True,
        )
    return best


def written(text: str, what: str, note: str, best: dict[str, dict[str, float]]) -> str:
    """Return the text of a file of tables with new values, each in its table or in a new one at the end.

    Args:
        text: text of the file so far; may be empty.
        what: "scales" or "lrs".
        note: how the values were chosen.
        best: adapter -> task -> value.
    """
    tables: list[dict[str, Any]] = (yaml.safe_load(text) or {}).get("tables", [])
    for adapter, values in best.items():
        known = next((table for table in tables if table["adapter"] == adapter), None)
        if known is None:
            tables.append(known := {"adapter": adapter, "note": ""})
        notes = [part for part in known["note"].split("; ") if part and not part.startswith(what)]
        known["note"] = "; ".join([*notes, note])
        known[what] = values
    return HEADER + yaml.safe_dump({"tables": tables}, sort_keys=False, width=200)


def main() -> None:
    """Run the search on all cores and write the file."""
    parser = argparse.ArgumentParser(
        description="Choose scales or learning rates of the bundled suite on val."
    )
    parser.add_argument("--out", type=Path, default=CONF_DIR / "tuned" / "pocket.yaml", help="file to update")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count(), help="processes")
    grid = parser.add_mutually_exclusive_group()
    grid.add_argument("--scales", default=SCALES, help="comma-separated scales")
    grid.add_argument("--lrs", help="comma-separated learning rates")
    parser.add_argument("--seeds", default="0,1", help="comma-separated seeds")
    parser.add_argument("adapters", nargs="*", default=["adaptformer", "lora"], help="names of adapters")
    arguments = parser.parse_args()
    what, values = ("lrs", arguments.lrs) if arguments.lrs else ("scales", arguments.scales)
    overrides = [
        f"adapter={','.join(arguments.adapters)}",
        "bits=1,32",
        f"seed={arguments.seeds}",
        "protocol=fixed",
        f"train.epochs={EPOCHS}",
        f"{'train.lr' if what == 'lrs' else 'scale'}={values}",
    ]
    planned = plan(overrides).runs
    runs = [replace(run, precision=find_precision(run.precision, "cpu")) for run in planned]
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as executor:
        scores = list(track(executor.map(score, runs), "validating", total=len(runs)))
    note = f"{what} from {values.replace(',', ', ')} with seeds {arguments.seeds.replace(',', ', ')}"
    text = arguments.out.read_text() if arguments.out.is_file() else ""
    arguments.out.write_text(written(text, what, note, choose(runs, scores, what)))


if __name__ == "__main__":
    main()
