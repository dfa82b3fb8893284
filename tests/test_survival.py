"""Sweeps that are killed again and again, and sweeps that share a store: nothing lost, nothing done twice."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from petl_bench import packing
from petl_bench.config import plan
from petl_bench.run.identity import identify, resolve_tasks
from petl_bench.store import ADAPTER, ROW, Store
from petl_bench.types import Cache
from tests import processes
from tests.conftest import LONG, SCRIPT, json_lines, long, petl, rows_of
from tests.processes import parent_of, session_processes, wait_until, workers_of

POCKET = ["sweep=pocket", "seed=0", "train.epochs=1"]
"""All tasks and methods of the bundled suite: 25 runs."""
SMALL = ["sweep=pocket", "seed=0,1", "train.epochs=1", "adapter=linear"]
"""All tasks of it, with the method that takes the least time: 10 runs."""
STORM = POCKET if LONG else SMALL
"""The sweep that is killed most often."""
KILLS = 200 if LONG else 25


def begin(store: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """A sweep in a session of its own, its messages in a file beside the store."""
    with Path(f"{store}.log").open("ab") as log:
        command = [SCRIPT, "sweep", "--store", str(store), *overrides]
        return processes.Popen(command, stdout=log, stderr=log, start_new_session=True)


def planned(overrides: list[str]) -> set[str]:
    made = plan(overrides)
    return {identify(spec) for spec in resolve_tasks(made.runs, Cache())}


def assert_whole(store: Path, runs: set[str]) -> None:
    """Every planned run is done, its row valid, its file that of the row and whole."""
    rows = list(Store(store).rows())
    assert {row.run_id for row in rows} == runs
    for row in rows:
        data = (store / row.run_id / ADAPTER).read_bytes()
        assert len(data) == row.bytes_file
        packing.load(data, row.run_id)  # compares its checksum
        assert [path.name for path in (store / row.run_id).glob(".*")] == []
    assert sorted(Store(store).claims.clear(runs)) == sorted(runs)


class Storm:
    """A sweep whose processes are killed at random moments; begun again wherever it has ended."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.chance = root, random.Random(seed)
        self.stores: list[Path] = []
        self.finished: dict[Path, bytes] = {}
        """Rows as they were when they were first seen."""
        self.kills = 0
        self.sweep: subprocess.Popen[bytes] | None = None

    def step(self) -> None:
        if self.sweep is None or self.sweep.poll() is not None:
            self._begin()
        sweep = self.sweep
        assert sweep is not None
        if self.kills % 20 == 0:  # now and then a run gets done, on a slow machine too
            count = len(self.finished)
            wait_until(lambda: self.look() > count or sweep.poll() is not None)
        time.sleep(self.chance.expovariate(8))
        # mostly those at work; now and then the sweep itself, or the server of its processes
        which = {10: "sweep", 20: "helper", 140: "sweep", 170: "helper"}.get(self.kills, "worker")
        helpers = [pid for pid in session_processes(sweep.pid) if parent_of(pid) == self.sweep.pid]
        workers = workers_of(sweep.pid)
        victims = {"worker": workers, "helper": helpers, "sweep": [sweep.pid]}[which]
        if workers and victims:
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(victims), signal.SIGKILL)
                self.kills += 1
        self.look()

    def _begin(self) -> None:
        self._gone()
        if not self.stores or {row["run_id"] for row in rows_of(self.stores[-1])} == planned(STORM):
            self.stores.append(self.root / f"store{len(self.stores)}")
        sweep = self.sweep = begin(self.stores[-1], *STORM, "launcher.workers=2", "launcher.retries=1000")
        claims = Store(self.stores[-1]).claims
        wait_until(lambda: claims.running() or sweep.poll() is not None)

    def look(self) -> int:
        for path in self.root.glob(f"*/*/{ROW}"):
            self.finished.setdefault(path, path.read_bytes())
        return len(self.finished)

    def end(self) -> None:
        if self.sweep is not None and self.sweep.poll() is None:
            os.killpg(self.sweep.pid, signal.SIGKILL)
        self._gone()
        self.look()

    def _gone(self) -> None:
        if (sweep := self.sweep) is not None:
            sweep.wait()
            wait_until(lambda: not session_processes(sweep.pid))


