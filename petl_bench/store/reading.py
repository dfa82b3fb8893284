"""Reading of a store: one directory per run. A run is done if its row.json exists."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from petl_bench.errors import DamagedError, StoreError, UserError
from petl_bench.files import RECORD_LIMIT, content, read_bytes
from petl_bench.store.agreement import checked
from petl_bench.store.claims import Claims
from petl_bench.store.files import (
    ADAPTER,
    CHECKPOINTS,
    ERROR,
    EVENTS,
    FILES,
    LOG,
    PREDICTIONS,
    ROW,
    RUN_ID,
    SPEC,
    from_json,
)
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

if TYPE_CHECKING:
    from petl_bench.packing import Predictions

_FOREIGN = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, UserError)
"""Errors of parsing a file that this version did not write."""

T = TypeVar("T")


@dataclass(frozen=True)
class Runs:
    """Directory of finished and failed runs, for reading."""

    root: Path

    def directory(self, run_id: str) -> Path:
        return self.root / run_id

    def checkpoints(self, run_id: str) -> Path:
        """Return the folder of a run's checkpoints, one file per training; created with the first of them."""
        return self.directory(run_id) / CHECKPOINTS

    @property
    def claims(self) -> Claims:
        return Claims(self.root)

    def check_place(self) -> None:
        """Check that a store is or can be there.

        Raises:
            StoreError: its path is no directory, cannot be read, or has a name that not all libraries take.
        """
        where = f"store {self.root}: "
        try:
            str(self.root.absolute()).encode()
            if not stat.S_ISDIR(os.stat(self.root).st_mode):
                raise StoreError(f"{where}is a file, not a directory")
        except UnicodeEncodeError as error:
            raise StoreError(f"{where}its path is not UTF-8, as TensorBoard needs it") from error
        except FileNotFoundError as error:
            if os.path.lexists(self.root):
                raise StoreError(
                    f"{where}is a link to {os.readlink(self.root)}, which is not there"
                ) from error
        except OSError as error:
            raise StoreError(f"{where}cannot be read: {error.strerror}") from error

    def state(self, run_id: str) -> str:
        """Return the state of a run.

        Returns:
            `done`, `failed`, `killed` (its process or device failed, not the run itself), `missing`, or
            `damaged` if its row or error.json cannot be read.
        """
        if self.fault(run_id):
            return "damaged"
        if self._has(run_id, ROW):
            return "done"
        if not self._has(run_id, ERROR):
            return "missing"
        return "killed" if self.failure(run_id)["cause"] in NO_FAULT else "failed"

    def fault(self, run_id: str) -> str:
        """Return the damaged file of a run with the reason; empty for runs that are not damaged."""
        try:
            if self._has(run_id, ROW):
                self._own_row(run_id)
            elif self._has(run_id, ERROR):
                self.failure(run_id)
        except DamagedError as error:
            return f"{error.path}: {error.why}"
        return ""

    def stamp(self, run_id: str) -> str:
        """Return a hash of the result or failure that a run has now; empty if it has none."""
        for name in (ROW, ERROR):
            try:
                content = read_bytes(self.directory(run_id) / name, RECORD_LIMIT)
            except UserError:
                continue
            return hashlib.sha256(content).hexdigest()
        return ""

    def outcome_elsewhere(self, job: Job) -> Outcome | None:
        """Return the outcome that another process has stored since a run was planned, if any."""
        if self.stamp(job.run_id) in ("", job.seen):
            return None
        if (self.directory(job.run_id) / ROW).is_file():
            return Outcome(job.run_id, job.spec, row=self.row(job.run_id), elsewhere=True)
        failure = self.failure(job.run_id)
        message, cause = failure["message"], failure["cause"]
        return Outcome(job.run_id, job.spec, error=message, cause=cause, elsewhere=True)

    def row(self, run_id: str) -> ResultRow:
        """Return the row of a finished run; columns that an old row lacks are taken from its spec.

        Raises:
            DamagedError: the run is not finished, its row cannot be read, or it contradicts the spec or the
                size of the adapter file (petl_bench.store.agreement).
        """
        directory, spec = f"{self.root}/{run_id}", None  # pathlib would take a fifth of the time
        with suppress(OSError, ValueError):
            spec = content(f"{directory}/{SPEC}", RECORD_LIMIT)
        row = self._read(f"{directory}/{ROW}", lambda values: checked(values, spec))
        with suppress(OSError):
            size = os.stat(f"{directory}/{ADAPTER}").st_size
            if size != row.bytes_file:
                raise self._damaged(f"{directory}/{ROW}", f"bytes_file is {row.bytes_file}, but {size}")
        return row

    def written_row(self, run_id: str) -> ResultRow:
        """Return the row of a finished run as it is written; `row` compares it with other files."""
        return self._read(self.directory(run_id) / ROW, row_from_dict)

    def spec(self, run_id: str) -> RunSpec:
        """Return the spec of a run.

        Raises:
            DamagedError: spec.json cannot be read.
        """
        return self._read(self.directory(run_id) / SPEC, spec_from_dict)

    def predictions(self, run_id: str) -> Predictions | None:
        """Return the predictions of a run on the test images; None if it has not kept them.

        Raises:
            DamagedError: their file cannot be read.
        """
        from petl_bench.packing import unpack_predictions

        path = self.directory(run_id) / PREDICTIONS
        if not self._has(run_id, PREDICTIONS):
            return None
        try:
            return unpack_predictions(read_bytes(path, RECORD_LIMIT), str(path))
        except UserError as error:
            raise self._damaged(path, str(error).removeprefix(f"{path}: ")) from error

    def failure(self, run_id: str) -> dict[str, str]:
        """Return the content of error.json of a failed run: message, cause and more.

        Raises:
            DamagedError: error.json cannot be read.
        """
        return self._read(
            self.directory(run_id) / ERROR,
            lambda values: {"cause": "error"} | {key: str(values[key]) for key in ["message", *values]},
        )

    def own_files(self, run_id: str) -> list[Path]:
        """Return the files that belong to a run, without checkpoints and temporary files."""
        directory = self.directory(run_id)
        places = [directory / name for name in (*FILES, LOG)]
        places += [place for depth in ("", "*/*/") for place in directory.glob(f"{depth}{EVENTS}*")]
        real = directory.resolve()
        plain = (path for path in places if path.resolve() == real / path.relative_to(directory))  # no links
        return sorted(path for path in plain if path.is_file())

    def holds_run(self, name: str) -> bool:
        """Return whether a name of the store is a run_id, or a directory with files of a run."""
        held = (os.path.lexists(f"{self.root}/{name}/{file}") for file in FILES)
        return RUN_ID.fullmatch(name) is not None or any(held)

    def names(self) -> list[str]:
        """Return all names in the store, except for names with a leading dot.

        Raises:
            UserError: the store does not exist or cannot be read.
        """
        try:
            return sorted(name for name in os.listdir(self.root) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = isinstance(error, FileNotFoundError)
            what = "no such directory" if missing else "is a file, not a directory"
            raise UserError(
                f"store {self.root}: {what}; `petl-bench sweep --store DIR` creates one"
            ) from error
        except OSError as error:
            raise UserError(f"store {self.root}: cannot be read: {error.strerror}") from error

    def rows(
        self, on_damage: Callable[[DamagedError], None] | None = None, as_written: bool = False
    ) -> Iterator[ResultRow]:
        """Yield the rows of all finished runs in the order of their run_ids.

        Args:
            on_damage: called for each run whose row cannot be used; the row is left out.
            as_written: do not compare rows with other files.

        Raises:
            UserError: the store does not exist or cannot be read.
            DamagedError: a row cannot be used, and `on_damage` is not given.
        """
        for name in self.names():
            try:
                if os.path.isdir(f"{self.root}/{name}") and self._has(name, ROW):
                    yield self._own_row(name, as_written)
            except DamagedError as error:
                if on_damage is None:
                    raise
                on_damage(error)

    def failures(self) -> list[str]:
        """Return the run_ids of all runs that failed and have no row."""
        return [name for name in self.names() if self.state(name) in ("failed", "killed")]

    def _own_row(self, name: str, as_written: bool = False) -> ResultRow:
        """Return the row of a run; refuse that of a copied or renamed directory, which would count twice."""
        row = self.written_row(name) if as_written else self.row(name)
        if row.run_id != name:
            raise self._damaged(self.directory(name) / ROW, f"it is the row of run {row.run_id}")
        return row

    def _has(self, run_id: str, name: str) -> bool:
        """Return whether a run has a file, readable or not."""
        try:
            os.lstat(f"{self.root}/{run_id}/{name}")
        except (FileNotFoundError, NotADirectoryError) as error:
            directory = self.directory(run_id)
            if os.path.lexists(directory) and not os.path.isdir(directory):
                raise self._damaged(directory, "it is in the place of a run's directory") from error
            return False
        except OSError as error:
            raise self._unreadable(self.directory(run_id), error) from error
        return True

    def _read(self, path: str | Path, parse: Callable[[Any], T]) -> T:
        """Return the parsed content of a JSON file; all errors become DamagedErrors."""
        try:
            return parse(from_json(path))
        except OSError as error:
            raise self._unreadable(path, error) from error
        except OtherVersionError as error:
            raise self._damaged(path, str(error), "newer" if error.newer else "older") from error
        except _FOREIGN as error:
            raise self._damaged(path, str(error) or type(error).__name__) from error

    def _unreadable(self, path: str | Path, error: OSError) -> DamagedError:
        kinds = {PermissionError: "forbidden", FileNotFoundError: "missing"}
        return self._damaged(
            path, f"cannot be read: {error.strerror or error}", kinds.get(type(error), "unreadable")
        )

    def _damaged(self, path: str | Path, why: str, kind: str = "damaged") -> DamagedError:
        way_out = f"`petl-bench store check --repair --store {self.root}` sets the run aside"
        return DamagedError(str(path), why, kind, "" if kind in ("forbidden", "missing") else way_out)
