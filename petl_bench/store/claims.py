"""Claims of runs, by which any number of processes on any number of machines share the runs of a store.

The claim of a run is the directory `.claims/RUN_ID` with one file in it, named after a token of its owner.

- A claim is taken by renaming a prepared directory to that name. This fails if the name belongs to a
  directory that holds a file.
- It is kept by touching the file every few seconds (heartbeats). Observers watch whether the modification
  time changes, by their own monotonic clock. Clocks of different machines are never compared.
- It is released by removing the file and then the directory. Removing a directory with the file of another
  process fails.
- It is taken over if its owner is dead: if the owner's process on the same machine has ended, or the file was
  not touched for MISSED heartbeats. Only the file with the dead owner's token is removed, so that of several
  processes that take over a claim only one succeeds.

A process that is suspended for longer loses its claim, and notices before it stores a result. No locks are
used: exclusive creation, rename and unlink are atomic, on NFS too.
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
from petl_bench.store.files import from_json

CLAIMS = ".claims"
MISSED = 8
"""Heartbeats without a touch after which a claim may be taken over."""
UNKNOWN_BEAT = 10.0
"""Seconds between heartbeats that are assumed if the file of an owner cannot be read."""


@dataclass(frozen=True)
class Owner:
    """Process that holds a claim.

    Attributes:
        machine: boot id and process namespace, within which process ids are unique; empty: unknown.
        born: start time of the process in ticks of its machine, since process ids are reused.
        heartbeat: seconds between two heartbeats.
    """

    host: str
    pid: int
    machine: str
    born: str
    heartbeat: float

    @property
    def dead(self) -> bool:
        """Whether the process is known to have ended; always False for processes of other machines."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"{self.host} process {self.pid}"


class ClaimedError(Exception):
    """Error of a claim that another process holds."""


def vanished(store: Path) -> StoreError:
    """Return the error of a store that was removed, or whose disk is not mounted any more, while in use."""
    return StoreError(
        f"store {store}: has vanished (its folder {CLAIMS} is gone); no new one is made in its place"
    )


class Claim:
    """Claim of this process; as a context manager it sends heartbeats, and releases the claim at the end."""

    def __init__(self, file: Path, heartbeat: float) -> None:
        self.file, self.heartbeat = file, heartbeat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def held(self) -> bool:
        """Whether this process still holds the claim."""
        try:
            self.file.read_bytes()  # reading asks the NFS server; os.stat may be answered from a cache
        except OSError:
            return False
        return True

    def require(self) -> None:
        """Check that this process still holds the claim.

        Raises:
            ClaimedError: another process has taken it over, because of missing heartbeats.
            StoreError: the store has vanished.
        """
        if not self.held:
            claims = self.file.parent.parent
            if not claims.is_dir():
                raise vanished(claims.parent)
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
                continue  # a file server may be unreachable for a while


@dataclass
class Claims:
    """Claims of a store, with this process' observations of other processes' heartbeats."""

    store: Path
    _seen: dict[Path, tuple[int, float]] = field(default_factory=dict)
    """Last modification time observed by file, and this process' clock when it was first observed."""

    @property
    def root(self) -> Path:
        return self.store / CLAIMS

    def take(self, run_id: str, heartbeat: float) -> Claim:
        """Take the claim of a run.

        Args:
            heartbeat: seconds between two heartbeats.

        Raises:
            ClaimedError: a living process holds it.
            StoreError: the store cannot be written, or has vanished since `Store.create`.
        """
        token = secrets.token_hex(8)
        owner = Owner(platform.node(), os.getpid(), _machine(), _born(os.getpid()) or "", heartbeat)
        prepared, place = self.root / f".{token}", self.root / run_id
        self.clear([run_id])
        try:
            prepared.mkdir()
            (prepared / token).write_text(json.dumps(asdict(owner)))
            os.rename(prepared, place)
        except OSError as error:
            claim = Claim(place / token, heartbeat)
            if claim.held:  # the file server did it, but its answer was lost
                return claim
            _remove(prepared / token)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ClaimedError(f"{run_id}: another process is at work on this run") from error
            if error.errno == errno.ENOENT:
                raise vanished(self.store) from error
            raise StoreError(f"store {self.store}: cannot claim runs there: {error.strerror}") from error
        return Claim(place / token, heartbeat)

    def owner(self, run_id: str) -> Owner | None:
        """Return the owner of a run's claim, alive or dead; None if there is none."""
        file = self._file(self.root / run_id)
        return None if file is None else _read(file)

    def running(self) -> set[str]:
        """Return the runs that are claimed by processes not known to be dead."""
        try:
            names = os.listdir(self.root)
        except OSError:
            return set()
        return {name for name in names if not name.startswith(".") and self.busy(name)}

    def busy(self, run_id: str) -> bool:
        """Return whether a run is claimed by a process not known to be dead."""
        owner = self.owner(run_id)
        return owner is not None and not owner.dead

    def clear(self, run_ids: Iterable[str]) -> list[str]:
        """Remove claims of dead owners, and return the runs that are unclaimed now.

        Owners on other machines count as dead once this object has observed no heartbeat for MISSED of their
        intervals, so it must be called repeatedly.
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
        """Remove claims of processes of this machine that have ended, also those not yet taken whole."""
        self.clear(place.name for place in self.root.glob("[!.]*"))
        for prepared in self.root.glob(".*"):
            for file in prepared.glob("*"):
                if (owner := _read(file)) is not None and owner.dead:
                    _remove(file)

    def _dead(self, file: Path) -> bool:
        """Return whether the owner of a claim file is dead, as far as this process can tell."""
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
        """Return the file of a claim; hidden files that NFS clients keep of removed ones are ignored."""
        try:
            return next((place / name for name in os.listdir(place) if not name.startswith(".")), None)
        except OSError:
            return None


def _remove(file: Path) -> None:
    """Remove the file of a claim and its directory, unless another process has put its file there."""
    for action, path in ((os.unlink, file), (os.rmdir, file.parent)):
        try:
            action(path)
        except OSError:
            continue


def _read(file: Path) -> Owner | None:
    """Return the owner that a claim file states; None if it is missing or damaged."""
    try:
        return Owner(**from_json(file))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


@cache
def _machine() -> str:
    """Return the boot id and process namespace of this machine; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """Return the start time of a living process of this machine; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        gone = (
            fields[0] in "ZX" and len(os.listdir(f"/proc/{pid}/task")) <= 1
        )  # no other thread is alive either
    except OSError:
        return None
    return None if gone else fields[19]
