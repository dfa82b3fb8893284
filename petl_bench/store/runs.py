"""Writing of a store: nothing else writes result files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl_bench.atomic import staged
from petl_bench.errors import StoreError
from petl_bench.store.claims import vanished
from petl_bench.store.files import (
    ADAPTER,
    CHECKPOINTS,
    ERROR,
    EVENTS,
    FILES,
    LOG,
    PREDICTIONS,
    ROW,
    SEARCH,
    SPEC,
    new_folder,
    to_json,
)
from petl_bench.store.reading import Runs
from petl_bench.types import ResultRow, RunSpec, row_to_dict, spec_to_dict

if TYPE_CHECKING:
    from petl_bench.packing import Predictions

ASIDE = ".damaged"
"""Directory of the store for runs that were set aside. Names with a leading dot are not runs."""


@dataclass(frozen=True)
class Store(Runs):
    """Store of runs, for reading and writing. Any number of processes may write different runs."""

    def create(self) -> None:
        """Create the directory of the store, and in it that of claims, without which it counts as vanished.

        Raises:
            StoreError: it cannot be created or written.
        """
        with self._writing(named=False):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                file.write(bytes(4096))  # size of the smallest run, to notice a full disk before training
                file.flush()
                os.fsync(file.fileno())
            self.claims.root.mkdir(exist_ok=True)

    def open(self, run_id: str) -> Path:
        """Return the directory of a run, created if needed, without remains of an earlier attempt.

        Events, log and temporary files are removed. Checkpoints stay, and the run continues from them.

        Raises:
            StoreError: the store cannot be written.
        """
        directory = self.directory(run_id)
        with self._writing():
            directory.mkdir(exist_ok=True)
            for pattern in (
                f"**/{EVENTS}*",
                LOG,
                f"{CHECKPOINTS}/.*",
                *(f".{name}.*" for name in FILES),
            ):
                for old in directory.glob(pattern):
                    old.unlink()
        return directory

    def put(
        self,
        spec: RunSpec,
        row: ResultRow,
        adapter: bytes,
        trials: Sequence[Mapping[str, Any]] = (),
        predictions: Predictions | None = None,
    ) -> None:
        """Store a finished run and remove its checkpoints.

        The row is moved into place last, so that its presence means that the run is done.

        Args:
            trials: one object per trial of protocol `sealed`, for search.json.
            predictions: predictions on the test images; None: they are not kept.

        Raises:
            StoreError: the store cannot be written; an earlier result of this run is unchanged.
        """
        files = {ADAPTER: adapter, SPEC: to_json(spec_to_dict(spec))}
        if trials:
            files[SEARCH] = to_json({"trials": list(trials)})
        if predictions is not None:
            files[PREDICTIONS] = predictions.pack()
        files[ROW] = to_json(row_to_dict(row))
        directory = self.directory(row.run_id)
        with self._writing():
            directory.mkdir(parents=True, exist_ok=True)
            with staged({directory / name: data for name, data in files.items()}) as place:
                (directory / ROW).unlink(missing_ok=True)  # an old row must never be beside a new file
                for name in {SEARCH, PREDICTIONS} - files.keys():
                    (directory / name).unlink(missing_ok=True)
                for name in files:
                    place(directory / name)
            (directory / ERROR).unlink(missing_ok=True)
        shutil.rmtree(self.checkpoints(row.run_id), ignore_errors=True)

    def fail(self, run_id: str, spec: RunSpec, error: dict[str, str]) -> None:
        """Store the failure of a run, and remove the row of an earlier attempt.

        Checkpoints of a run that diverged are removed too, since it would diverge again.

        Args:
            error: content of error.json: `message`, `cause` (one of petl_bench.types.CAUSES), and details.

        Raises:
            StoreError: the store cannot be written; the run is unchanged.
        """
        directory = self.directory(run_id)
        files = {directory / SPEC: to_json(spec_to_dict(spec)), directory / ERROR: to_json(error)}
        with self._writing():
            directory.mkdir(exist_ok=True)
            with staged(files) as place:
                for path in files:
                    place(path)
            (directory / ROW).unlink(missing_ok=True)
        if error.get("cause") == "diverged":
            shutil.rmtree(self.checkpoints(run_id), ignore_errors=True)

    def set_aside(self, name: str, files: Sequence[str] = ()) -> Path:
        """Move a run, or only some files of its directory, to the folder of runs set aside.

        Nothing is deleted or overwritten: if the name is taken, a number is appended.

        Args:
            name: name in the store.
            files: names of files in its directory; empty: the whole run.

        Returns:
            The new folder.

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

    def remove(self, run_id: str) -> None:
        """Delete a run with all its files; a process that is killed meanwhile leaves no part of a run.

        Raises:
            StoreError: the store cannot be written.
        """
        directory = self.directory(run_id)
        with self._writing():
            if directory.is_symlink():
                directory.unlink()
                return
            gone = new_folder(self.root / f".removed-{run_id}")
            os.rename(directory, gone)  # a directory may take the place of an empty one
            shutil.rmtree(gone)

    def take_in(self, run_id: str, source: Runs) -> None:
        """Copy a run of another store, with all files that belong to it; it appears complete or not at all.

        An existing run of that name is replaced, so the caller has checked that nothing of it is lost.

        Raises:
            StoreError: the store cannot be written, or a file of the source cannot be read.
        """
        with self._writing():
            copy = Path(tempfile.mkdtemp(prefix=f".copied-{run_id}-", dir=self.root))
            try:
                place = copy / run_id
                place.mkdir()
                for path in source.own_files(run_id):
                    target = place / path.relative_to(source.directory(run_id))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
                if os.path.lexists(self.directory(run_id)):
                    self.remove(run_id)
                os.rename(place, self.directory(run_id))
            finally:
                shutil.rmtree(copy, ignore_errors=True)

    @contextmanager
    def _writing(self, named: bool = True) -> Iterator[None]:
        """Turn an OSError into a StoreError that names the file.

        Args:
            named: whether to name the file.
        """
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self.root.exists():
                raise vanished(self.root) from error
            where = ""
            with suppress(ValueError, TypeError):
                where = str(Path(error.filename).relative_to(self.root)) if named else ""
            where = f" ({where})" if where not in ("", ".") else ""
            raise StoreError(
                f"store {self.root}: cannot write there: {error.strerror or error}{where}"
            ) from error
