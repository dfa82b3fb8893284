"""Choose the scales and learning rates of a bundled suite on val: `python -m petl_bench.dev.tune`.

For each adapter and task, every scale of a grid (with `--lrs`, every learning rate, for methods without a
scale) is used to train on train and is evaluated on val, at 1 and 32 bits and with one or more seeds. The
value with the best mean accuracy is chosen, the smaller one on a tie. No test image is read. One value is
used for all bit-widths so that they are comparable. All other content of conf/tuned/SUITE.yaml is kept.

The file is written after each adapter and task. The same command starts again where it was interrupted: it
leaves out what the file holds with the same note.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from rich.progress import track

from petl_bench.config import CONF_DIR, plan
from petl_bench.data import manifests
from petl_bench.device import check_int8, cores_here, find_device, find_precision
from petl_bench.run.training import validate
from petl_bench.types import RunSpec, Runtime

SCALES = "0.01,0.1,1,10,100"
EPOCHS = 12

HEADER = f"""\
# Scales of the bundled suite, and learning rates of methods without a scale, with the best mean accuracy on
# val after training on train (800 images) for {EPOCHS} epochs at 1 and 32 bits. They were chosen by
# `python -m petl_bench.dev.tune` unless the note of a table says otherwise. No test image was read.
"""


def score(spec: RunSpec, runtime: Runtime) -> float:
    """Train on train and return the accuracy on val."""
    return validate(spec, runtime)[0]


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

    Values that were chosen in the same way for other tasks are kept.

    Args:
        text: text of the file so far; may be empty.
        what: "scales" or "lrs".
        note: how the values were chosen.
        best: adapter -> task -> value.
    """
    tables = _tables(text)
    for adapter, values in best.items():
        known = next((table for table in tables if table["adapter"] == adapter), None)
        if known is None:
            tables.append(known := {"adapter": adapter, "note": ""})
        same = note in known["note"].split("; ")
        notes = [part for part in known["note"].split("; ") if part and not part.startswith(what)]
        known["note"] = "; ".join([*notes, note])
        known[what] = {**(known.get(what, {}) if same else {}), **values}
    return HEADER + yaml.safe_dump({"tables": tables}, sort_keys=False, width=200)


def left(runs: Sequence[RunSpec], text: str, what: str, note: str) -> list[list[RunSpec]]:
    """Return the runs of each adapter and task for which a file holds no value that was chosen in this way.

    Args:
        runs: all runs, those of one adapter and task in any order.
        text, what, note: see `written`.
    """
    held = {
        (table["adapter"], task)
        for table in _tables(text)
        if note in table["note"].split("; ")
        for task in table.get(what, {})
    }
    groups: dict[tuple[str, str], list[RunSpec]] = defaultdict(list)
    for run in runs:
        groups[run.adapter.name, run.task.name].append(run)
    return [group for key, group in groups.items() if key not in held]


def _tables(text: str) -> list[dict[str, Any]]:
    return (yaml.safe_load(text) or {}).get("tables", [])


def main() -> None:
    """Run the search on all cores and write the file."""
    parser = argparse.ArgumentParser(description="Choose scales or learning rates of a bundled suite on val.")
    parser.add_argument("--suite", default="pocket", choices=("pocket", "pocket19"))
    parser.add_argument("--out", type=Path, help="file to update; by default that of the suite in conf/tuned")
    parser.add_argument("--workers", type=int, help="processes; by default one per core, or one on a GPU")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    grid = parser.add_mutually_exclusive_group()
    grid.add_argument("--scales", default=SCALES, help="comma-separated scales")
    grid.add_argument("--lrs", help="comma-separated learning rates")
    parser.add_argument("--seeds", default="0,1", help="comma-separated seeds")
    parser.add_argument("adapters", nargs="*", default=["adaptformer", "lora"], help="names of adapters")
    arguments = parser.parse_args()
    runtime = Runtime(store="", device=find_device(arguments.device, "--device "), threads=arguments.threads)
    workers = arguments.workers or (cores_here() if runtime.device == "cpu" else 1)
    out = arguments.out or CONF_DIR / "tuned" / f"{arguments.suite}.yaml"
    what, values = ("lrs", arguments.lrs) if arguments.lrs else ("scales", arguments.scales)
    overrides = [
        f"task={','.join(name for name, m in manifests().items() if m.suite == arguments.suite)}",
        f"adapter={','.join(arguments.adapters)}",
        "bits=1,32",
        f"seed={arguments.seeds}",
        "protocol=fixed",
        f"train.epochs={EPOCHS}",
        *([f"train.lr={values}", "scale=1"] if what == "lrs" else [f"scale={values}"]),
    ]
    note = f"{what} from {values.replace(',', ', ')} with seeds {arguments.seeds.replace(',', ', ')}"
    text = out.read_text() if out.is_file() else ""
    planned = left(plan(overrides).runs, text, what, note)
    groups = [
        [replace(run, precision=find_precision(run.precision, runtime.device)) for run in group]
        for group in planned
    ]
    for precision in {run.precision for group in groups for run in group}:
        check_int8(precision, runtime.device, "none")
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
        found = [executor.map(partial(score, runtime=runtime), group) for group in groups]
        for group, scores in track(zip(groups, found, strict=True), "validating", total=len(groups)):
            text = written(text, what, note, choose(group, list(scores), what))
            out.write_text(text)


if __name__ == "__main__":
    main()
