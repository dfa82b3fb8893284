"""Server of Python processes that have the heavy imports behind them; tests.processes talks to it.

`python -m tests.fork_server SOCKET` imports everything once. For each connection it forks a keeper, which
forks the process that was asked for (a command under test, or a worker of xdist), reports its process id and,
once it has ended, its status.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import itertools
import json
import logging
import multiprocessing.forkserver
import multiprocessing.util
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from tests import processes

PRELOADED = [
    "hypothesis",
    "petl_bench.cli.dry_run",
    "petl_bench.cli.stale",
    "petl_bench.data.hub",
    "petl_bench.launch.preload",
    "petl_bench.report.figures",
    "petl_bench.report.page",
    "petl_bench.report.records",
    "pyarrow.parquet",
    "rich.progress",
    "scipy.stats",
    "tensorboard.plugins.hparams.api_pb2",
    "torch._dynamo",
    "typer._adapters",
]


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals to a group of processes, which a server and its keepers outlive."""


def main(address: str) -> Callable[[], object]:
    """Serve until stdin is closed; returns in each process that was asked for, what that process runs."""
    gc.disable()  # the imports leave little to collect, and many objects to search
    for name in PRELOADED:
        with contextlib.suppress(Exception):  # said by the process that needs it
            importlib.import_module(name)
    with contextlib.suppress(Exception):  # the same
        warm_up()
    gc.collect()
    gc.freeze()  # collections in the processes leave these objects, and their shared pages, alone
    gc.enable()
    return serve(listening(address), 0)


def listening(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    return listener


def serve(listener: socket.socket, alive: int) -> Callable[[], object]:
    """Serve until the file `alive` ends; returns in each process that was asked for, what it runs."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while True:
        ready, _, _ = select.select([listener, alive], [], [])
        if alive in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return keep(connection)


def serve_session() -> Callable[[], object] | None:
    """Start a server for the Python processes of this session, which have no state of this process.

    It ends with this process, in which None is returned.
    """
    address = f"{os.environ[processes.VARIABLE]}-{os.getpid()}"
    listener = listening(address)
    alive, held = os.pipe()
    if os.fork() == 0:
        os.close(held)
        return serve(listener, alive)
    listener.close()
    os.close(alive)  # the other end is open until this process has ended
    os.environ[processes.VARIABLE] = address
    return None


def warm_up() -> None:
    """Compose the configurations and parse the sources that most processes need."""
    from PIL import Image

    from petl_bench.config import plan
    from petl_bench.run.source import sources

    Image.preinit()
    small = ["sweep=none", "task=vtab_clevr_count,digits", "adapter=linear,adaptformer,lora"]
    for overrides in ([], ["sweep=default"], small, [*small, "protocol=fixed", "scale=1"]):
        for spec in plan(overrides).runs:
            sources(spec)


def keep(connection: socket.socket) -> Callable[[], object]:
    """Fork the process, tell its id and its status; as a parent does, let go of it when told."""
    message, files, _, _ = socket.recv_fds(connection, 2**20, 3)
    request = json.loads(message)
    if (pid := os.fork()) == 0:
        return prepare(request, files)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):  # the one who asked has ended
        connection.sendall(pid.to_bytes(4))
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        status = end.si_status << 8 if end.si_code == os.CLD_EXITED else end.si_status
        connection.sendall(status.to_bytes(4))
        connection.recv(1)
    os.waitpid(pid, 0)
    os._exit(0)


def prepare(request: dict[str, Any], files: Sequence[int]) -> Callable[[], object]:
    """Make this process what a new interpreter would be; returns what it runs."""
    if request["session"]:
        os.setsid()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # one of them nohup ignores
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), "utf-8")
    sys.stdout = sys.__stdout__ = stream(1, "strict")
    sys.stderr = sys.__stderr__ = stream(2, "backslashreplace")
    multiprocessing.util.spawnv_passfds = fork_instead
    nested = os.environ.get(processes.NESTED)
    if nested:
        subprocess.Popen = processes.Popen
    if nested == "begin":
        os.environ[processes.NESTED] = "go on"
        if (other := serve_session()) is not None:
            return other
    sys.path[1:1] = request["path"]
    if request["path"]:  # another petl_bench, perhaps
        for name in [name for name in sys.modules if name.partition(".")[0] == "petl_bench"]:
            del sys.modules[name]
    return program(*request["command"])


def program(first: str, *arguments: str) -> Callable[[], object]:
    """What `python FIRST ARGUMENTS` runs, where FIRST is -m, -c or a script."""
    if first == "-m":
        sys.path[0], sys.argv = os.getcwd(), list(arguments)
        return lambda: runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    sys.modules["__main__"] = module = ModuleType("__main__")
    if first == "-c":
        sys.path[0], sys.argv, text = "", ["-c", *arguments[1:]], arguments[0]
    else:
        sys.path[0], sys.argv, text = str(Path(first).parent), [first, *arguments], Path(first).read_text()
        module.__file__ = first
    return lambda: exec(compile(text, first, "exec"), module.__dict__)


def run(program: Callable[[], object]) -> NoReturn:
    """Run it and end as Python does, but for the second that it takes to free every object."""
    code: object = None
    try:
        program()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code or 0)


def stream(number: int, errors: str) -> io.TextIOWrapper:
    """The text stream that Python makes of a standard one."""
    encoding, _, given = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    at_once = "PYTHONUNBUFFERED" in os.environ
    raw = io.FileIO(number, "w", closefd=False)
    binary = raw if at_once else io.BufferedWriter(raw)
    lines = number == 2 or os.isatty(number)
    return io.TextIOWrapper(binary, encoding, given or errors, line_buffering=lines, write_through=at_once)


spawn = multiprocessing.util.spawnv_passfds


def fork_instead(path: bytes, command: Sequence[str], files: Sequence[int]) -> int:
    """Start a process of multiprocessing; one that imports torch as a fork, which has the imports too."""
    text, *arguments = command[command.index("-c") + 1 :]
    kind = next((kind for kind in ("forkserver", "spawn") if f"multiprocessing.{kind} " in text), None)
    if kind is None:
        return spawn(path, command, files)
    if (pid := os.fork()) != 0:
        return pid
    Path("/proc/self/comm").write_text(kind)  # for tests.processes.workers_of
    logging.root.handlers.clear()  # those of pytest write to a file whose number another one gets here
    sys.argv = ["-c", *arguments]
    kept = [2, *sorted(files), os.sysconf("SC_OPEN_MAX")]
    for before, after in itertools.pairwise(kept):
        os.closerange(before + 1, after)
    multiprocessing.forkserver._forkserver.__init__()
    run(lambda: exec(text, {"__name__": "__main__"}))


if __name__ == "__main__":
    run(main(sys.argv[1]))
