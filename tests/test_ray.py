"""launcher=ray on a cluster of its own and on one that runs already: real processes, really killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import error_of, long, petl, quickly
from tests.engines import PATIENCE, SWEEP, alive, assert_same, finish, first_at_work, refusal, start
from tests.processes import session_processes, wait_until

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")  # slow to import

RAY = ["launcher=ray", "launcher.workers=1", "launcher.heartbeat=1"]


def listening(session: int) -> set[str]:
    """The addresses of this machine at which processes of a session listen, as /proc/net writes them."""
    sockets = set()
    for pid in session_processes(session):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
"""127.0.0.1, the same as an address of IPv6, and ::1, in the byte order of /proc/net."""


def test_a_worker_killed_in_the_middle(tmp_path: Path, engine_reference: Path) -> None:
    with start(tmp_path / "store", *RAY, HOME=str(tmp_path)) as process:
        run_id, worker = first_at_work(tmp_path / "store")
        assert listening(process.pid)
        assert listening(process.pid) <= LOOPBACK
        os.kill(worker, signal.SIGKILL)
        messages = finish(process)
    assert f"{run_id}: its Ray process was killed" in messages
    assert "tried again" in messages
    assert len(messages.splitlines()) < 20  # Ray's own chatter is left out
    assert not (tmp_path / ".ray").exists()  # no token is kept
    assert_same(tmp_path / "store", engine_reference)
    wait_until(lambda: not session_processes(process.pid), PATIENCE)


@long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_everything_ends_with_an_interrupt(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path / "store", *RAY) as process:
        _, worker = first_at_work(tmp_path / "store")
        ours = set(session_processes(process.pid)) | {worker}
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert "Traceback" not in messages
    assert "***" not in messages  # as an aborted process of Ray writes
    wait_until(lambda: not any(map(alive, ours)) and not session_processes(process.pid), PATIENCE)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster of two CPUs that runs already, in another folder than the sweep's."""
    ray = str(Path(sys.executable).with_name("ray"))
    options = ["--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with subprocess.Popen(
        [ray, "start", *options, "--block"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"},
    ) as process:
        try:
            found = next(filter(None, (re.search(r"--address='([^']+)'", line) for line in process.stdout)))
            yield found[1]
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            wait_until(lambda: not session_processes(process.pid), PATIENCE)


@long
def test_a_cluster_that_runs_already(cluster: str, tmp_path: Path, engine_reference: Path) -> None:
    with start(tmp_path / "store", *RAY, f"launcher.address='{cluster}'") as process:
        finish(process)
    assert_same(tmp_path / "store", engine_reference)


def test_no_such_cluster(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    store = tmp_path / "s"
    message = refusal(quickly("sweep", "--store", store, *SWEEP, *RAY, f"launcher.address='{address}'"))
    assert f"launcher.address={address}: no Ray cluster answers there" in message


@long
def test_ray_cannot_start(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)  # sockets may have 107 bytes
    folder.mkdir()
    message = refusal(petl("sweep", "--store", tmp_path / "s", *SWEEP, *RAY, RAY_TMPDIR=str(folder)))
    assert "launcher=ray: Ray cannot start on this machine: " in message


@long
def test_a_token_of_a_cluster_is_made_private(tmp_path: Path) -> None:
    token = tmp_path / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o644)
    message = refusal(
        petl("sweep", "--store", tmp_path / "s", *SWEEP, *RAY, "launcher.address=auto", HOME=str(tmp_path))
    )
    assert "launcher.address=auto: " in message
    assert token.stat().st_mode & 0o777 == 0o600


def test_ray_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    message = refusal(quickly("sweep", "--store", tmp_path / "s", *SWEEP, *RAY))
    assert "pip install 'petl-bench[ray]'" in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["launcher=pool", "launcher.address=auto"], "launcher=ray"),
        (["launcher=ray", "launcher.partition=gpu"], "launcher=slurm"),
        (["launcher=ray", "launcher.gpus=1.5"], "launcher.gpus=1.5"),
        (["launcher=ray", "launcher.gpus=-1"], "launcher.gpus=-1"),
        (["launcher=ray", "launcher.address=auto", "precision=auto"], "precision=bf16"),
    ],
)
@pytest.mark.sampled(2)
def test_mistakes(tmp_path: Path, overrides: list[str], said: str) -> None:
    assert said in error_of(quickly("sweep", "--store", tmp_path / "s", *SWEEP, *overrides))
