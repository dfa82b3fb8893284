"""One directory a run; the only writer of result files. A run is done when its row.json is there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petl_bench.errors import UserError, did_you_mean
from petl_bench.store.files import to_json, write
from petl_bench.types import ResultRow, RunSpec, row_from_dict, spec_from_dict, spec_to_dict

ADAPTER = "adapter.safetensors"
ROW = "row.json"
SPEC = "spec.json"
ERROR = "error.json"
SEARCH = "search.json"
LOG = "run.log"
CHECKPOINTS = "checkpoints"
FILES = (ADAPTER, ROW, SPEC, ERROR, SEARCH)


@dataclass(frozen=True)
class Store:
    """A directory of finished and failed runs; any number of processes may write different runs."""

    root: Path

    def create(self) -> None:
        """Make the store's directory.

        Raises:
            UserError: it cannot be made or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UserError(f"store {self.root}: cannot write there: {error.strerror}") from error

    def directory(self, run_id: str) -> Path:
        return self.root / run_id

    def checkpoints(self, run_id: str) -> Path:
        """The folder of the run's checkpoints, one file a training; made with the first of them."""
        return self.directory(run_id) / CHECKPOINTS

    def open(self, run_id: str) -> Path:
        """The run's directory, made if needed, without an earlier attempt's events, log and half files.

        Checkpoints stay: the run goes on from them.

        Raises:
            UserError: the store cannot be written.
        """
        directory = self.directory(run_id)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for pattern in (
                "events.out.tfevents.*",
                LOG,
                f"{CHECKPOINTS}/.*",
                *(f".{name}.*" for name in FILES),
            ):
                for old in directory.glob(pattern):
                    old.unlink()
        except OSError as error:
            raise UserError(f"store {self.root}: cannot write there: {error.strerror}") from error
        return directory

    def put(
        self, spec: RunSpec, row: ResultRow, adapter: bytes, trials: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Keep a finished run; the row is written last, so that its presence means done.

        Its checkpoints are removed then.

        Args:
            trials: what protocol sealed tried, an object each; kept in search.json.
        """
        directory = self._made(row.run_id)
        (directory / ROW).unlink(missing_ok=True)  # an old row must never stand beside a new file
        write(directory / ADAPTER, adapter)
        write(directory / SPEC, to_json(spec_to_dict(spec)))
        (directory / SEARCH).unlink(missing_ok=True)
        if trials:
            write(directory / SEARCH, to_json({"trials": list(trials)}))
        write(directory / ROW, to_json(asdict(row)))
        (directory / ERROR).unlink(missing_ok=True)
        shutil.rmtree(self.checkpoints(row.run_id), ignore_errors=True)

    def fail(self, run_id: str, spec: RunSpec, error: dict[str, str]) -> None:
        """Keep what went wrong with a run, and no row of an earlier attempt.

        Of a run that diverged no checkpoints stay: going on from them, it would diverge again.
        """
        directory = self._made(run_id)
        write(directory / SPEC, to_json(spec_to_dict(spec)))
        write(directory / ERROR, to_json(error))
        (directory / ROW).unlink(missing_ok=True)
        if error.get("cause") == "diverged":
            shutil.rmtree(self.checkpoints(run_id), ignore_errors=True)

    def _made(self, run_id: str) -> Path:
        directory = self.directory(run_id)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def state(self, run_id: str) -> str:
        """`done`, `failed` or `missing`."""
        directory = self.directory(run_id)
        if (directory / ROW).is_file():
            return "done"
        return "failed" if (directory / ERROR).is_file() else "missing"

    def row(self, run_id: str) -> ResultRow:
        """Raises UserError where the run is not finished or its row cannot be read."""
        path = self.directory(run_id) / ROW
        return self._read(path, row_from_dict)

    def spec(self, run_id: str) -> RunSpec:
        return self._read(self.directory(run_id) / SPEC, spec_from_dict)

    def error(self, run_id: str) -> str:
        """The message of a failed run."""
        return str(self._read(self.directory(run_id) / ERROR, lambda values: values["message"]))

    def rows(self) -> Iterator[ResultRow]:
        """All finished runs, by run_id.

        Raises:
            UserError: there is no such store, or a row in it cannot be read.
        """
        if not self.root.is_dir():
            what = "is a file, not a directory" if self.root.exists() else "no such directory"
            raise UserError(f"store {self.root}: {what}; `petl-bench sweep --store DIR` makes one")
        for path in sorted(self.root.glob(f"*/{ROW}")):
            yield self.row(path.parent.name)

    def failures(self) -> list[str]:
        """The run_ids of all runs that failed and have no row."""
        names = (path.parent.name for path in sorted(self.root.glob(f"*/{ERROR}")))
        return [name for name in names if self.state(name) == "failed"]

    def find(self, run_id: str) -> str:
        """The full run_id of a finished run; an unambiguous beginning is enough."""
        known = [path.parent.name for path in self.root.glob(f"*/{ROW}")]
        found = [name for name in known if name.startswith(run_id)]
        if len(found) != 1:
            what = "fits several runs" if found else "is no finished run"
            raise UserError(f"{run_id!r} {what} of store {self.root}: {did_you_mean(run_id, found or known)}")
        return found[0]

    def _read(self, path: Path, parse: Any) -> Any:
        try:
            return parse(json.loads(path.read_text()))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: damaged: {error}; `--existing rerun` makes it anew") from error
