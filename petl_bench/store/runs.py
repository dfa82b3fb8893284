"""The only writer of result files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petl_bench.atomic import staged
from petl_bench.errors import StoreError
from petl_bench.store.files import new_folder, to_json
from petl_bench.store.reading import ADAPTER, CHECKPOINTS, ERROR, FILES, LOG, ROW, SEARCH, SPEC, Runs
from petl_bench.types import ResultRow, RunSpec, row_to_dict, spec_to_dict

ASIDE = ".damaged"
"""Directory of the store for what was set aside. Names with a leading dot are no runs."""


@dataclass(frozen=True)
class Store(Runs):
    """A store to write to, too; any number of processes may write different runs."""

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

    def open(self, run_id: str) -> Path:
        """The run's directory, made if needed, without an earlier attempt's events, log and half files.

        Checkpoints stay: the run goes on from them.

        Raises:
            StoreError: the store cannot be written.
        """
        directory = self.directory(run_id)
        with self._writing():
            directory.mkdir(parents=True, exist_ok=True)
            for pattern in (
                "events.out.tfevents.*",
                LOG,
                f"{CHECKPOINTS}/.*",
                *(f".{name}.*" for name in FILES),
            ):
                for old in directory.glob(pattern):
                    old.unlink()
        return directory

    def put(
        self, spec: RunSpec, row: ResultRow, adapter: bytes, trials: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Keep a finished run; the row is put into place last, so that its presence means done.

        Its checkpoints are removed then.

        Args:
            trials: what protocol sealed tried, an object each; kept in search.json.

        Raises:
            StoreError: the store cannot be written; an earlier result of this run is as it was.
        """
        files = {ADAPTER: adapter, SPEC: to_json(spec_to_dict(spec))}
        if trials:
            files[SEARCH] = to_json({"trials": list(trials)})
        files[ROW] = to_json(row_to_dict(row))
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
        shutil.rmtree(self.checkpoints(row.run_id), ignore_errors=True)

    def fail(self, run_id: str, spec: RunSpec, error: dict[str, str]) -> None:
        """Keep what went wrong with a run, and no row of an earlier attempt.

        Of a run that diverged no checkpoints stay: going on from them, it would diverge again.

        Args:
            error: `message`, `cause` (of petl_bench.types.CAUSES), and whatever helps.

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
        if error.get("cause") == "diverged":
            shutil.rmtree(self.checkpoints(run_id), ignore_errors=True)

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
