"""Check of one run: its files are compared with each other and with the name of the run.

Times of files and of rows are not compared, since clocks may be set back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from petl_bench import plugins
from petl_bench.errors import DamagedError, UserError
from petl_bench.files import ADAPTER_LIMIT, flaw
from petl_bench.packing import VerifiedFile, short_checksum, stated_precision, verify
from petl_bench.store import ADAPTER, ERROR, FILES, PREDICTIONS, ROW, SEARCH, SPEC, Store, from_json
from petl_bench.store.agreement import flaw_of, spec_values
from petl_bench.types import ResultRow, RunSpec, named, spec_to_dict, stored_id

DAMAGE = {
    "row": "the row cannot be read, or has impossible values",
    "spec": "the spec cannot be read",
    "adapter": "the adapter file is missing, truncated or altered",
    "mismatch": "row, spec and adapter file contradict each other",
    "identity": "the directory's name is not the run_id",
    "search": "search.json cannot be read, or its best trial is not that of the row",
    "predictions": "the predictions cannot be read, or are not those of the row",
    "error": "error.json cannot be read",
    "newer": "written by a newer version of petl-bench; this version cannot use it",
    "forbidden": "this user may not read it",
    "no_directory": "a file or a broken link in the place of a run's directory",
    "litter": "a temporary file of a killed process",
}
NOTES = {
    "older": "written by an older version of petl-bench",
    "changed": "made by something that is another in this version",
    "unfinished": "started and not finished; the same sweep runs it again",
    "foreign": "not a run",
    "busy": "being executed, not checked",
}
KINDS = DAMAGE | NOTES
Others = Callable[[RunSpec, ResultRow], list[str]]
"""Function that names what made a run and is another in this version, for example its adapter's source."""


@dataclass(frozen=True)
class Problem:
    """One problem of a run, or a note; its kind is a key of DAMAGE or NOTES."""

    run_id: str
    kind: str
    path: str
    message: str


@dataclass
class Run:
    """Examination of one name of a store."""

    store: Store
    name: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, file: str, message: str) -> None:
        self.problems.append(Problem(self.name, kind, str(self.store.directory(self.name) / file), message))

    def examine(self, others: Others | None = None) -> None:
        """Find all problems.

        Args:
            others: names what made the run and is another in this version; None: this is not looked at.
        """
        directory = self.store.directory(self.name)
        if not self.store.holds_run(self.name):
            self.add("foreign", "", NOTES["foreign"])
            return
        if not os.path.isdir(directory):
            self.add("no_directory", "", DAMAGE["no_directory"])
            return
        try:
            held = os.listdir(directory)
        except OSError as error:
            kind = "forbidden" if isinstance(error, PermissionError) else "row"
            self.add(kind, "", f"cannot be read: {error.strerror}")
            return
        for file in sorted(held):
            if file.startswith(tuple(f".{known}." for known in FILES)):
                self.add("litter", file, DAMAGE["litter"])
        if ROW in held:
            self._finished(others)
        elif ERROR in held:
            self._spec(None)
        else:
            self.add("unfinished", "", NOTES["unfinished"])
            return
        self._object(SEARCH, "search", held, lambda values: all(map(_is_object, values["trials"])))
        self._object(ERROR, "error", held, lambda values: isinstance(values["message"], str))

    def _finished(self, others: Others | None) -> None:
        row = None
        try:
            row = self.store.written_row(self.name)
        except DamagedError as error:
            self._unusable(ROW, "row", error)
        spec = self._spec(row)
        sealed = self._adapter()
        if row is None:
            return
        if row.run_id != self.name:
            self.add("identity", ROW, f"it is the row of run {row.run_id}")
        if row.status != "done":
            self.add("row", ROW, f"status is {row.status!r}, it must be 'done'")
        if wrong := flaw_of(row, from_json(self.store.directory(self.name) / ROW)):
            self.add("row", ROW, wrong)
        self._predictions(row)
        self._search(row)
        if spec is not None:
            self._compare(_columns_of_spec(spec, row), row, SPEC)
            for name in others(spec, row) if others else ():
                self.add("changed", ROW, f"{name} is not that of this petl-bench")
        if sealed is None:
            return
        try:
            of_now = all(problem.kind != "older" for problem in self.problems)
            self._compare(_columns_of_file(sealed, row, spec, of_now), row, ADAPTER)
        except (UserError, ValueError) as error:
            self.add("adapter", ADAPTER, f"its metadata cannot be read: {error}")

    def _spec(self, row: ResultRow | None) -> RunSpec | None:
        """Return the spec if it can be read; if there is a row, check the identity too."""
        try:
            spec = self.store.spec(self.name)
        except DamagedError as error:
            if (row is None and error.kind == "older") or (row is not None and self._was(row)):
                self.add("older", SPEC, error.why)
            elif error.kind != "missing" or row is not None:
                self._unusable(SPEC, "spec", error)
            return None
        if row is not None:
            found = stored_id(spec_to_dict(spec), row.backbone_sha256)
            # A method that is not known may leave settings of the recipe out of the identity.
            if found not in (self.name, row.run_id) and not plugins.missing(row.plugins):
                if self._was(row):
                    self.add("older", SPEC, "a sweep of this version would give the run another run_id")
                else:
                    self.add("identity", SPEC, f"spec and backbone are those of run {found}")
        return spec

    def _was(self, row: ResultRow) -> bool:
        """Return whether an earlier version gave this spec the name of the run."""
        try:
            values = from_json(self.store.directory(self.name) / SPEC)
            return any(named(values, row.backbone_sha256, name) for name in (self.name, row.run_id))
        except (OSError, KeyError, TypeError, ValueError, RecursionError):
            return False

    def _adapter(self) -> VerifiedFile | None:
        """Return the adapter file if it is valid."""
        path = self.store.directory(self.name) / ADAPTER
        try:
            if problem := flaw(path, ADAPTER_LIMIT):
                raise UserError(problem)
            return verify(path.read_bytes(), str(path))
        except OSError as error:
            kind = "forbidden" if isinstance(error, PermissionError) else "adapter"
            self.add(kind, ADAPTER, f"cannot be read: {error.strerror}")
        except UserError as error:
            self.add("adapter", ADAPTER, str(error).removeprefix(f"{path}: "))
        return None

    def _predictions(self, row: ResultRow) -> None:
        """Compare the row with the predictions, if the run has kept them."""
        try:
            kept = self.store.predictions(self.name)
        except DamagedError as error:
            self._unusable(PREDICTIONS, "predictions", error)
            return
        if kept is not None:
            found = {"acc": kept.accuracy, "n_test": kept.images, "predictions": kept.digest}
            self._compare(found, row, PREDICTIONS, "predictions")

    def _search(self, row: ResultRow) -> None:
        """Compare the row with the trials of its search, if there are any that state all values."""
        try:
            trials = from_json(self.store.directory(self.name) / SEARCH)["trials"]
            found = [(trial["scale"], trial["lr"], trial["acc_val"]) for trial in trials]
            last = max(trial["epochs"] for trial in trials)
            best = max(trial["acc_val"] or 0.0 for trial in trials if trial["epochs"] == last)
        except (OSError, KeyError, TypeError, ValueError, RecursionError):
            return  # there is none, or its own check names what is wrong
        if row.acc_val is not None and ((row.scale, row.lr, row.acc_val) not in found or row.acc_val < best):
            chosen = f"scale {row.scale}, lr {row.lr}, acc_val {row.acc_val}"
            self.add("search", SEARCH, f"its best trial is not that of the row: {chosen}")

    def _compare(
        self, expected: Mapping[str, object], row: ResultRow, source: str, kind: str = "mismatch"
    ) -> None:
        """Report the columns of the row that differ from expected values; an older row may lack some."""
        written = from_json(self.store.directory(self.name) / ROW)
        wrong = [
            f"{name} is {getattr(row, name)!r}, {source} says {value!r}"
            for name, value in expected.items()
            if name in written and getattr(row, name) != value
        ]
        if wrong:
            self.add(kind, ROW, "; ".join(wrong))

    def _object(self, file: str, kind: str, held: Sequence[str], fine: Callable[[Any], bool]) -> None:
        """Check a JSON file that not every run has."""
        if file not in held:
            return
        try:
            if not fine(from_json(self.store.directory(self.name) / file)):
                self.add(kind, file, "damaged: its content is not valid")
        except PermissionError as error:
            self.add("forbidden", file, f"cannot be read: {error.strerror}")
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            self.add(
                kind, file, f"damaged: {error!r}" if isinstance(error, KeyError) else f"damaged: {error}"
            )

    def _unusable(self, file: str, kind: str, error: DamagedError) -> None:
        self.add(error.kind if error.kind in ("newer", "forbidden") else kind, file, error.why)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _columns_of_spec(spec: RunSpec, row: ResultRow) -> dict[str, object]:
    """Return the columns that a row must have in common with its spec."""
    columns = spec_values(spec_to_dict(spec), row)
    changed = row.settings
    for key, value in sorted(spec.adapter.settings.items()):
        text = f"{key}={value}"
        if changed == text or changed.startswith(f"{text} "):
            changed = changed[len(text) + 1 :]
    if changed:  # a value that is not a setting of the spec
        columns["settings"] = " ".join(f"{key}={value}" for key, value in spec.adapter.settings.items())
    return columns


