"""The life of one run: fit, pack to bytes, reload the bytes into a fresh model, evaluate once."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from petl_bench import data, packing
from petl_bench.config import group_config
from petl_bench.errors import UserError
from petl_bench.identity import backbone_sha256, identify
from petl_bench.model import Adapted, assemble, restore
from petl_bench.packing import AdapterFile, Facts
from petl_bench.provenance import peak_memory, provenance
from petl_bench.store import LOG, Store
from petl_bench.train import Pixels, evaluate, fit, log_result
from petl_bench.types import BackboneSpec, Outcome, ResultRow, RunSpec, Runtime, TaskSpec, row_from_dict

logger = logging.getLogger("petl_bench")


@dataclass(frozen=True)
class Trained:
    """A trained model with what its training took."""

    adapted: Adapted
    seconds: float
    images: int


def execute(spec: RunSpec, runtime: Runtime) -> ResultRow:
    """Run `spec` from first to last and keep its row and adapter file in the store.

    Raises:
        UserError: backbone, adapter, settings or data do not fit, or the store cannot be written.
    """
    started, run_id, store = datetime.now(UTC), identify(spec), Store(Path(runtime.store))
    directory = store.open(run_id)
    with _LogFile(directory), SummaryWriter(str(directory)) as log:
        logger.info("run %s: %s", run_id, spec)
        trained = train(spec, runtime, log)
        checksum = backbone_sha256(spec.backbone)
        adapter = packing.dump(trained.adapted.file(packing.describe(spec, checksum)))
        begin = time.perf_counter()
        file = packing.load(adapter, run_id)
        accuracy = score(file, spec.backbone, spec.task, runtime, run_id)
        row = row_from_dict(
            _settings(spec)
            | _sizes(file, len(adapter))
            | provenance(runtime.device)
            | {
                "run_id": run_id,
                "status": "done",
                "acc": accuracy,
                "acc_val": None,
                "acc_best_peek": None,
                "n_train": trained.images,
                "n_test": spec.task.splits["test"],
                "params_trainable": sum(p.numel() for p in trained.adapted.trainable),
                "seconds_train": round(trained.seconds, 3),
                "seconds_eval": round(time.perf_counter() - begin, 3),
                "images_per_second": round(trained.images * spec.train.epochs / trained.seconds, 1),
                "peak_memory_bytes": peak_memory(runtime.device),
                "backbone_sha256": checksum,
                "started_at": started.isoformat(timespec="seconds"),
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        log_result(log, _hyperparameters(row), {"test/acc": row.acc, "bytes/file": row.bytes_file})
        store.put(spec, row, adapter)
        logger.info("run %s: acc %.4f, %d bytes", run_id, row.acc, row.bytes_file)
    return row


def attempt(spec: RunSpec, runtime: Runtime) -> Outcome:
    """`execute`, with an error kept in the store and returned instead of raised."""
    run_id = identify(spec)
    try:
        return Outcome(run_id, spec, row=execute(spec, runtime))
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        record = {"type": type(error).__name__, "message": message, "traceback": traceback.format_exc()}
        try:
            Store(Path(runtime.store)).fail(run_id, spec, record)
        except OSError as second:
            message += f" (and the store cannot be written: {second.strerror})"
        return Outcome(run_id, spec, error=message)


def preflight(specs: Iterable[RunSpec]) -> None:
    """Build every distinct model of a plan once, so that a bad setting stops it before it starts.

    Raises:
        UserError: as `assemble`.
    """
    seen = []
    for spec in specs:
        key = (spec.backbone, spec.adapter, spec.hidden, spec.quantizer, spec.head)
        if key not in seen:
            seen.append(key)
            assemble(spec.model)


def train(
    spec: RunSpec, runtime: Runtime, log: SummaryWriter | None = None, split: str = "train800val200"
) -> Trained:
    """Train a fresh adapted model on all training images, or on `split` alone."""
    torch.set_num_threads(runtime.threads)
    device = torch.device(runtime.device)
    images = data.load(spec.task, split)
    adapted = assemble(spec.model, spec.seed, spec.train.drop_path)
    adapted.quantize()
    adapted.network.to(device)
    pixels = Pixels(spec.train.normalization, spec.backbone.image_size, device)
    begin = time.perf_counter()
    fit(adapted.network, adapted.trainable, images, spec.train, pixels, spec.seed, log)
    return Trained(adapted, time.perf_counter() - begin, len(images))


def score(file: AdapterFile, backbone: BackboneSpec, task: TaskSpec, runtime: Runtime, where: str) -> float:
    """Test accuracy of an adapter file on a fresh backbone.

    Raises:
        UserError: the file was trained on other backbone weights or another number of classes.
    """
    torch.set_num_threads(runtime.threads)
    device = torch.device(runtime.device)
    facts = packing.interpret(file, lambda label: backbone, where)
    if packing.short_checksum(backbone_sha256(backbone)) != facts.backbone_checksum:
        raise UserError(f"{where}: was trained on other weights of {backbone.display_name}")
    if facts.model.classes != task.classes:
        raise UserError(
            f"{where}: has a head of {facts.model.classes} classes, {task.name} has {task.classes}"
        )
    model = replace(facts.model, backbone=backbone)
    network = restore(model, file, where).to(device)
    pixels = Pixels(facts.normalization, backbone.image_size, device)
    return evaluate(network, data.load(task, "test"), pixels)


def facts_of(file: AdapterFile, where: str) -> Facts:
    """What an adapter file says, its backbone looked up in conf/backbone."""
    return packing.interpret(file, lambda name: BackboneSpec(**group_config("backbone", name)), where)


def _sizes(file: AdapterFile, total: int) -> dict[str, object]:
    return {
        "bytes_adapter": file.bytes_adapter,
        "bytes_head": file.bytes_head,
        "bytes_overhead": total - file.bytes_adapter - file.bytes_head,
        "bytes_file": total,
        "bits_per_weight": file.bits_per_weight,
    }


def _settings(spec: RunSpec) -> dict[str, object]:
    """The columns of a row that repeat its spec."""
    return {
        "suite": spec.task.suite,
        "task": spec.task.name,
        "group": spec.task.group,
        "backbone": spec.backbone.display_name,
        "adapter": spec.adapter.name,
        "hidden": spec.hidden,
        "scale": spec.scale,
        "quantizer": spec.quantizer,
        "bits": spec.bits,
        "head": spec.head,
        "protocol": spec.protocol,
        "precision": spec.precision,
        "normalization": spec.train.normalization,
        "seed": spec.seed,
        "epochs": spec.train.epochs,
        "data_fingerprint": spec.task.fingerprint,
    }


def _hyperparameters(row: ResultRow) -> dict[str, str | float]:
    names = ("task", "backbone", "adapter", "hidden", "scale", "quantizer", "bits", "head", "protocol")
    return {name: getattr(row, name) for name in (*names, "epochs", "seed")}


class _QuietFileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing: on a full disk the run's own error is the message."""


class _LogFile:
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
