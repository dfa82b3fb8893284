"""Real processes, real signals: what is finished stays, what is started ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from petl_bench.store import ADAPTER, ERROR
from tests import processes
from tests.conftest import COLUMNS, SCRIPT, json_lines, long, quickly, rows_of
from tests.engines import at_work
from tests.processes import parent_of, session_processes, wait_until, workers_of

# Interrupts: real processes, real signals

RUNS = 4
LONG = [
    "sweep=none",
    "task=digits",
    "adapter=linear",
    "train.epochs=6",
    f"seed=range(0,{RUNS})",
    "launcher.workers=2",
]


def start(store: Path, *more: str) -> subprocess.Popen[str]:
    """A sweep of RUNS runs in a session of its own."""
    command = [SCRIPT, "sweep", "--store", str(store), *LONG, *more, "--json"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return processes.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )


def servers_of(process: subprocess.Popen[str]) -> list[int]:
    """The fork servers of a sweep: one, or none yet."""
    living = session_processes(process.pid)
    return [pid for pid, line in living.items() if "forkserver" in line and parent_of(pid) == process.pid]


def assert_whole(store: Path, at_least: int) -> int:
    """Rows are valid, their files whole; returns how many of the RUNS are done."""
    rows = rows_of(store)
    assert at_least <= len(rows) < RUNS
    for row in rows:
        assert set(row) == COLUMNS
        assert (store / row["run_id"] / ADAPTER).stat().st_size == row["bytes_file"]
    return len(rows)


def finish(store: Path, done_before: int) -> None:
    """The same command completes the sweep, in this process."""
    done = quickly("sweep", "--store", store, *LONG[:-1], "launcher=local", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{done_before} in store" in done.stderr
    assert sorted(row["seed"] for row in json_lines(done.stdout)) == list(range(RUNS))
    assert len(rows_of(store)) == RUNS


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


def test_the_run_of_a_killed_worker_is_tried_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        process.stdout.readline()
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "its process was killed: SIGKILL (out of memory?); it will be tried again" in messages
    assert "Traceback" not in messages
    assert len(rows_of(store)) == RUNS
    wait_until(lambda: not session_processes(process.pid), 20)


def test_a_run_whose_process_is_killed_each_time_is_named_and_done_by_the_next_sweep(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store, "launcher.retries=0") as process:
        process.stdout.readline()
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "1 run failed (1 killed)" in messages
    assert assert_whole(store, 1) == RUNS - 1
    (failed,) = store.glob(f"*/{ERROR}")
    kept = json.loads(failed.read_text())
    assert (kept["cause"], kept["message"]) == ("killed", "its process was killed: SIGKILL (out of memory?)")
    again = quickly(*shlex.split(kept["command"])[1:], "--json")
    assert again.returncode == 0, again.stderr
    assert [row["run_id"] for row in json_lines(again.stdout)] == [failed.parent.name]
    assert not failed.exists()
    finish(store, RUNS)


def test_a_worker_killed_before_the_first_run_is_replaced(tmp_path: Path) -> None:
    with start(tmp_path / "store") as process:
        wait_until(lambda: workers_of(process.pid))
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "Traceback" not in messages
    assert len(rows_of(tmp_path / "store")) == RUNS
    wait_until(lambda: not session_processes(process.pid), 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_a_sweep_as_ctrl_c_does(tmp_path: Path, number: signal.Signals) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        wait_until(lambda: at_work(store))
        process.send_signal(number)  # to the sweep alone, as `kill` does
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    plan, *_, last = messages.splitlines()
    assert plan.endswith("to do")
    assert last == "interrupted: finished runs are kept; the same command continues from there"
    assert "Traceback" not in messages
    wait_until(lambda: not session_processes(process.pid), 20)
    assert not at_work(store)  # claims are given up


def test_the_claim_of_a_process_that_does_not_end_in_time_is_given_up(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        wait_until(lambda: at_work(store))
        os.kill(next(iter(at_work(store).values())), signal.SIGSTOP)  # it is killed after some seconds
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not at_work(store)


def test_a_killed_fork_server_is_replaced_and_its_processes_go_on(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        wait_until(lambda: servers_of(process))
        # Mostly before any process of it, so that another server is needed.
        os.kill(servers_of(process)[0], signal.SIGKILL)
        process.stdout.readline()
        at_first: dict[str, int] = {}
        wait_until(lambda: at_first.update(at_work(store)) or at_first)
        for server in servers_of(process):
            os.kill(server, signal.SIGKILL)
        os.kill(next(iter(at_first.values())), signal.SIGKILL)  # another is needed, and so another server
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "Traceback" not in messages
    assert len(rows_of(store)) == RUNS
    assert messages.count("it will be tried again") <= 1
    wait_until(lambda: not session_processes(process.pid), 20)


def test_a_store_that_vanishes_ends_the_sweep_and_is_not_made_anew(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(store) as process:
        process.stdout.readline()
        store.rename(tmp_path / "elsewhere")
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 2
    assert messages.splitlines()[-1].startswith(f"error: store {store}: has vanished")
    assert "Traceback" not in messages
    assert not store.exists()
    assert_whole(tmp_path / "elsewhere", 1)


# New interpreters, whose fork server takes seconds to import everything


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGKILL, False)]
    + [pytest.param(number, True, marks=long) for number in (signal.SIGTERM, signal.SIGHUP)],
)
@pytest.mark.sampled(2)
def test_a_sweep_that_ends_early_takes_its_server_along(
    tmp_path: Path, number: signal.Signals, group: bool
) -> None:
    command = [sys.executable, "-m", "petl_bench", "sweep", "--store", str(tmp_path / "store"), *LONG]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until(lambda: any(map(imports_torch, servers_of(process))))
        assert not workers_of(process.pid)
        (os.killpg if group else os.kill)(process.pid, number)
        _, messages = process.communicate(timeout=60)
        wait_until(lambda: not session_processes(process.pid), 20)  # its server ends, too
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in messages
    assert len(messages.splitlines()) <= 3  # the plan, the device, and that it was interrupted


def imports_torch(pid: int) -> bool:
    """Return whether a process has loaded a library of torch."""
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@long
def test_a_real_fork_server_is_killed_while_it_imports_and_later(tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "petl_bench", "sweep", "--store", str(store), *LONG]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until(lambda: any(map(imports_torch, servers_of(process))))
        os.kill(servers_of(process)[0], signal.SIGKILL)
        wait_until(lambda: rows_of(store))
        os.kill(servers_of(process)[0], signal.SIGKILL)
        _, messages = process.communicate(timeout=240)
    assert process.returncode == 0, messages
    assert "Traceback" not in messages
    assert len(rows_of(store)) == RUNS


def test_ctrl_c_ends_an_evaluation(finished_store: Path) -> None:
    command = [SCRIPT, "eval", "--all", "--store", str(finished_store), "--json"]
    with processes.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in messages


INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *others):
        if name == sys.argv[-1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["report", "--store", sys.argv[-1]]
from petl_bench.__main__ import main
main()
"""


@pytest.mark.parametrize("imported", ["typer", "petl_bench.report"])
def test_ctrl_c_during_imports_is_told_in_one_line(imported: str, tmp_path: Path) -> None:
    """The first is imported before the command line is there, the second by the command."""
    command = [sys.executable, "-c", INTERRUPTED, imported]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("sent", [b"", b"\x80\x04\x95\xff\x00"], ids=["nothing", "a part"])
def test_a_start_that_is_given_up_prints_nothing(sent: bytes) -> None:
    """The sweep may be interrupted after it has asked for a process, before that has been told its work."""
    program = f"""
import os
from multiprocessing import forkserver
from petl_bench.launch.pool import PRELOADED
forkserver.set_forkserver_preload(PRELOADED[:1])
status, told = forkserver.connect_to_new_process([])
os.write(told, {sent!r})
os.close(told)
os.read(status, 8)  # the pid
assert os.read(status, 8) == (1).to_bytes(8, "little"), "the process has not failed"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
