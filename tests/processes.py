"""New processes for tests: as `subprocess`, but Python itself comes from tests.fork_server.

A new interpreter takes seconds to import torch. A process of the server has real ids, pipes and signals,
an environment, a folder and a session of its own, and the imports behind it.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SCRIPT = str(Path(sys.executable).with_name("petl-bench"))
ROOT = Path(__file__).parent.parent
READ_AT_START = ("PYTHONHASHSEED", "OMP_NUM_THREADS", "HF_ENDPOINT", "HF_HOME")
VARIABLE = "PETL_BENCH_FORK_SERVER"
"""Where the server of this session listens; xdist's workers share it."""
NESTED = "PETL_BENCH_FORK_NESTED"
"""Where this variable is `begin`, Python processes that the process starts come from a server, too."""


def start_server() -> None:
    """Start the server of this session, unless there is one; it ends with this process."""
    if VARIABLE in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix="petl-bench-")
    os.environ[VARIABLE] = f"{folder.name}/socket"
    command = [sys.executable, "-m", "tests.fork_server", os.environ[VARIABLE]]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def end() -> None:
        os.environ.pop(VARIABLE, None)
        server.stdin.close()
        server.wait()
        folder.cleanup()

    atexit.register(end)


def connect() -> socket.socket:
    """A connection to the server, once it listens."""
    start_server()
    connection = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + 120
    while True:
        try:
            connection.connect(os.environ[VARIABLE])
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < end, "the fork server does not start"
            time.sleep(0.02)
        else:
            return connection


STARTING = inspect.signature(subprocess.Popen._execute_child)


class Popen(subprocess.Popen[Any]):
    """As `subprocess.Popen`; `petl-bench ...`, `python -c ...` and `python -m ...` come from the server.

    Where the environment has another PYTHONPATH than this process, petl_bench is imported anew from there.
    Where it has another value of READ_AT_START, the process is a new interpreter.
    """

    connection: socket.socket | None = None

    def _execute_child(self, *arguments: object) -> None:
        given = STARTING.bind(self, *arguments).arguments
        command = [os.fspath(part) for part in given["args"] if part != "-u"]
        environment = os.environ if given["env"] is None else given["env"]
        anew = any(environment.get(name) != os.environ.get(name) for name in READ_AT_START)
        if anew or command[0] not in (SCRIPT, sys.executable):
            super()._execute_child(*arguments)
            return
        path = environment.get("PYTHONPATH", "")
        request = {
            "command": command[command[0] == sys.executable :],
            "environment": dict(environment),
            "folder": os.fspath(given["cwd"] or os.getcwd()),
            "path": path.split(os.pathsep) if path != os.environ.get("PYTHONPATH", "") else [],
            "session": given["start_new_session"],
        }
        ends = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        files = [number if end == -1 else end for number, end in enumerate(ends)]
        self.connection = connect()
        socket.send_fds(self.connection, [json.dumps(request).encode()], files)
        told = self.connection.recv(4)
        assert told, "the fork server has started no process"
        self.pid = int.from_bytes(told)
        self._child_created = True
        pipes = [given["p2cwrite"], given["c2pread"], given["errread"]]
        for end in {end for end, ours in zip(ends, pipes, strict=True) if ours != -1 or end == self._null}:
            os.close(end)
        self._closed_child_pipe_fds = True

    @property
    def _null(self) -> int | None:
        return getattr(self, "_devnull", None)

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self.connection is None:
            return super()._try_wait(flags)
        try:
            status = self.connection.recv(4, socket.MSG_DONTWAIT if flags & os.WNOHANG else 0)
        except BlockingIOError:
            return 0, 0
        assert status, "the fork server has lost the process"
        with self.connection:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.recv(1)  # until the process is no zombie any more
        return self.pid, int.from_bytes(status)

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None and self._child_created:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def run(
    command: Sequence[str | Path], timeout: float | None = 300, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run` with `capture_output=True, text=True`."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with Popen(command, **(pipes | options)) as process:
        try:
            out, messages = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, messages)
    if check:
        done.check_returncode()
    return done


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Poll until the condition holds; a limit only so that a hang becomes a failure."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(0.05)


def session_processes(leader: int) -> dict[int, str]:
    """Living processes (not zombies) of the session that `leader` began: pid -> name and command line."""
    found = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            state, _, _, session = (directory / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) != leader or state in "ZX":
                continue
            # tests.fork_server names its copies in comm
            text = b" ".join((directory / file).read_bytes() for file in ("comm", "cmdline"))
            command = text.replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found[int(directory.name)] = command
    return found


def workers_of(leader: int) -> list[int]:
    """The processes that do the runs of a pool: children of the server that forks them."""
    living = session_processes(leader)
    servers = {pid for pid, line in living.items() if "forkserver" in line and parent_of(pid) == leader}
    return [pid for pid in living if parent_of(pid) in servers]


def parent_of(pid: int) -> int:
    """0 where there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


if __name__ == "__main__":  # `python tests/processes.py -u -c ...`, as execnet starts a worker of xdist
    sys.exit(Popen([sys.executable, *sys.argv[1:]]).wait())