def test_many_kills_lose_no_finished_run(tmp_path: Path) -> None:
    storm = Storm(tmp_path, seed=0)
    try:
        while storm.kills < KILLS:
            storm.step()
    finally:
        storm.end()
    assert storm.finished
    runs = planned(STORM)
    for store in storm.stores:
        done = petl("sweep", "--store", store, *STORM, "--json")
        assert done.returncode == 0, done.stderr
        assert {row["run_id"] for row in json_lines(done.stdout)} == runs
        assert_whole(store, runs)
        assert "Traceback" not in Path(f"{store}.log").read_text()
    assert {path: path.read_bytes() for path in storm.finished} == storm.finished


def own(log: Path) -> list[str]:
    """The runs that a sweep says it has done itself."""
    found = re.findall(r"^\[\d+/\d+\] (\w+) (.*)$", log.read_text(), re.MULTILINE)
    return [run_id for run_id, said in found if "another sweep" not in said]


def test_two_sweeps_at_once_share_the_work(tmp_path: Path) -> None:
    overrides = ["sweep=none", "task=digits", "adapter=linear", "train.epochs=1", "seed=range(0,6)"]
    store = tmp_path / "store"
    sweeps, logs = [], []
    for name in "ab":
        log = tmp_path / f"{name}.log"
        with log.open("wb") as file:
            command = [SCRIPT, "sweep", "--store", str(store), *overrides, "launcher.workers=1", "--json"]
            out = (tmp_path / name).open("wb")
            sweeps.append(processes.Popen(command, stdout=out, stderr=file))
        logs.append(log)
    for sweep in sweeps:
        assert sweep.wait(timeout=240) == 0
    runs = planned(overrides)
    for name in "ab":  # each says all of it
        assert {row["run_id"] for row in json_lines((tmp_path / name).read_text())} == runs
    assert sorted([*own(logs[0]), *own(logs[1])]) == sorted(runs)  # each run once
    assert own(logs[0])
    assert own(logs[1])
    assert_whole(store, runs)


def test_a_sweep_takes_over_from_one_that_died(tmp_path: Path) -> None:
    overrides = ["sweep=none", "task=digits", "adapter=lora", "protocol=fixed", "train.epochs=4"]
    store = tmp_path / "store"
    first = begin(store, *overrides)
    wait_until(Store(store).claims.running)
    os.killpg(first.pid, signal.SIGSTOP)  # in the middle of its one run, for as long as we want
    second = begin(store, *overrides)
    log = Path(f"{store}.log")
    wait_until(lambda: "waiting for 1 run at which" in log.read_text())
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(timeout=240) == 0
    assert_whole(store, planned(overrides))


@long
def test_two_sweeps_that_repeat_runs_repeat_each_once(tmp_path: Path) -> None:
    overrides = [*POCKET, "adapter=linear"]  # 5 runs
    store = tmp_path / "store"
    assert petl("sweep", "--store", store, *overrides).returncode == 0
    before = {row["run_id"]: row["finished_at"] for row in rows_of(store)}
    sweeps = [begin(store, *overrides, "launcher.workers=1", "--existing", "rerun") for _ in range(2)]
    for sweep in sweeps:
        assert sweep.wait(timeout=240) == 0
    runs = own(Path(f"{store}.log"))
    assert len(runs) == len(set(runs)) == 5
    assert_whole(store, set(before))


def test_failures_have_their_cause_and_the_command_that_repeats_them(tmp_path: Path) -> None:
    # The learning rate overflows float32 (tests/test_cli_sweep.py); the other run is fine.
    store = tmp_path / "store"
    overrides = ["sweep=none", "task=digits", "adapter=linear", "train.lr=1e37,1e-3", "train.epochs=1"]
    done = petl("sweep", "--store", store, *overrides, "train.warmup_epochs=0", "launcher.workers=1")
    assert done.returncode == 1
    (path,) = store.glob("*/error.json")
    kept = json.loads(path.read_text())
    assert kept["cause"] == "diverged"
    assert "train.lr=1e+37 " in kept["command"]  # as Hydra writes it
    assert "1 run failed (1 diverged)" in done.stderr
    assert kept["command"] in done.stderr
