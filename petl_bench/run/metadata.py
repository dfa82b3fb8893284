"""What a run writes down of itself besides its numbers: columns that repeat the spec, sizes, the log."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from dataclasses import asdict
from pathlib import Path

from petl_bench.packing import AdapterFile
from petl_bench.store import LOG
from petl_bench.types import (
    ResultRow,
    RunSettings,
    RunSpec,
    TrainSpec,
    changed_text,
    declarations,
    identity_of,
    spec_columns,
)

logger = logging.getLogger("petl_bench")
HYPERPARAMETERS = (
    *("suite", "task", "shots", "split_seed", "backbone", "adapter", "settings"),
    *declarations(RunSettings),
    *("protocol", "rungs", "normalization", "epochs", "lr", "recipe"),
)


def sizes(file: AdapterFile, total: int) -> dict[str, object]:
    """The columns of bytes, of a file of `total` bytes."""
    return {
        "bytes_adapter": file.bytes_adapter,
        "bytes_adapter_raw": file.bytes_adapter_raw,
        "bytes_head": file.bytes_head,
        "bytes_overhead": total - file.bytes_adapter - file.bytes_head,
        "bytes_file": total,
        "bits_per_weight": file.bits_per_weight,
    }


def recipe_hash(spec: RunSpec) -> str:
    """Eight hexadecimal digits: rows with the same ones were trained by the same recipe.

    Scales to choose from are left out, since methods without a scale share tables with the others; so is a
    learning rate that stands beforehand, which may be tuned as the scale is, and has a column of its own.
    """
    train = identity_of(TrainSpec, asdict(spec.train))
    if spec.protocol.name != "sealed":
        del train["lr"]
    recipe = {"train": train, "lrs": spec.protocol.lrs, "every": spec.protocol.every}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def settings(spec: RunSpec) -> dict[str, object]:
    """The columns of a row that repeat its spec."""
    return spec_columns(spec) | {"settings": changed_text(spec.adapter)}


def hyperparameters(row: ResultRow) -> dict[str, str | float]:
    """The settings on TensorBoard's HPARAMS page: whatever tells the rows of a report apart."""
    held = {name: getattr(row, name) for name in HYPERPARAMETERS}
    return {name: value for name, value in held.items() if value is not None}


def results(row: ResultRow) -> dict[str, float]:
    """The metrics on that page."""
    return {
        "test/acc": row.acc,
        "bytes/file": row.bytes_file,
        "bytes/adapter": row.bytes_adapter,
        "seconds/train": row.seconds_train,
    }


class _QuietFileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing: on a full disk the run's own error is the message."""


class LogFile:
    """Sends the package's log, and the troubles of TensorBoard's thread, to the run's directory."""

    def __init__(self, directory: Path) -> None:
        self.handler = _QuietFileHandler(directory / LOG)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def __enter__(self) -> None:
        logger.setLevel(logging.INFO)
        logger.addHandler(self.handler)
        threading.excepthook = lambda args: logger.error("thread: %s", args.exc_value)

    def __exit__(self, *exception: object) -> None:
        threading.excepthook = threading.__excepthook__
        logger.removeHandler(self.handler)
        self.handler.close()
