"""Times of complete commands, each in a process and a store of its own; they include starting Python.

Commands of one process that train nothing are timed by their CPU time, which other work on the machine
disturbs less than the wall time.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import petl_bench
from petl_bench.data import manifests
from petl_bench.dev.bench.case import Setting, case
from petl_bench.dev.bench.growth import MANY, seeds
from petl_bench.dev.bench.measure import Timing, alone, paired, seconds_of
from petl_bench.errors import UserError
from petl_bench.store import ADAPTER, Store, with_digests
from petl_bench.types import run_id

ONE = ["sweep=none", "task=digits", "protocol=fixed", "scale=1", "train.epochs=1"]
METHOD = ["adapter=adaptformer", "bits=1", "launcher=local"]
WIDTHS, METHODS = (1, 2, 4, 8, 32), ("adaptformer", "lora")


def petl(folder: Path, *arguments: str) -> None:
    """Run `petl-bench ARGUMENTS` of this package in a folder.

    Raises:
        UserError: the command fails.
    """
    package = str(Path(petl_bench.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "petl_bench", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise UserError(f"bench: `petl-bench {' '.join(arguments)}` failed: {last}")


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time, in seconds, of the processes that a function starts and waits for."""

    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    before = used()
    work()
    return used() - before


def timed(
    setting: Setting,
    usual: int,
    note: str,
    arguments: list[str],
    clock: Callable[[Callable[[], object]], float] = cpu_seconds,
) -> Timing:
    """Time a command, each time in a new folder.

    Args:
        setting: device and sizes.
        usual: default number of rounds.
        note: sizes at which the timings are taken.
        arguments: arguments of `petl-bench`.
        clock: function from the work to its seconds.
    """
    taken = []
    for _ in range(setting.rounds(usual)):
        with tempfile.TemporaryDirectory(prefix="petl-bench-") as name:
            taken.append(clock(partial(petl, Path(name), *arguments)))
    return alone(taken, note)


@case("help", "petl-bench --help, CPU time", target=0.4)
def help_text(setting: Setting) -> Timing:
    """Time the help text."""
    return timed(setting, 5, "", ["--help"])


@case("plan_1140", "sweep --dry-run of 1,140 runs, CPU time", target=3)
def plan_1140(setting: Setting) -> Timing:
    """Time planning as many runs as sweep=paper has, on bundled tasks with an empty store."""
    count = 60 if setting.quick else 1140
    arguments = ["sweep", "--dry-run", "sweep=none", *MANY, seeds(count)]
    return timed(setting, 3, f"{count:,} runs of bundled tasks", arguments)


@case("report_10000", "report over 10,000 rows, CPU time", target=5)
def report_10000(setting: Setting) -> Timing:
    """Time a report over runs of VTAB-1K's tasks with two methods and five bit-widths."""
    count = 190 if setting.quick else 10_000
    note = f"{count:,} rows in {len(_tasks())} tasks x {len(METHODS)} methods x {len(WIDTHS)} widths"
    with tempfile.TemporaryDirectory(prefix="petl-bench-") as name:
        one, store = Path(name) / "one", Path(name) / "store"
        petl(
            Path(name), "sweep", "--store", str(one), *ONE, "adapter=adaptformer", "bits=1", "launcher=local"
        )
        fill(store, Store(one), count)
        return timed(setting, 3, note, ["report", "--store", str(store)])


@case("sweep_demo", "the demo sweep: petl-bench sweep sweep=demo", target=90)
def sweep_demo(setting: Setting) -> Timing:
    """Time the 25 runs of the demo with as many processes as the launcher uses."""
    chosen = [*ONE, "adapter=adaptformer", "bits=1"] if setting.quick else ["sweep=demo"]
    note = "one run of one epoch" if setting.quick else "25 runs of ten epochs"
    wall = partial(seconds_of, device="cpu")
    return timed(setting, 1, note, ["sweep", *chosen, f"launcher.device={setting.device}"], wall)


SHARING = 4
"""Processes that share a GPU where the gain of that is measured."""


@case(
    "pool", "the default sweep with launcher=pool compared with launcher=local", 0.65, meaning="pool / local"
)
def pool(setting: Setting) -> Timing:
    """Time the same runs, with one thread each, in several processes and in one.

    There are as many processes as cores, or SHARING that share the GPU.

    Raises:
        UserError: adapter files of the two launchers differ, and not because a GPU computes them.
    """
    chosen = [*ONE, "adapter=adaptformer", "bits=1,32"] if setting.quick else []
    taken, held = [], []
    for number in range(setting.rounds(2)):
        with tempfile.TemporaryDirectory(prefix="petl-bench-") as name:
            folder, found = Path(name), {}
            for launcher in ("pool", "local") if number % 2 == 0 else ("local", "pool"):
                arguments = ["sweep", "--store", launcher, *chosen, f"launcher={launcher}"]
                arguments.append(f"launcher.device={setting.device}")
                if setting.on_gpu and launcher == "pool":
                    arguments.append(f"launcher.workers={SHARING}")
                found[launcher] = seconds_of(partial(petl, folder, *arguments), "cpu")
            taken.append((found["pool"], found["local"]))
            held += [_adapters(folder / launcher) for launcher in found]
    differing = sum(any(files[name] != held[0][name] for files in held) for name in held[0])
    if differing and not setting.on_gpu:
        raise UserError("bench: launcher=pool and launcher=local produce different adapter files")
    same = f"{differing} of them with differing" if differing else "identical"
    sharing = f", {SHARING} at a time on one GPU" if setting.on_gpu else ""
    return paired(taken, f"{len(held[0])} runs, one thread each{sharing}, {same} adapter files")


def _adapters(store: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in store.glob(f"*/{ADAPTER}")}


def _tasks() -> list[str]:
    return sorted(name for name, manifest in manifests().items() if manifest.suite == "vtab")


def fill(root: Path, one: Store, count: int) -> None:
    """Fill a store with copies of a real run that differ in task, method, bit-width and seed.

    Args:
        root: folder of the store.
        one: store of the run to copy.
        count: number of runs.
    """
    known, tasks = manifests(), _tasks()
    (first,) = one.rows()
    spec = one.spec(first.run_id)
    for number in range(count):
        rest, task = divmod(number, len(tasks))
        rest, method = divmod(rest, len(METHODS))
        seed, width = divmod(rest, len(WIDTHS))
        facts: dict[str, Any] = {"suite": "vtab", "group": known[tasks[task]].group}
        own = replace(
            spec,
            task=replace(spec.task, name=tasks[task], **facts),
            adapter=replace(spec.adapter, name=METHODS[method]),
            bits=WIDTHS[width],
            seed=seed,
        )
        same: dict[str, Any] = {
            "task": tasks[task],
            "adapter": METHODS[method],
            "bits": WIDTHS[width],
            "seed": seed,
            **facts,
        }
        name, acc = run_id(own, first.backbone_sha256), number % 97 % first.n_test / first.n_test
        row = with_digests(replace(first, run_id=name, acc=acc, **same), own)
        Store(root).put(own, row, bytes(row.bytes_file))
