"""Trainings of a run: one of a fresh adapted model, and the search of protocol `sealed`, made of many."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from petl_bench import data
from petl_bench.model import Adapted, assemble
from petl_bench.run.calibration import calibrate
from petl_bench.run.identity import identify
from petl_bench.run.metadata import logger
from petl_bench.run.search import SearchResult, search
from petl_bench.train import (
    Average,
    DivergedError,
    Pixels,
    TrainingState,
    compiled,
    evaluate,
    fit,
    log_epochs,
    outputs,
)
from petl_bench.train.rate_regularizer import RateTerm
from petl_bench.types import TRAINVAL, RunSpec, Runtime


@dataclass(frozen=True)
class Trained:
    """A trained model with what its training took."""

    adapted: Adapted
    seconds: float
    """Earlier attempts included."""
    earlier: float
    """Of these seconds, those of earlier attempts."""
    images: int
    passes: int
    """How often each image went through the backbone."""
    losses: list[float]
    peeks: list[float]
    """Test accuracies on the way, protocol peek only."""


def choose(spec: RunSpec, runtime: Runtime, checkpoints: Path | None = None) -> SearchResult[Trained]:
    """Protocol `sealed`: the candidate that does best on val after training without val.

    Nothing in here asks for a test image. The winner comes trained where its training would be repeated on
    the same images: few-shot sets have no others.

    Args:
        checkpoints: see `train`.

    Raises:
        UserError: all candidates diverge.
    """
    begin, earlier = time.perf_counter(), 0.0

    def trial(candidate: RunSpec) -> tuple[float | None, Trained | None]:
        nonlocal earlier
        try:
            accuracy, trained = validate(candidate, runtime, checkpoints)
        except DivergedError as error:
            logger.info("scale %s, lr %s: %s", candidate.scale, candidate.train.lr, error)
            return None, None
        earlier += trained.earlier
        final = candidate.task.shots and candidate.train.epochs == spec.train.epochs
        return accuracy, trained if final else None

    choice = search(spec, trial)
    if choice is None:
        raise DivergedError("every candidate of protocol=sealed diverges: lower protocol.scales or train.lr")
    own = choice.model.seconds if choice.model is not None else 0.0
    return replace(choice, seconds=earlier + time.perf_counter() - begin - own)


def validate(spec: RunSpec, runtime: Runtime, checkpoints: Path | None = None) -> tuple[float, Trained]:
    """Accuracy on val of a model trained on train, and the model."""
    trained = train(spec, runtime, split="train", checkpoints=checkpoints)
    return _evaluate(spec, trained.adapted, "val", runtime), trained


def train(
    spec: RunSpec,
    runtime: Runtime,
    log: SummaryWriter | None = None,
    split: str = TRAINVAL,
    checkpoints: Path | None = None,
) -> Trained:
    """Train a fresh adapted model on all training images, or on `train` alone.

    Args:
        checkpoints: the folder in which it is kept every `runtime.checkpoint` epochs and at its end, and
            from which it goes on; None: it begins at epoch 0 and is kept nowhere.

    Raises:
        DivergedError: a loss that is not finite.
        StoreError: a checkpoint cannot be written.
    """
    torch.set_num_threads(runtime.threads)
    device = torch.device(runtime.device)
    size = spec.backbone.image_size
    images = data.load(spec.task, split, size, runtime.cache, native=spec.train.augment.crop)
    adapted = assemble(spec.model, spec.seed, spec.train.drop_path, spec.train.activations)
    file = checkpoints / f"{identify(spec)}-{split}.safetensors" if checkpoints is not None else None
    recipe = spec.train
    average = Average(recipe.average, recipe.epochs) if recipe.average.checkpoints else None
    progress = TrainingState(file, runtime.checkpoint, average)
    if not progress.found(device):
        calibrate(adapted, spec, runtime, split)
    adapted.prepare(spec.precision, device)
    term = RateTerm(adapted.adapter.quantized, spec.seed, spec.rate_weight) if spec.rate_weight else None
    progress.restore(adapted.trainable, adapted.adapter.calibrated)
    adapted.adapter.attached.decode()
    if log is not None:
        log_epochs(log, progress.losses, spec.train)

    def before_epoch(epoch: int) -> None:
        if term is not None and epoch >= max(1, spec.train.warmup_epochs):
            term.refresh()

    def after_epoch(epoch: int) -> None:
        if average is not None:
            average.after_epoch(progress.losses, adapted.trainable)
        if spec.protocol.name != "peek":
            return
        if (epoch + 1) % spec.protocol.every == 0 or epoch + 1 == spec.train.epochs:
            progress.peeks.append(_evaluate(spec, adapted, "test", runtime))

    pixels = Pixels(spec.train.normalization, size, device)
    random = spec.train.augment.random or spec.train.drop_path or spec.backbone.has_dropout
    probing = not (adapted.adapter.trainable or random)
    if len(progress.losses) < spec.train.epochs:
        model, features = adapted.network, None
        if probing:
            # The head alone is trained, on what never changes: one pass through the backbone is enough.
            model = adapted.probe()
            features = adapted.features(lambda network: outputs(network, images, pixels))
        elif runtime.compile != "none":
            model = compiled(model, runtime.compile)
        fit(
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
            before_epoch=before_epoch,
            after_step=term.step if term is not None else None,
            after_epoch=after_epoch,
            consistency=adapted.adapter.attached.consistency,
            progress=progress,
        )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    passes = 1 if probing else spec.train.epochs
    return Trained(
        adapted, progress.seconds, progress.earlier, len(images), passes, progress.losses, progress.peeks
    )


def _evaluate(spec: RunSpec, adapted: Adapted, split: str, runtime: Runtime) -> float:
    size = spec.backbone.image_size
    pixels = Pixels(spec.train.normalization, size, torch.device(runtime.device))
    return evaluate(adapted.network, data.load(spec.task, split, size, runtime.cache), pixels)
