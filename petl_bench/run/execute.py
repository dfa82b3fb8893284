"""The life of one run: fit, pack to bytes, reload the bytes into a fresh model, evaluate once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from petl_bench import data, packing
from petl_bench.config import group_config
from petl_bench.errors import UserError
from petl_bench.model import Adapted, restore
from petl_bench.packing import AdapterFile, FileMetadata
from petl_bench.run.identity import backbone_sha256
from petl_bench.run.metadata import LogFile, hyperparameters, logger, recipe_hash, results, settings, sizes
from petl_bench.run.provenance import peak_memory, provenance
from petl_bench.run.training import choose, train
from petl_bench.store import Claim, Store
from petl_bench.train import Pixels, evaluate, log_epochs, log_result, predict
from petl_bench.types import (
    TRAINVAL,
    BackboneSpec,
    Job,
    ResultRow,
    RunSpec,
    Runtime,
    TaskSpec,
    row_from_dict,
)


@dataclass(frozen=True)
class Score:
    """Test accuracy and the number of images it is over."""

    accuracy: float
    images: int


def execute(job: Job, runtime: Runtime, claim: Claim | None = None) -> ResultRow:
    """Execute a run from first to last and keep its row and adapter file in the store.

    Test images are decoded once training is over, and not before; protocol `peek` alone looks earlier.

    Args:
        job: the run, its task resolved (petl_bench.data.resolve).
        claim: this process' claim of the run, which must still be held when the results are stored.

    Raises:
        UserError: backbone, adapter, settings or data do not fit, or the store cannot be written.
        ClaimedError: another process has taken the run over.
    """
    started, store = datetime.now(UTC), Store(Path(runtime.store))
    run_id, spec, checksum = job.run_id, job.spec, job.backbone_sha256
    if backbone_sha256(spec.backbone) != checksum:
        raise UserError(
            f"run {run_id}: the weights of {spec.backbone.display_name} differ from those planned"
        )
    directory = store.open(run_id)
    with LogFile(directory), SummaryWriter(str(directory)) as log:
        logger.info("run %s: %s", run_id, spec)
        checkpoints = store.checkpoints(run_id) if runtime.checkpoint else None
        choice = choose(spec, runtime, checkpoints)
        chosen, trained = choice.spec, choice.model
        if trained is None:
            trained = train(chosen, runtime, log, checkpoints=checkpoints)
        else:
            log_epochs(log, trained.losses, chosen.train)
        adapter = packing.dump(pack(trained.adapted, chosen, checksum, runtime))
        logger.info("run %s: trained and packed; now test is looked at", run_id)
        begin = time.perf_counter()
        file = packing.load(adapter, run_id)
        right = score(file, spec.backbone, spec.task, runtime, run_id)
        row = row_from_dict(
            settings(chosen)
            | {"recipe": recipe_hash(spec)}
            | sizes(file, len(adapter))
            | provenance(runtime.device)
            | {
                "run_id": run_id,
                "status": "done",
                "acc": right.accuracy,
                "acc_val": choice.acc_val,
                "acc_best_peek": max(trained.peeks, default=None),
                "n_train": trained.images,
                "n_test": right.images,
                "params_trainable": sum(p.numel() for p in trained.adapted.trainable),
                "seconds_search": round(choice.seconds, 3),
                "seconds_train": round(trained.seconds, 3),
                "seconds_eval": round(time.perf_counter() - begin, 3),
                "images_per_second": round(trained.images * trained.passes / trained.seconds, 1),
                "peak_memory_bytes": peak_memory(runtime.device),
                "backbone_sha256": checksum,
                "started_at": started.isoformat(timespec="seconds"),
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        log_result(log, hyperparameters(row), results(row))
        if claim is not None:
            claim.require()
        store.put(spec, row, adapter, choice.trials)
        logger.info("run %s: acc %.4f, %d bytes", run_id, row.acc, row.bytes_file)
    return row


def pack(adapted: Adapted, spec: RunSpec, backbone: str, runtime: Runtime) -> AdapterFile:
    """The file of a trained model.

    With statistics `short`, it has the shortest shifts and spreads with which the reloaded model puts every
    training image into the same class as with exact ones.

    Args:
        backbone: SHA-256 of its weights.
    """
    file = adapted.file(packing.describe(spec, backbone), code=spec.packing == "coded")
    matrices = [t for t in (*file.adapter, *file.head) if t.codes is not None]
    if spec.statistics == "exact" or not matrices:
        return file
    size, device = spec.backbone.image_size, torch.device(runtime.device)
    images = data.load(spec.task, TRAINVAL, size, runtime.cache)
    pixels = Pixels(spec.train.normalization, size, device)

    def classes(file: AdapterFile) -> NDArray[np.int64]:
        network = restore(spec.model, file, "short statistics", spec.precision, device)
        return predict(network, images, pixels)

    expected = classes(file)
    shorter = map(file.with_statistic_size, sorted(packing.STATISTIC_SIZES)[:-1])
    return next((short for short in shorter if np.array_equal(classes(short), expected)), file)


def score(file: AdapterFile, backbone: BackboneSpec, task: TaskSpec, runtime: Runtime, where: str) -> Score:
    """Test accuracy of an adapter file on a fresh backbone; the task settled.

    A file that does not state the checksum of its backbone is taken at its word.

    Raises:
        UserError: the file was trained on other backbone weights or another number of classes.
    """
    torch.set_num_threads(runtime.threads)
    device = torch.device(runtime.device)
    facts = packing.interpret(file, lambda label: backbone, where)
    stated = facts.backbone_checksum
    if stated is not None and packing.short_checksum(backbone_sha256(backbone)) != stated:
        raise UserError(f"{where}: was trained on other weights of {backbone.display_name}")
    if facts.model.classes != task.classes:
        raise UserError(
            f"{where}: has a head of {facts.model.classes} classes, {task.name} has {task.classes}"
        )
    model = replace(facts.model, backbone=backbone)
    network = restore(model, file, where, facts.precision, device)
    pixels = Pixels(facts.normalization, backbone.image_size, device)
    images = data.load(task, "test", backbone.image_size, runtime.cache)
    return Score(evaluate(network, images, pixels), len(images))


def read_metadata(file: AdapterFile, where: str) -> FileMetadata:
    """What an adapter file says, its backbone looked up in conf/backbone."""
    return packing.interpret(file, lambda name: BackboneSpec(**group_config("backbone", name)), where)