def _columns_of_file(
    sealed: VerifiedFile, row: ResultRow, spec: RunSpec | None, of_now: bool
) -> dict[str, object]:
    """Return the columns that a row must have in common with its adapter file, if the file states them.

    Args:
        spec: the run, whose backbone the file may state by its architecture instead of its label; or None.
        of_now: whether this version wrote the file; earlier versions did not state all precisions.
    """
    adapter, head = sealed.sizes
    weights = sum(entry.count for entry in sealed.layouts[0])
    columns: dict[str, object] = {
        "bytes_adapter": adapter,
        "bytes_head": head,
        "bytes_overhead": sealed.length - adapter - head,
        "bytes_file": sealed.length,
        "bits_per_weight": 8 * adapter / weights if weights else None,
    }
    if row.bytes_adapter_raw is not None:
        columns["bytes_adapter_raw"] = sum(entry.nbytes for entry in sealed.layouts[0])
    stated = sealed.metadata
    for name in ("adapter", "quantizer", "head", "task", "normalization", "backbone"):
        columns |= {name: stated[name]} if name in stated else {}
    if "image_size" in stated:
        columns |= {"image_size": int(stated["image_size"])} if row.image_size is not None else {}
        if spec is not None and stated.get("backbone") == spec.backbone.name:
            columns["backbone"] = spec.backbone.display_name
    for name in ("hidden", "bits", "seed"):
        columns |= {name: int(stated[name])} if name in stated else {}
    columns |= {"scale": float(stated["scale"])} if "scale" in stated else {}
    columns |= {"precision": stated_precision(sealed, ADAPTER)} if of_now else {}
    if "backbone_sha256" in stated and not _agrees(row.backbone_sha256, stated["backbone_sha256"]):
        columns["backbone_sha256"] = stated["backbone_sha256"]
    return columns


def _agrees(sha256: str, short: str) -> bool:
    """Return whether a checksum has the shortened form that an adapter file states."""
    try:
        return short_checksum(sha256) == short
    except ValueError:
        return False
