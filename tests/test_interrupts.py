"""Real processes, real signals: what is finished stays, what is started ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from petl_bench.store import ADAPTER
from tests.conftest import (
    COLUMNS,
    SCRIPT,
    json_lines,
    quickly,
    rows_of,
    session_processes,
    wait_until,
)

# Interrupts: real processes, real signals

LONG = [
    "sweep=none",
    "task=digits",
    "adapter=linear",
    "train.epochs=6",
    "seed=range(0,6)",
    "launcher.workers=2",
]


def start(store: Path) -> subprocess.Popen[str]:
    """A sweep of six runs in a session of its own."""
    command = [SCRIPT, "sweep", "--store", str(store), *LONG, "--json"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )


def assert_whole(store: Path, at_least: int) -> int:
    """Rows are valid, their files whole; returns how many of the six are done."""
    rows = rows_of(store)
    assert at_least <= len(rows) < 6
    for row in rows:
        assert set(row) == COLUMNS
        assert (store / row["run_id"] / ADAPTER).stat().st_size == row["bytes_file"]
    return len(rows)


def finish(store: Path, done_before: int) -> None:
    """The same command completes the sweep, in this process."""
    done = quickly("sweep", "--store", store, *LONG[:-1], "launcher=serial", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{done_before} in store" in done.stderr
    assert sorted(row["seed"] for row in json_lines(done.stdout)) == list(range(6))
    assert len(rows_of(store)) == 6


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        first = json.loads(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in messages
    assert "Traceback" not in messages
    wait_until(lambda: not session_processes(process.pid), 20)
    assert first["run_id"] in {row["run_id"] for row in rows_of(store)}
    finish(store, assert_whole(store, 1))


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        process.stdout.readline()
        assert len(session_processes(process.pid)) >= 3  # itself and two workers
        process.kill()
        process.wait()
        wait_until(lambda: not session_processes(process.pid), 20)
    finish(store, assert_whole(store, 1))


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    return [pid for pid, line in session_processes(process.pid).items() if "spawn_main" in line]


def test_a_killed_worker_is_said(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        process.stdout.readline()
        os.kill(workers_of(process)[0], signal.SIGKILL)
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "a worker process was killed" in messages
    assert "Traceback" not in messages
    assert_whole(store, 1)
    wait_until(lambda: not session_processes(process.pid), 20)


def test_a_worker_killed_before_the_first_run_is_said(tmp_path: Path) -> None:
    with start(tmp_path / "store") as process:
        wait_until(lambda: workers_of(process))
        os.kill(workers_of(process)[0], signal.SIGKILL)
        _, messages = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    assert "killed" in messages
    assert "a fault of petl-bench" not in messages
    assert "Traceback" not in messages
    wait_until(lambda: not session_processes(process.pid), 20)


def test_ctrl_c_ends_an_evaluation(finished_store: Path) -> None:
    command = [SCRIPT, "eval", "--all", "--store", str(finished_store), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in messages
