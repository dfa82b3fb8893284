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
from petl_bench.identity import backbone_sha256, identify
from petl_bench.model import Adapted, assemble, restore
from petl_bench.packing import AdapterFile, Facts
from petl_bench.provenance import peak_memory, provenance
from petl_bench.rate import RateTerm
from petl_bench.record import LogFile, hyperparameters, logger, recipe_hash, results, settings, sizes
from petl_bench.search import Choice, search
from petl_bench.store import Claim, Store
from petl_bench.train import (
    DivergedError,
    Pixels,
    compiled,
    evaluate,
    fit,
    log_epoch,
    log_result,
    outputs,
    predict,
)
from petl_bench.types import (
    TRAINVAL,
    BackboneSpec,
    ResultRow,
    RunSpec,
    Runtime,
    TaskSpec,
    row_from_dict,
)


@dataclass(frozen=True)
class Trained:
    """A trained model with what its training took."""

    adapted: Adapted
    seconds: float
    images: int
    passes: int
    """How often each image went through the backbone."""
    losses: list[float]
    peeks: list[float]
    """Test accuracies on the way, protocol peek only."""


@dataclass(frozen=True)
class Score:
    """Test accuracy and the number of images it is over."""

    accuracy: float
    images: int


def execute(spec: RunSpec, runtime: Runtime, claim: Claim | None = None) -> ResultRow:
    """Run `spec` from first to last and keep its row and adapter file in the store.

    Test images are decoded once training is over, and not before; protocol `peek` alone looks earlier.

    Args:
        spec: its task settled (petl_bench.data.settle).
        claim: this process' claim of the run, which must still be held when there is something to keep.

    Raises:
        UserError: backbone, adapter, settings or data do not fit, or the store cannot be written.
        ClaimedError: another process has taken the run over.
    """
    started, run_id, store = datetime.now(UTC), identify(spec), Store(Path(runtime.store))
    directory = store.open(run_id)
    with LogFile(directory), SummaryWriter(str(directory)) as log:
        logger.info("run %s: %s", run_id, spec)
        begin = time.perf_counter()
        choice = choose(spec, runtime)
        chosen, trained = choice.spec, choice.model
        seconds_search = time.perf_counter() - begin
        if trained is None:
            trained = train(chosen, runtime, log)
        else:
            seconds_search -= trained.seconds
            for epoch, loss in enumerate(trained.losses):
                log_epoch(log, epoch, loss, chosen.train)
        checksum = backbone_sha256(spec.backbone)
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
                "seconds_search": round(seconds_search, 3),
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


def choose(spec: RunSpec, runtime: Runtime) -> Choice[Trained]:
    """Protocol `sealed`: the candidate that does best on val after training without val.

    Nothing in here asks for a test image. The winner comes trained where its training would be repeated on
    the same images: few-shot sets have no others.

    Raises:
        UserError: all candidates diverge.
    """

    def trial(candidate: RunSpec) -> tuple[float | None, Trained | None]:
        try:
            accuracy, trained = validate(candidate, runtime)
        except DivergedError as error:
            logger.info("scale %s, lr %s: %s", candidate.scale, candidate.train.lr, error)
            return None, None
        final = candidate.task.shots and candidate.train.epochs == spec.train.epochs
        return accuracy, trained if final else None

    choice = search(spec, trial)
    if choice is None:
        raise DivergedError("every candidate of protocol=sealed diverges: lower protocol.scales or train.lr")
    return choice


def validate(spec: RunSpec, runtime: Runtime) -> tuple[float, Trained]:
    """Accuracy on val of a model trained on train, and the model."""
    trained = train(spec, runtime, split="train")
    return _evaluate(spec, trained.adapted, "val", runtime), trained


def _evaluate(spec: RunSpec, adapted: Adapted, split: str, runtime: Runtime) -> float:
    size = spec.backbone.image_size
    pixels = Pixels(spec.train.normalization, size, torch.device(runtime.device))
    return evaluate(adapted.network, data.load(spec.task, split, size, runtime.cache), pixels)


def train(
    spec: RunSpec, runtime: Runtime, log: SummaryWriter | None = None, split: str = TRAINVAL
) -> Trained:
    """Train a fresh adapted model on all training images, or on `train` alone."""
    torch.set_num_threads(runtime.threads)
    device = torch.device(runtime.device)
    size = spec.backbone.image_size
    images = data.load(spec.task, split, size, runtime.cache, native=spec.train.augment.crop)
    adapted = assemble(spec.model, spec.seed, spec.train.drop_path)
    adapted.prepare(spec.precision, device)
    peeks: list[float] = []
    term = RateTerm(adapted.adapter.quantized, spec.seed, spec.rate_weight) if spec.rate_weight else None

    def after_epoch(epoch: int) -> None:
        if term is not None and spec.train.warmup_epochs <= epoch + 1 < spec.train.epochs:
            term.refresh()
        if spec.protocol.name != "peek":
            return
        if (epoch + 1) % spec.protocol.every == 0 or epoch + 1 == spec.train.epochs:
            peeks.append(_evaluate(spec, adapted, "test", runtime))

    begin = time.perf_counter()
    pixels = Pixels(spec.train.normalization, size, device)
    model, features = adapted.network, None
    random = spec.train.augment.random or spec.train.drop_path or spec.backbone.has_dropout
    if not (adapted.adapter.trainable or random):
        # The head alone is trained, on what never changes: one pass through the backbone is enough.
        model, features = adapted.probe(), adapted.features(lambda network: outputs(network, images, pixels))
    elif runtime.compile != "none":
        model = compiled(model, runtime.compile)
    losses = fit(
        model,
        adapted.trainable,
        images,
        spec.train,
        pixels,
        spec.seed,
        log,
        features=features,
        classes=spec.task.classes,
        loaders=runtime.loaders,
        after_step=term.step if term is not None else None,
        after_epoch=after_epoch,
    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    passes = spec.train.epochs if features is None else 1
    return Trained(adapted, time.perf_counter() - begin, len(images), passes, losses, peeks)


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
    shorter = map(file.shortened, sorted(packing.STATISTIC_SIZES)[:-1])
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


def facts_of(file: AdapterFile, where: str) -> Facts:
    """What an adapter file says, its backbone looked up in conf/backbone."""
    return packing.interpret(file, lambda name: BackboneSpec(**group_config("backbone", name)), where)
