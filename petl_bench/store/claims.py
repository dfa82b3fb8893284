"""Who is at work on a run: claims that any number of processes on any number of machines respect.

The claim of a run is the directory `.claims/RUN_ID` with one file in it, whose name is its owner's token.

- Taken by renaming a prepared directory to that name, which fails where a directory with a file has the name.
- Kept by touching the file every few seconds. An observer watches whether the file's time changes, on its own
  monotonic clock: clocks of machines are never compared, so they may be wrong or be set.
- Given up by removing the file, then the directory; removing a directory with another's file in it fails.
- Taken over where the owner is gone: its process, on the same machine; or nothing was touched for MISSED
  beats. Only the file with the dead owner's token is removed, so of several that take a claim over, one gets
  it.

A process that is paused for longer loses its claim and sees that before it keeps a result. All of it is
create-exclusive, rename and unlink, which NFS does atomically; there are no locks.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType

from petl_bench.errors import StoreError

CLAIMS = ".claims"
MISSED = 8
"""Beats without a sign of life after which a claim may be taken over."""
UNKNOWN_BEAT = 10.0
"""Seconds, of an owner whose file a disk has spoiled."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a claim."""

    host: str
    pid: int
    machine: str
    """Boot and process namespace: where these are the same, pids mean the same. Empty where unknown."""
    born: str
    """When the process started, as its machine counts: a pid may be given again."""
    heartbeat: float
    """Seconds between two signs of life."""

    @property
    def dead(self) -> bool:
        """Whether the process is known to be gone; False for those of other machines."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"{self.host} process {self.pid}"


class ClaimedError(Exception):
    """Another process is at work on the run."""


class Claim:
    """A claim of this process; a context manager that keeps it and gives it up."""

    def __init__(self, file: Path, heartbeat: float) -> None:
        self.file, self.heartbeat = file, heartbeat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def held(self) -> bool:
        """Whether nobody has taken it over."""
        try:
            self.file.read_bytes()  # reading asks an NFS server, where looking may not
        except OSError:
            return False
        return True

    def require(self) -> None:
        """Raises ClaimedError where another process has taken it over, for want of a sign of life."""
        if not self.held:
            raise ClaimedError(f"{self.file.parent.name}: another process has taken this run over")

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        _remove(self.file)

    def _beat(self) -> None:
        while not self._over.wait(self.heartbeat):
            try:
                os.utime(self.file)
            except FileNotFoundError:
                return  # taken over
            except OSError:
                continue  # a server that is away for a while


@dataclass
class Claims:
    """The claims of a store, and what this process has seen of those of others."""

    store: Path
    _seen: dict[Path, tuple[int, float]] = field(default_factory=dict)
    """By file: its time when last seen to change, and our clock then."""

    @property
    def root(self) -> Path:
        return self.store / CLAIMS

    def take(self, run_id: str, heartbeat: float) -> Claim:
        """The claim of a run.

        Args:
            heartbeat: seconds between two signs of life.

        Raises:
            ClaimedError: a living process has it.
            StoreError: the store cannot be written.
        """
        token = secrets.token_hex(8)
        owner = Owner(platform.node(), os.getpid(), _machine(), _born(os.getpid()) or "", heartbeat)
        prepared, place = self.root / f".{token}", self.root / run_id
        self.clear([run_id])
        try:
            prepared.mkdir(parents=True)
            (prepared / token).write_text(json.dumps(asdict(owner)))
            os.rename(prepared, place)
        except OSError as error:
            claim = Claim(place / token, heartbeat)
            if claim.held:  # a server that did it and lost its answer
                return claim
            _remove(prepared / token)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ClaimedError(f"{run_id}: another process is at work on this run") from error
            raise StoreError(f"store {self.store}: cannot claim runs there: {error.strerror}") from error
        return Claim(place / token, heartbeat)

    def owner(self, run_id: str) -> Owner | None:
        """Who is at work on a run, alive or not."""
        file = self._file(self.root / run_id)
        return None if file is None else _read(file)

    def running(self) -> set[str]:
        """The runs that processes are at work on, as far as they are not known to be dead."""
        try:
            names = os.listdir(self.root)
        except OSError:
            return set()
        return {name for name in names if not name.startswith(".") and self.busy(name)}

    def busy(self, run_id: str) -> bool:
        """Whether a process is at work on a run, as far as it is not known to be dead."""
        owner = self.owner(run_id)
        return owner is not None and not owner.dead

    def clear(self, run_ids: Iterable[str]) -> list[str]:
        """Remove the claims of dead owners; returns the runs that nobody has claimed now.

        Owners on other machines are dead when this object has seen no sign of life for MISSED of their
        beats: call it again and again.
        """
        free = []
        for run_id in run_ids:
            file = self._file(self.root / run_id)
            if file is not None and self._dead(file):
                _remove(file)
                file = self._file(self.root / run_id)
            if file is None:
                free.append(run_id)
        return free

    def tidy(self) -> None:
        """Remove what processes left that died while they took a claim."""
        for prepared in self.root.glob(".*"):
            for file in prepared.glob("*"):
                if (owner := _read(file)) is not None and owner.dead:
                    _remove(file)

    def _dead(self, file: Path) -> bool:
        owner = _read(file)
        if owner is not None and owner.dead:
            return True
        try:
            with file.open("rb") as opened:
                touched = os.fstat(opened.fileno()).st_mtime_ns
        except OSError:
            return False
        now = time.monotonic()
        before, since = self._seen.get(file, (None, now))
        if before != touched:
            self._seen[file] = (touched, now)
            return False
        return now - since > MISSED * (owner.heartbeat if owner is not None else UNKNOWN_BEAT)

    def _file(self, place: Path) -> Path | None:
        """The one file of a claim; what an NFS client hides there of a removed one is none."""
        try:
            return next((place / name for name in os.listdir(place) if not name.startswith(".")), None)
        except OSError:
            return None


def _remove(file: Path) -> None:
    """A claim's file and its directory; not a directory that another process has filled since."""
    for action, path in ((os.unlink, file), (os.rmdir, file.parent)):
        try:
            action(path)
        except OSError:
            continue


def _read(file: Path) -> Owner | None:
    """None for a file that is gone, or that a disk has spoiled."""
    try:
        return Owner(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """When a living process of this machine started; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        gone = fields[0] in "ZX" and len(os.listdir(f"/proc/{pid}/task")) <= 1  # its other threads, too
    except OSError:
        return None
    return None if gone else fields[19]
