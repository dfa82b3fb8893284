"""Execution of a run: train, pack to bytes, reload the bytes into a new model, evaluate once, store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from petl_bench import data, packing
from petl_bench.config import group_config
from petl_bench.config.recipes import recipe_name
from petl_bench.device import prepare_process
from petl_bench.errors import UserError, counted
from petl_bench.model import restore
from petl_bench.packing import AdapterFile, FileMetadata, Predictions
from petl_bench.run.compressing import compress
from petl_bench.run.identity import backbone_sha256
from petl_bench.run.metadata import LogFile, hyperparameters, logger, recipe_hash, results, settings, sizes
from petl_bench.run.packed import pack
from petl_bench.run.plugged import stated, used
from petl_bench.run.provenance import peak_memory, provenance, reset_peak_memory
from petl_bench.run.search import Trial
from petl_bench.run.source import sources
from petl_bench.run.training import select, train
from petl_bench.store import Claim, Store, with_digests
from petl_bench.train import Pixels, log_epochs, log_result, predict
from petl_bench.types import (
    BackboneSpec,
    Job,
    ResultRow,
    RunSpec,
    Runtime,
    TaskSpec,
    readable_folder,
    readable_name,
    row_from_dict,
)


def execute(job: Job, runtime: Runtime, claim: Claim | None = None) -> ResultRow:
    """Execute a run from first to last and keep its row and adapter file in the store.

    Test images are decoded only after the training, except with protocol `peek`. Accuracy and size describe
    the same file: it is packed, loaded from its bytes into a new model, and evaluated.

    Args:
        job: the run, its task resolved (petl_bench.data.resolve).
        runtime: how the run is executed.
        claim: this process' claim of the run, which must still be held when the results are stored; without
            one the store is created if needed.

    Raises:
        UserError: backbone, adapter, settings or data do not fit, or the store cannot be written.
        ClaimedError: another process has taken the run over.
    """
    started, store = datetime.now(UTC), Store(Path(runtime.store))
    reset_peak_memory(runtime.device)
    run_id, spec, checksum = job.run_id, job.spec, job.backbone_sha256
    if backbone_sha256(spec.backbone) != checksum:
        raise UserError(
            f"run {run_id}: the weights of {spec.backbone.display_name} differ from those planned"
        )
    if claim is None:
        store.create()
    directory = store.open(run_id)
    with LogFile(directory), SummaryWriter(str(directory / readable_folder(spec))) as log:
        logger.info("run %s, %s: %s", run_id, readable_name(spec), spec)
        checkpoints = store.checkpoints(run_id) if runtime.checkpoint else None
        made = _compressed if spec.compressed else _trained
        product = made(job, runtime, store, checkpoints, log)
        adapter = packing.dump(product.file)
        logger.info("run %s: trained and packed; evaluation on test begins", run_id)
        begin = time.perf_counter()
        file = packing.load(adapter, run_id)
        test = score(file, spec.backbone, spec.task, runtime, run_id)
        row = row_from_dict(
            settings(product.spec)
            | {"recipe": recipe_hash(spec), "recipe_name": recipe_name(spec)}
            | sizes(file, len(adapter))
            | provenance(runtime.device)
            | {"plugins": stated(used(spec, product.network), digest=True)}
            | {f"source_{part}": digest for part, digest in sources(spec).items()}
            | product.columns
            | {
                "acc": test.accuracy,
                "predictions": test.digest,
                "n_test": test.images,
                "peak_memory_bytes": peak_memory(runtime.device),
                "run_id": run_id,
                "image_size": spec.backbone.image_size,
                "searched": spec.searched,
                "scale_from": job.origin.scale,
                "lr_from": job.origin.lr,
                "status": "done",
                "seconds_eval": round(time.perf_counter() - begin, 3),
                "backbone_sha256": checksum,
                "started_at": started.isoformat(timespec="seconds"),
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        row = with_digests(row, spec)
        log_result(log, hyperparameters(row), results(row))
        if claim is not None:
            claim.require()
        store.put(spec, row, adapter, product.trials, test if runtime.predictions else None)
        logger.info("run %s: acc %.4f, %d bytes", run_id, row.acc, row.bytes_file)
    return row


@dataclass(frozen=True)
class _Product:
    """The product of a run before its evaluation on test.

    Attributes:
        spec: the run, with a scale and a learning rate that were chosen.
        file: its adapter file.
        network: its network.
        columns: columns of its row that its making has measured.
        trials: trials of its search.
    """

    spec: RunSpec
    file: AdapterFile
    network: nn.Module
    columns: dict[str, object]
    trials: list[Trial]


def _trained(
    job: Job, runtime: Runtime, store: Store, checkpoints: Path | None, log: SummaryWriter
) -> _Product:
    """Search and train the model of a run."""
    result = select(job.spec, runtime, checkpoints, log)
    trained = result.model
    if trained is None:
        trained = train(result.spec, runtime, log, checkpoints=checkpoints)
    else:
        log_epochs(log, trained.losses, result.spec.train)
    file = pack(trained.adapted, result.spec, job.backbone_sha256, runtime)
    columns: dict[str, object] = {
        "acc_val": result.acc_val,
        "acc_best_peek": max(trained.peeks) if result.spec.protocol.name == "peek" else None,
        "n_train": trained.images,
        "params_trainable": sum(p.numel() for p in trained.adapted.trainable),
        "seconds_search": round(result.seconds, 3),
        "seconds_train": round(trained.seconds, 3),
        "images_per_second": round(trained.images * trained.passes / trained.seconds, 1),
    }
    return _Product(result.spec, file, trained.adapted.network, columns, result.trials)


def _compressed(
    job: Job, runtime: Runtime, store: Store, checkpoints: Path | None, log: SummaryWriter
) -> _Product:
    """Compress the model of the run at 32 bits that a run is made from."""
    made = compress(job, runtime, store, checkpoints)
    columns: dict[str, object] = {
        "compressed_from": made.source.run_id,
        "chosen": made.chosen,
        "acc_val": made.acc_val,
        "acc_best_peek": None,
        "n_train": made.source.n_train,
        "params_trainable": made.source.params_trainable,
        "seconds_search": round(made.seconds_search, 3),
        "seconds_train": round(made.seconds, 3),
        "images_per_second": 0.0,
    }
    return _Product(made.spec, made.file, made.adapted.network, columns, made.trials)


def score(
    file: AdapterFile, backbone: BackboneSpec, task: TaskSpec, runtime: Runtime, where: str
) -> Predictions:
    """Evaluate an adapter file on test, and return its predictions.

    Args:
        file: loaded adapter file.
        backbone: backbone with the weights that the file was trained on. They are not checked if the file
            does not state their checksum.
        task: resolved task.
        runtime: how the evaluation is executed.
        where: path of the file, for messages.

    Raises:
        UserError: the file was trained on other weights or for another number of classes.
    """
    prepare_process(runtime.device, runtime.threads)
    device = torch.device(runtime.device)
    metadata = trained_on(file, backbone, lambda: backbone_sha256(backbone), where)
    if metadata.model.classes != task.classes:
        raise UserError(
            f"{where}: has a head of {counted(metadata.model.classes, 'class')}, "
            f"{task.name} has {task.classes}"
        )
    network = restore(metadata.model, file, where, metadata.precision, device)
    pixels = Pixels(metadata.normalization, backbone.image_size, device)
    images = data.load(task, "test", backbone.image_size, runtime.cache)
    return packing.compared(predict(network, images, pixels), images.labels, task.classes)


def trained_on(
    file: AdapterFile, backbone: BackboneSpec, sha256: Callable[[], str], where: str
) -> FileMetadata:
    """Interpret the metadata of an adapter file that is to be used on a backbone.

    Args:
        file: loaded adapter file.
        backbone: the backbone.
        sha256: function that returns the checksum of its weights, for files that state one.
        where: path of the file, for messages.

    Returns:
        The metadata, with this backbone in the description of the model.

    Raises:
        UserError: the file was trained on other weights, or an entry cannot be read.
    """
    metadata = packing.interpret(file, lambda label: backbone, where)
    stated = metadata.backbone_checksum
    if stated is not None and packing.short_checksum(sha256()) != stated:
        raise UserError(f"{where}: was trained on other weights of {backbone.display_name}")
    return replace(metadata, model=replace(metadata.model, backbone=backbone))


def configured(label: str) -> BackboneSpec:
    """Return the backbone of a file of conf/backbone."""
    return BackboneSpec(**group_config("backbone", label))


def read_metadata(
    file: AdapterFile, where: str, labelled: Callable[[str], BackboneSpec] = configured
) -> FileMetadata:
    """Interpret the metadata of an adapter file, with backbones from conf/backbone.

    Args:
        file: loaded adapter file.
        where: path of the file, for messages.
        labelled: function from the label of a backbone to the backbone.

    Raises:
        UserError: an entry is missing or cannot be read.
    """
    return packing.interpret(file, labelled, where)
