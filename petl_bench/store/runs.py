"""One directory a run; the only writer of result files. A run is done when its row.json is there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from petl_bench.errors import DamagedError, StoreError, UserError, did_you_mean
from petl_bench.store.files import from_json, new_folder, staged, to_json
from petl_bench.types import (
    OtherVersionError,
    ResultRow,
    RunSpec,
    row_from_dict,
    spec_from_dict,
    spec_to_dict,
)

ADAPTER = "adapter.safetensors"
ROW = "row.json"
SPEC = "spec.json"
ERROR = "error.json"
SEARCH = "search.json"
LOG = "run.log"
FILES = (ADAPTER, ROW, SPEC, ERROR, SEARCH)
ASIDE = ".damaged"
"""Directory of the store for what was set aside. Names with a leading dot are no runs."""
_FOREIGN = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, UserError)
"""What parsing a file raises that is not ours, or no longer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """A directory of finished and failed runs; any number of processes may write different runs."""

    root: Path

    def create(self) -> None:
        """Make the store's directory.

        Raises:
            StoreError: it cannot be made or written.
        """
        with self._writing(named=False):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                file.write(bytes(4096))  # what the smallest run takes: a full disk is said before training
                file.flush()
                os.fsync(file.fileno())

    def directory(self, run_id: str) -> Path:
        return self.root / run_id

    def open(self, run_id: str) -> Path:
        """The run's directory, made if needed, without an earlier attempt's events, log and half files.

        Raises:
            StoreError: the store cannot be written.
        """
        directory = self.directory(run_id)
        with self._writing():
            directory.mkdir(parents=True, exist_ok=True)
            for pattern in ("events.out.tfevents.*", LOG, *(f".{name}.*" for name in FILES)):
                for old in directory.glob(pattern):
                    old.unlink()
        return directory

    def put(
        self, spec: RunSpec, row: ResultRow, adapter: bytes, trials: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Keep a finished run; the row is put into place last, so that its presence means done.

        Args:
            trials: what protocol sealed tried, an object each; kept in search.json.

        Raises:
            StoreError: the store cannot be written; an earlier result of this run is as it was.
        """
        files = {ADAPTER: adapter, SPEC: to_json(spec_to_dict(spec))}
        if trials:
            files[SEARCH] = to_json({"trials": list(trials)})
        files[ROW] = to_json(asdict(row))
        directory = self.directory(row.run_id)
        with self._writing():
            directory.mkdir(parents=True, exist_ok=True)
            with staged({directory / name: data for name, data in files.items()}) as place:
                (directory / ROW).unlink(missing_ok=True)  # an old row must never stand beside a new file
                if not trials:
                    (directory / SEARCH).unlink(missing_ok=True)
                for name in files:
                    place(directory / name)
            (directory / ERROR).unlink(missing_ok=True)

    def fail(self, run_id: str, spec: RunSpec, error: dict[str, str]) -> None:
        """Keep what went wrong with a run, and no row of an earlier attempt.

        Raises:
            StoreError: the store cannot be written; the run is as it was.
        """
        directory = self.directory(run_id)
        files = {directory / SPEC: to_json(spec_to_dict(spec)), directory / ERROR: to_json(error)}
        with self._writing():
            directory.mkdir(parents=True, exist_ok=True)
            with staged(files) as place:
                for path in files:
                    place(path)
            (directory / ROW).unlink(missing_ok=True)

    def set_aside(self, name: str, files: Sequence[str] = ()) -> Path:
        """Move a run out of the way, or only some files of its directory; where they are then.

        Nothing is deleted, and nothing overwritten: a name that is taken is numbered.

        Raises:
            StoreError: the store cannot be written.
        """
        source = self.directory(name)
        with self._writing():
            (self.root / ASIDE).mkdir(exist_ok=True)
            folder = new_folder(self.root / ASIDE / name)
            try:
                if files:
                    for file in files:
                        os.rename(source / file, folder / file)
                elif os.path.isdir(source) and not source.is_symlink():
                    os.rename(source, folder)  # a directory may take the place of an empty one
                else:
                    os.rename(source, folder / name)
            except OSError:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()
                raise
        return folder

    @contextmanager
    def _writing(self, named: bool = True) -> Iterator[None]:
        """Make an OSError a StoreError that names the file, if that tells something."""
        try:
            yield
        except OSError as error:
            where = ""
            with suppress(ValueError, TypeError):
                where = str(Path(error.filename).relative_to(self.root)) if named else ""
            where = f" ({where})" if where not in ("", ".") else ""
            raise StoreError(
                f"store {self.root}: cannot write there: {error.strerror or error}{where}"
            ) from error

    def state(self, run_id: str) -> str:
        """`done`, `failed` or `missing`; `damaged` where there is a row or a file that cannot be used."""
        if self.fault(run_id):
            return "damaged"
        if self._has(run_id, ROW):
            return "done"
        return "failed" if self._has(run_id, ERROR) else "missing"

    def fault(self, run_id: str) -> str:
        """Path and reason of a damaged run; empty for others."""
        try:
            if self._has(run_id, ROW):
                self._own_row(run_id)
        except DamagedError as error:
            return f"{error.path}: {error.why}"
        return ""

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

    def error(self, run_id: str) -> str:
        """The message of a failed run.

        Raises:
            DamagedError: it cannot be read.
        """
        return self._read(self.directory(run_id) / ERROR, lambda values: str(values["message"]))

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
        return [name for name in self.names() if self.state(name) == "failed"]

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
