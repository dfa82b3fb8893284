"""What a store holds: one directory a run. A run is done when its row.json is there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from petl_bench.errors import DamagedError, UserError, did_you_mean
from petl_bench.store.claims import Claims
from petl_bench.store.files import from_json
from petl_bench.types import (
    NO_FAULT,
    Job,
    OtherVersionError,
    Outcome,
    ResultRow,
    RunSpec,
    row_from_dict,
    spec_from_dict,
)

ADAPTER = "adapter.safetensors"
ROW = "row.json"
SPEC = "spec.json"
ERROR = "error.json"
SEARCH = "search.json"
LOG = "run.log"
CHECKPOINTS = "checkpoints"
FILES = (ADAPTER, ROW, SPEC, ERROR, SEARCH)
_FOREIGN = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, UserError)
"""What parsing a file raises that is not ours, or no longer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Runs:
    """A directory of finished and failed runs, to read."""

    root: Path

    def directory(self, run_id: str) -> Path:
        return self.root / run_id

    def checkpoints(self, run_id: str) -> Path:
        """The folder of the run's checkpoints, one file a training; made with the first of them."""
        return self.directory(run_id) / CHECKPOINTS

    @property
    def claims(self) -> Claims:
        return Claims(self.root)

    def state(self, run_id: str) -> str:
        """What is known of a run.

        `done`, `failed`, `killed` (the process or the device failed, not the run), `missing`, or `damaged`
        where there is a row or a failure that cannot be read.
        """
        if self.fault(run_id):
            return "damaged"
        if self._has(run_id, ROW):
            return "done"
        if not self._has(run_id, ERROR):
            return "missing"
        return "killed" if self.failure(run_id)["cause"] in NO_FAULT else "failed"

    def fault(self, run_id: str) -> str:
        """Path and reason of a damaged run; empty for others."""
        try:
            if self._has(run_id, ROW):
                self._own_row(run_id)
            elif self._has(run_id, ERROR):
                self.failure(run_id)
        except DamagedError as error:
            return f"{error.path}: {error.why}"
        return ""

    def stamp(self, run_id: str) -> str:
        """What tells the result or failure that a run has now from any later one; empty where it has none."""
        for name in (ROW, ERROR):
            try:
                content = (self.directory(run_id) / name).read_bytes()
            except OSError:
                continue
            return hashlib.sha256(content).hexdigest()
        return ""

    def news(self, job: Job) -> Outcome | None:
        """What another process has made of a run since it was planned; None where nothing."""
        if self.stamp(job.run_id) in ("", job.seen):
            return None
        if (self.directory(job.run_id) / ROW).is_file():
            return Outcome(job.run_id, job.spec, row=self.row(job.run_id), elsewhere=True)
        failure = self.failure(job.run_id)
        message, cause = failure["message"], failure["cause"]
        return Outcome(job.run_id, job.spec, error=message, cause=cause, elsewhere=True)

    def row(self, run_id: str) -> ResultRow:
        """The row of a finished run.

        Raises:
            DamagedError: the run is not finished, or its row cannot be read.
        """
        return self._read(self.directory(run_id) / ROW, row_from_dict)

    def spec(self, run_id: str) -> RunSpec:
        """What a run was to be.

        Raises:
            DamagedError: it cannot be read.
        """
        return self._read(self.directory(run_id) / SPEC, spec_from_dict)

    def failure(self, run_id: str) -> dict[str, str]:
        """What error.json says of a failed run: message, cause and more.

        Raises:
            DamagedError: it cannot be read.
        """
        return self._read(
            self.directory(run_id) / ERROR,
            lambda values: {"cause": "error"} | {key: str(values[key]) for key in ["message", *values]},
        )

    def names(self) -> list[str]:
        """All that is in the store, but for names with a leading dot.

        Raises:
            UserError: there is no such store, or it cannot be read.
        """
        try:
            return sorted(name for name in os.listdir(self.root) if not name.startswith("."))
        except FileNotFoundError as error:
            what = "no such directory"
            cause: OSError = error
        except NotADirectoryError as error:
            what, cause = "is a file, not a directory", error
        except OSError as error:
            raise UserError(f"store {self.root}: cannot be read: {error.strerror}") from error
        raise UserError(f"store {self.root}: {what}; `petl-bench sweep --store DIR` makes one") from cause

    def rows(self, caution: Callable[[DamagedError], None] | None = None) -> Iterator[ResultRow]:
        """All finished runs, by run_id.

        Args:
            caution: told of each run whose row cannot be used, which is then left out.

        Raises:
            UserError: there is no such store, or it cannot be read.
            DamagedError: a row cannot be used, and no `caution` is given.
        """
        for name in self.names():
            try:
                if os.path.isdir(self.directory(name)) and self._has(name, ROW):
                    yield self._own_row(name)
            except DamagedError as error:
                if caution is None:
                    raise
                caution(error)

    def failures(self) -> list[str]:
        """The run_ids of all runs that failed and have no row."""
        return [name for name in self.names() if self.state(name) in ("failed", "killed")]

    def find(self, run_id: str) -> str:
        """The full run_id of a finished run; an unambiguous beginning is enough."""
        known = [path.parent.name for path in self.root.glob(f"[!.]*/{ROW}")]
        found = [name for name in known if name.startswith(run_id)]
        if len(found) != 1:
            what = "fits several runs" if found else "is no finished run"
            raise UserError(f"{run_id!r} {what} of store {self.root}: {did_you_mean(run_id, found or known)}")
        return found[0]

    def _own_row(self, name: str) -> ResultRow:
        """A copied or renamed directory holds the row of another run, which would count twice."""
        row = self.row(name)
        if row.run_id != name:
            raise self._damaged(self.directory(name) / ROW, f"it is the row of run {row.run_id}")
        return row

    def _has(self, run_id: str, name: str) -> bool:
        """Whether a run has a file, readable or not."""
        directory = self.directory(run_id)
        try:
            os.lstat(directory / name)
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.lexists(directory) and not os.path.isdir(directory):
                raise self._damaged(directory, "it stands where a run's directory belongs") from error
            return False
        except OSError as error:
            raise self._unreadable(directory, error) from error
        return True

    def _read(self, path: Path, parse: Callable[[Any], T]) -> T:
        try:
            return parse(from_json(path))
        except OSError as error:
            raise self._unreadable(path, error) from error
        except OtherVersionError as error:
            raise self._damaged(path, str(error), "newer" if error.newer else "older") from error
        except _FOREIGN as error:
            raise self._damaged(path, str(error) or type(error).__name__) from error

    def _unreadable(self, path: Path, error: OSError) -> DamagedError:
        kinds = {PermissionError: "forbidden", FileNotFoundError: "missing"}
        return self._damaged(
            path, f"cannot be read: {error.strerror or error}", kinds.get(type(error), "unreadable")
        )

    def _damaged(self, path: Path, why: str, kind: str = "damaged") -> DamagedError:
        way_out = f"`petl-bench store check --repair --store {self.root}` sets the run aside"
        return DamagedError(str(path), why, kind, "" if kind in ("forbidden", "missing") else way_out)
