"""Processes of this machine: one per GPU, or one for every `threads` cores of the CPU."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from petl_bench import plugins
from petl_bench.device import cores_here, find_devices
from petl_bench.errors import UserError, counted, presentable
from petl_bench.launch.base import Round
from petl_bench.types import Job, Outcome, PoolSettings, RunSpec, Runtime

PRELOADED = ["petl_bench.end_with_parent", "petl_bench.cli", "petl_bench.launch.preload"]
"""Modules that the fork server imports once for all processes, so that a new process starts at once."""
PATIENCE = 5
"""Number of times in a row that a process may die before it is ready."""
GRACE = 5.0
"""Seconds that a process has for giving up its claim when it is told to end."""
UNKNOWN = 255
"""Exit code that multiprocessing states for a process whose fork server has ended."""
REMAINS = 60.0
"""Seconds that a killed fork server may take to disappear; until then no other can start."""


def launch(work: Round[PoolSettings]) -> Generator[Outcome, None, None]:
    """Yield the outcomes as they finish.

    When a process dies, its run has the outcome `killed` and the process is replaced, as is one whose device
    failed. Closing the generator, or an interrupt, ends all processes at once.

    Raises:
        UserError: there is no such device, or a model of the plan cannot be built; nothing has run then.
    """
    settings, devices = work.settings, find_devices(work.settings.device)
    cores = cores_here()
    automatic = max(1, cores // settings.threads) if devices == ["cpu"] else len(devices)
    count = min(settings.workers or automatic, len(work.jobs))
    todo = list(reversed(work.jobs))
    share = -(-count // len(devices))
    workers = [_Worker(work.on(devices[i % len(devices)], cores // count), share) for i in range(count)]
    workers[0].specs = work.unchecked
    try:
        while todo or any(worker.job for worker in workers):
            for worker in workers[:1] if workers[0].specs else workers:
                worker.use(todo)
            waited = {worker.connection: worker for worker in workers if worker.connection is not None}
            if all(worker.retired for worker in workers):
                raise UserError(
                    f"launcher.device={settings.device}: failed, and no new process can use it; "
                    f"{counted(len(todo), 'run')} left"
                )
            ready = wait(list(waited)) if waited else []  # none where none could be started
            for worker in (worker for connection, worker in waited.items() if connection in ready):
                outcome = worker.result()
                worker.use(todo)
                if outcome is not None:
                    yield outcome
    finally:
        _await_end(*[worker.end() for worker in workers])


@dataclass
class _Worker:
    """A process that builds models once and then executes runs in sequence; it is replaced if it dies."""

    runtime: Runtime
    share: int = 1
    """Number of processes that use its device."""
    specs: Sequence[RunSpec] = ()
    """Runs whose models it builds before any run; empty once it has."""
    connection: Connection | None = None
    process: BaseProcess | None = None
    ready: bool = False
    job: Job | None = None
    deaths: int = 0
    """Number of times in a row that it died before it was ready."""
    retired: bool = False
    """Whether its device can no longer be used."""

    def use(self, todo: list[Job]) -> None:
        """Give the process the next run if it is ready for one, or start it if necessary."""
        if not todo or self.retired or self.job is not None:
            return
        if self.connection is None:
            self._start()
        elif self.ready:
            self.job = todo.pop()
            with suppress(OSError):  # dead: its end of the connection says so
                self.connection.send(self.job)

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        connection, other = context.Pipe()
        process = context.Process(target=_work, args=(other, self.runtime, self.specs, self.share))
        try:
            _start(process)
        except (OSError, EOFError):  # the fork server was killed; the next start begins another
            self._count_death("the server that starts them ended")
        else:
            self.connection, self.process = connection, process
        finally:
            other.close()

    def _count_death(self, how: str) -> None:
        self.deaths += 1
        if self.deaths == PATIENCE:
            raise UserError(f"worker processes were killed before they had built the models: {how}")

    def result(self) -> Outcome | None:
        """Return the outcome of its run, or None if its message is about the process itself.

        Raises:
            UserError: the models cannot be built, or the process dies repeatedly while it builds them.
        """
        assert self.connection is not None
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self._dead()
        if isinstance(message, Outcome):
            self.job = None
            if message.cause in ("device", "memory") and self.runtime.device != "cpu":
                _await_end(self.end())  # errors of a GPU stay with the process, and so does its memory
            return message
        if isinstance(message, UserError):
            if self.specs:
                raise message
            self.retired = True
            self.end()
            return None
        self.ready, self.deaths, self.specs = True, 0, ()
        return None

    def _dead(self) -> Outcome | None:
        assert self.process is not None
        self.process.join()
        how, job, was_ready = _how(self.process.exitcode), self.job, self.ready
        self.end()
        if job is not None:
            return Outcome(job.run_id, job.spec, error=f"its process was killed: {how}", cause="killed")
        if not was_ready:
            self._count_death(how)
        return None

    def end(self) -> BaseProcess | None:
        """Tell the process to end and return it, if there is one."""
        process = self.process
        if self.connection is not None and process is not None:
            self.connection.close()
            process.terminate()
        self.connection, self.process, self.job, self.ready = None, None, None, False
        return process


def _await_end(*ending: BaseProcess | None) -> None:
    """Wait until processes that were told to end have done so, and kill those that do not."""
    deadline = time.monotonic() + GRACE
    for process in filter(None, ending):
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join(GRACE)


def _start(process: BaseProcess) -> None:
    """Start a process by the fork server, and that server if there is none.

    The server, and so its processes, are started with SIGINT blocked, since Ctrl-C is the parent's matter.

    Raises:
        OSError, EOFError: the server ended meanwhile.
    """
    deadline = time.monotonic() + REMAINS
    while True:
        multiprocessing.resource_tracker.ensure_running()  # else started below, where it unblocks SIGINT
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            return process.start()
        except ConnectionRefusedError:  # a server that was killed, and whose memory is still being freed
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _how(code: int | None) -> str:
    """Return an exit code in words."""
    if code == UNKNOWN:
        return "it is unknown how, for the server that started it had ended"
    if code == -signal.SIGKILL:
        return "SIGKILL (out of memory?)"
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _work(connection: Connection, runtime: Runtime, specs: Sequence[RunSpec], share: int) -> None:
    """Execute in a worker: send None (ready) or a UserError, then an outcome for every job received."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    signal.signal(signal.SIGTERM, _leave)
    _end_with_parent()
    from petl_bench.device import open_device
    from petl_bench.launch.preload import attempt, memory, preflight

    gc.freeze()  # objects of the imports are never garbage: collections need not search them
    try:
        # The process that builds the models tells which files of plug-ins cannot be used; one is enough.
        plugins.use(runtime.config_dirs, _warn if specs else None)
        open_device(runtime.device)
        preflight(specs)
        memory.warn(specs, runtime.device, share, _warn)
    except UserError as error:
        connection.send(error)
        return
    with suppress(EOFError, OSError):  # the parent has ended
        connection.send(None)
        while True:
            connection.send(attempt(connection.recv(), runtime))


def _leave(number: int, frame: object) -> None:
    """End this process, which gives its claim up; another signal does not disturb it."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _warn(fault: str) -> None:
    print(presentable(f"warning: {fault}"), file=sys.stderr, flush=True)


def _end_with_parent() -> None:
    """Make this process give its claim up and end when its parent does, however the parent ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
