"""Trainings of a run: a single one, and the search of protocol `sealed`, which consists of many."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from petl_bench import data
from petl_bench.data import Load, Split
from petl_bench.device import prepare_process
from petl_bench.errors import DivergedError
from petl_bench.model import Adapted, assemble
from petl_bench.run.calibration import calibrate
from petl_bench.run.identity import identify
from petl_bench.run.metadata import logger
from petl_bench.run.search import SearchResult, search
from petl_bench.run.source import sources
from petl_bench.train import (
    Average,
    Compiled,
    Hooks,
    Pixels,
    Training,
    TrainingState,
    evaluate,
    fit,
    log_epochs,
    log_validation,
    outputs,
)
from petl_bench.train.rate_regularizer import RateRegularizer
from petl_bench.types import TRAINVAL, RunSpec, Runtime


@dataclass(frozen=True)
class Trained:
    """A trained model and the cost of its training.

    Attributes:
        adapted: the trained model.
        seconds: seconds of training, including earlier attempts.
        earlier_seconds: the part of `seconds` that earlier attempts took.
        images: number of training images.
        passes: number of passes of each image through the backbone.
        losses: mean loss of each epoch.
        peeks: accuracies during the training, after the epochs of `looks`.
    """

    adapted: Adapted
    seconds: float
    earlier_seconds: float
    images: int
    passes: int
    losses: list[float]
    peeks: list[float]


def select(
    spec: RunSpec, runtime: Runtime, checkpoints: Path | None = None, log: SummaryWriter | None = None
) -> SearchResult[Trained]:
    """Select the candidate of a run with the best accuracy on val, trained without val (protocol `sealed`).

    Test images are not used. The result contains the trained model of the winner if another training would
    use the same images, as for few-shot sets, whose only training images are those of `train`.

    Args:
        spec: the run, its task resolved.
        runtime: how the run is executed.
        checkpoints: folder of checkpoints; see `train`.
        log: TensorBoard writer for the accuracies on val of each candidate, and of the selected one; None:
            none.

    Raises:
        DivergedError: all candidates diverge.
    """
    begin, earlier = time.perf_counter(), 0.0
    curves: dict[tuple[float | None, float], dict[int, float]] = {}

    def attempt(candidate: RunSpec) -> tuple[float | None, Trained | None]:
        nonlocal earlier
        try:
            accuracy, trained = validate(candidate, runtime, checkpoints)
        except DivergedError as error:
            logger.info("scale %s, lr %s: %s", candidate.scale, candidate.train.lr, error)
            return None, None
        earlier += trained.earlier_seconds
        scale, recipe = candidate.scale, candidate.train
        seen = dict(zip(looks(candidate, "train")[1], trained.peeks, strict=False))
        curve = curves[scale, recipe.lr] = seen | {recipe.epochs - 1: accuracy}
        if log is not None:
            name = f"search/scale={scale},lr={recipe.lr},epochs={recipe.epochs}"
            log_validation(log, name, curve)
        final = candidate.task.shots and candidate.train.epochs == spec.train.epochs
        return accuracy, trained if final else None

    result = search(spec, attempt)
    if result is None:
        raise DivergedError("every candidate of protocol=sealed diverges: lower protocol.scales or train.lr")
    if log is not None and result.trials:
        log_validation(log, "val/acc", curves[result.spec.scale, result.spec.train.lr])
    own = result.model.seconds if result.model is not None else 0.0
    return replace(result, seconds=earlier + time.perf_counter() - begin - own)


def validate(spec: RunSpec, runtime: Runtime, checkpoints: Path | None = None) -> tuple[float, Trained]:
    """Train on `train`, and return the accuracy on val and the model; for the arguments see `train`."""
    trained = train(spec, runtime, split="train", checkpoints=checkpoints)
    return _evaluate(spec, trained.adapted, "val", runtime), trained


LOOKS = 10
"""Accuracies on val in the course of a training of a search."""


def looks(spec: RunSpec, split: str) -> tuple[str, list[int]]:
    """Return the split on which a model is evaluated in the course of its training, and after which epochs.

    Args:
        spec: the run.
        split: its training images; `train`: in a search, which evaluates on val.
    """
    protocol, epochs = spec.protocol, spec.train.epochs
    if protocol.name != "peek" and split != "train":
        return "", []
    if protocol.name == "peek":
        every = protocol.every
        return "test", [epoch for epoch in range(epochs) if epoch + 1 == epochs or (epoch + 1) % every == 0]
    every = max(1, epochs // LOOKS)
    return "val", [*range(every - 1, epochs - 1, every)]  # after the last one it is evaluated anyway


def train(
    spec: RunSpec,
    runtime: Runtime,
    log: SummaryWriter | None = None,
    split: str = TRAINVAL,
    checkpoints: Path | None = None,
    load: Load = data.load,
) -> Trained:
    """Train a model from its initialization, or from a checkpoint.

    Args:
        spec: the run, its task resolved.
        runtime: how the run is executed.
        log: TensorBoard writer; None: none.
        split: training images: `trainval` for all, or `train`.
        checkpoints: folder in which a checkpoint is saved every `runtime.checkpoint` epochs and at the end,
            and from which the training resumes; None: no checkpoints.
        load: loads a split, as `petl_bench.data.load` does.

    Raises:
        DivergedError: a loss is not finite.
        StoreError: a checkpoint cannot be written.
    """
    prepare_process(runtime.device, runtime.threads)
    device, recipe = torch.device(runtime.device), spec.train
    images = load(spec.task, split, spec.backbone.image_size, runtime.cache, native=recipe.augment.crop)
    adapted = assemble(
        spec.model,
        spec.seed,
        recipe.drop_path,
        recipe.activations,
        start=spec.start,
        statistics_of=spec.statistics_of,
    )
    state = _initial_state(spec, runtime, split, checkpoints)
    if not state.load(device):
        calibrate(adapted, spec, runtime, split, load)
    adapted.prepare(spec.precision, device)
    state.restore(adapted.trainable, adapted.adapter.calibrated)
    adapted.adapter.attached.decode()
    if log is not None:
        log_epochs(log, state.losses, recipe)
    head_only = _trains_head_only(spec, adapted)
    if len(state.losses) < recipe.epochs:
        pixels = Pixels(recipe.normalization, spec.backbone.image_size, device)
        model, features = _trained_module(adapted, images, pixels, head_only, runtime.compile)
        training = Training(
            model,
            adapted.trainable,
            images,
            recipe,
            pixels,
            spec.seed,
            log,
            features,
            classes=spec.task.classes,
            loaders=max(0, runtime.loaders),
            consistency=adapted.adapter.attached.consistency,
            factors=[spec.matrix_lr] * len(adapted.adapter.stacks),
            hooks=_RunHooks(spec, runtime, adapted, state, split, head_only),
            state=state,
        )
        fit(training)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    passes = 1 if head_only else recipe.epochs
    return Trained(
        adapted, state.seconds, state.earlier_seconds, len(images), passes, state.losses, state.peeks
    )


def _initial_state(spec: RunSpec, runtime: Runtime, split: str, checkpoints: Path | None) -> TrainingState:
    """Return the state of a training before its first epoch, with the path of its checkpoint."""
    average = Average(spec.train.average, spec.train.epochs) if spec.train.average.checkpoints else None
    path = checkpoints / f"{identify(spec)}-{split}.safetensors" if checkpoints is not None else None
    return TrainingState(path, runtime.checkpoint, average, " ".join(sources(spec).values()))


class _RunHooks(Hooks):
    """Rate regularizer, average of states and peeks of a run."""

    def __init__(
        self,
        spec: RunSpec,
        runtime: Runtime,
        adapted: Adapted,
        state: TrainingState,
        split: str,
        head_only: bool,
    ) -> None:
        self.spec, self.runtime, self.adapted, self.state = spec, runtime, adapted, state
        self.looked_at, self.after = looks(spec, split)
        if head_only and self.looked_at == "val":
            self.after = []  # each look would take longer than the whole training
        self.regularizer = None
        if spec.rate_weight:
            self.regularizer = RateRegularizer(adapted.adapter.quantized, spec.seed, spec.rate_weight)

    def before_epoch(self, epoch: int) -> None:
        if self.regularizer is not None and epoch >= max(1, self.spec.train.warmup_epochs):
            self.regularizer.refresh()

    def before_step(self) -> None:
        if self.runtime.compile == "reduce-overhead":  # a replayed graph writes over the tensors of the last
            torch.compiler.cudagraph_mark_step_begin()

    def after_step(self, learning_rate: float) -> None:
        if self.regularizer is not None:
            self.regularizer.step(learning_rate * self.spec.matrix_lr)

    def after_epoch(self, epoch: int) -> None:
        if self.state.average is not None:
            self.state.average.after_epoch(self.state.losses, self.adapted.trainable)
        if epoch in self.after:
            self.state.peeks.append(self._look())

    def _look(self) -> float:
        try:
            return _evaluate(self.spec, self.adapted, self.looked_at, self.runtime)
        except DivergedError:
            if self.looked_at == "test":
                raise
            return 0.0  # a look at val decides nothing: the training goes on as without it


def _trains_head_only(spec: RunSpec, adapted: Adapted) -> bool:
    """Return whether the inputs of the head never change, so that one pass through the backbone is enough.

    Drop path changes a head's inputs only where something before it is trained: without that, it is left out.
    """
    random = spec.train.augment.random or spec.backbone.has_dropout
    return not (adapted.adapter.trainable or random)


def _trained_module(
    adapted: Adapted, images: Split, pixels: Pixels, head_only: bool, mode: str
) -> tuple[nn.Module, Tensor | None]:
    """Return the module to train, and its inputs if they are features instead of images.

    Args:
        adapted: the prepared model.
        images: training images.
        pixels: conversion of the images to the input of the backbone.
        head_only: whether only the head is trained, on features that are computed once.
        mode: mode of torch.compile, or none.
    """
    if head_only:
        return adapted.probe(), adapted.features(lambda network: outputs(network, images, pixels))
    return (adapted.network if mode == "none" else Compiled(adapted.network, mode)), None


def _evaluate(spec: RunSpec, adapted: Adapted, split: str, runtime: Runtime) -> float:
    size = spec.backbone.image_size
    pixels = Pixels(spec.train.normalization, size, torch.device(runtime.device))
    return evaluate(adapted.network, data.load(spec.task, split, size, runtime.cache), pixels)
