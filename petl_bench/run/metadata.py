"""Run metadata and logging: columns that repeat the spec, sizes, recipe, and the log file."""

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
    *("suite", "task", "shots", "split_seed", "backbone", "image_size", "adapter", "settings"),
    *declarations(RunSettings),
    *("protocol", "rungs", "searched", "normalization", "epochs", "lr", "recipe", "recipe_name"),
)


def sizes(file: AdapterFile, total: int) -> dict[str, object]:
    """Return the columns of sizes of an adapter file of `total` bytes."""
    return {
        "bytes_adapter": file.bytes_adapter,
        "bytes_adapter_raw": file.bytes_adapter_raw,
        "bytes_head": file.bytes_head,
        "bytes_overhead": total - file.bytes_adapter - file.bytes_head,
        "bytes_file": total,
        "bits_per_weight": file.bits_per_weight,
    }


def recipe_hash(spec: RunSpec) -> str:
    """Return eight hexadecimal digits that are equal for rows that were trained with the same recipe.

    The scales of a search are not part of the recipe, since methods without a scale share tables with the
    others. Neither is a given learning rate, which may be tuned like the scale and has its own column.
    """
    train = identity_of(TrainSpec, asdict(spec.train))
    if spec.protocol.name != "sealed":
        del train["lr"]
    recipe = {"train": train, "lrs": spec.protocol.lrs, "every": spec.protocol.every}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def settings(spec: RunSpec) -> dict[str, object]:
    """Return the columns of a row that repeat its spec."""
    return spec_columns(spec) | {"settings": changed_text(spec.adapter)}


def hyperparameters(row: ResultRow) -> dict[str, str | float]:
    """Return the settings for the HPARAMS page of TensorBoard: all that distinguish rows of a report."""
    values = {name: getattr(row, name) for name in HYPERPARAMETERS}
    return {name: value for name, value in values.items() if value is not None}


def results(row: ResultRow) -> dict[str, float]:
    """Return the metrics for the HPARAMS page of TensorBoard."""
    return {
        "test/acc": row.acc,
        "bytes/file": row.bytes_file,
        "bytes/adapter": row.bytes_adapter,
        "seconds/train": row.seconds_train,
    }


class _QuietFileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore errors of the log: on a full disk the error of the run itself is reported."""


class LogFile:
    """Context that logs messages of the package, and errors of TensorBoard's thread, in a run's directory."""

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
