"""One small sweep for tests that interrupt launcher=ray and launcher=slurm."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from petl_bench.store import ADAPTER
from tests import processes
from tests.conftest import COLUMNS, rows_of
from tests.processes import SCRIPT, wait_until

SWEEP = [
    "--config-dir",
    str(Path(__file__).with_name("plugin")),
    "sweep=none",
    "task=digits",
    "adapter=linear,plain_lora",  # the second is that of a plug-in
    "seed=0,1",
    "train.epochs=1",
    "protocol=fixed",
    "scale=1",
]
COUNT = 4
"""Number of runs of SWEEP."""
PATIENCE = 300
"""Limit in seconds after which a hang is a failure."""


def start(store: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """Start the sweep in a new session."""
    return processes.Popen(
        [SCRIPT, "sweep", "--store", str(store), *SWEEP, *overrides, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    )


def at_work(store: Path) -> dict[str, int]:
    """Return the processes of the runs in progress."""
    found = {}
    for file in store.glob(".claims/[!.]*/[!.]*"):
        try:
            found[file.parent.name] = json.loads(file.read_text())["pid"]
        except OSError:  # done in between
            continue
    return found


def first_at_work(store: Path) -> tuple[str, int]:
    """Wait for a run in progress; return its identity and its process."""
    wait_until(lambda: at_work(store), PATIENCE)
    return next(iter(at_work(store).items()))


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a sweep to complete with only JSON lines on stdout; return what it wrote to stderr."""
    out, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, messages
    assert len({json.loads(line)["run_id"] for line in out.splitlines()}) == len(out.splitlines()) == COUNT
    return messages


def assert_same(store: Path, reference: Path) -> None:
    """Check that all rows are there, and that adapter files equal those of the reference byte by byte."""
    rows, expected = rows_of(store), rows_of(reference)
    assert [row["run_id"] for row in rows] == [row["run_id"] for row in expected]
    assert len(rows) == COUNT
    for row in rows:
        assert set(row) == COLUMNS
        files = [(folder / row["run_id"] / ADAPTER).read_bytes() for folder in (store, reference)]
        assert files[0] == files[1]
    assert not at_work(store)


def alive(process: int) -> bool:
    """Return whether a process is running and not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only message after that of the plan, of a command that exits with 2."""
    assert (done.returncode, done.stdout) == (2, "")
    plan, *_, message = done.stderr.splitlines()
    assert plan.endswith("to do")
    assert "a bug of petl-bench" not in message
    return message.removeprefix("error: ")
