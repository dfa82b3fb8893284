"""fit() and evaluate(): the loops, the schedule, TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import kl_div
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from petl_bench.data import Split
from petl_bench.errors import UserError
from petl_bench.train.augment import Augmented, Mixing
from petl_bench.train.checkpoint import TrainingState
from petl_bench.train.pixels import Pixels
from petl_bench.types import NORMALIZATIONS, TrainSpec


def evaluation_batch(size: int, device: torch.device) -> int:
    """Images of size x size in a batch: what fills a GPU, or what a CPU's caches are quickest with."""
    return 256 if device.type == "cuda" else min(256, 16 * 224**2 // size**2 or 1)


class DivergedError(UserError):
    """Training went to a loss or a model whose values are not finite."""


def compiled(model: nn.Module, mode: str) -> nn.Module:
    """The same model for training; evaluations of the model itself stay as they are.

    Args:
        mode: of torch.compile.
    """
    made: Any = torch.compile(model, mode=mode)
    assert isinstance(made, nn.Module)
    return made


def learning_rate(epoch: int, recipe: TrainSpec) -> float:
    """Learning rate of an epoch, counted from 0.

    Linear warm-up from `warmup_lr`, then a cosine from `lr` down to `min_lr` over all epochs (the warm-up
    cuts its beginning off), `schedule_lag` epochs behind: with the recipe of arXiv 2307.16867 epochs 0 and
    1 run at 1e-6 and the peak is 9.758e-4 at epoch 11.
    """
    time = max(epoch - recipe.schedule_lag, 0)
    if time < recipe.warmup_epochs:
        return recipe.warmup_lr + time * (recipe.lr - recipe.warmup_lr) / recipe.warmup_epochs
    wave = 1 + math.cos(math.pi * time / recipe.epochs)
    return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * wave


def fit(
    model: nn.Module,
    trainable: Iterable[nn.Parameter],
    split: Split,
    recipe: TrainSpec,
    pixels: Pixels,
    seed: int,
    log: SummaryWriter | None = None,
    *,
    features: Tensor | None = None,
    classes: int = 0,
    loaders: int = 0,
    before_epoch: Callable[[int], None] | None = None,
    after_step: Callable[[float], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    consistency: float = 0.0,
    progress: TrainingState | None = None,
) -> list[float]:
    """Train in place with AdamW; incomplete batches are dropped.

    Args:
        model: on its device; receives (batch, 3, S, S) and returns (batch, classes).
        trainable: the parameters to train; all others must be frozen already.
        seed: decides the order of images and their augmentation; dropout follows torch's global generator.
        log: TensorBoard writer for loss and learning rate, one value an epoch.
        features: what the model receives instead of images, one row for each of them.
        classes: of the task; needed for mixup and cutmix only.
        loaders: processes that augment images; the images do not depend on their number.
        before_epoch: called with the number of the epoch, from 0.
        after_step: called with the learning rate.
        after_epoch: called with the number of the epoch.
        consistency: weight of the divergence between the logits of two passes over each batch; 0: one pass.
        progress: where to go on from, and where to keep how far it is; it gets the losses, too.

    Returns:
        The mean loss of each epoch, those of earlier attempts included.

    Raises:
        UserError: fewer images than one batch, or an odd one with mixup.
        DivergedError: a loss that is not finite.
        StoreError: a checkpoint cannot be written.
    """
    if len(split) < recipe.batch_size:
        raise UserError(
            f"train.batch_size={recipe.batch_size}: the training set has {len(split)} images, not one batch"
        )
    parameters = list(trainable)
    device = pixels.device
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    schedule = _schedule(len(split), recipe, seed)
    progress = progress or TrainingState()
    losses = progress.losses
    begin = len(losses)
    if features is None:
        batches = _batches(split, schedule, recipe, pixels, seed, loaders, begin)
    else:
        batches = _rows(features, split, schedule[begin:])
    mix = Mixing(recipe, classes, seed, device, step=begin * schedule.shape[1])
    progress.resume(optimizer)
    for epoch in range(begin, recipe.epochs):
        if before_epoch is not None:
            before_epoch(epoch)
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch, recipe)
        total = torch.zeros((), device=device)
        for _ in range(schedule.shape[1]):
            images, target = mix(*next(batches))
            logits = model(images)
            loss = mix.loss(logits, target)
            if consistency:
                loss = loss + consistency * divergence(logits, model(images))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if after_step is not None:
                after_step(learning_rate(epoch, recipe))
            total += loss.detach()
        losses.append(total.item() / schedule.shape[1])
        if not math.isfinite(losses[-1]):
            raise DivergedError(f"the loss is not finite at epoch {epoch}: lower train.lr or scale")
        if log is not None:
            log_epochs(log, losses[-1:], recipe, epoch)
        if after_epoch is not None:
            after_epoch(epoch)
        progress.keep(optimizer, recipe.epochs)
    return losses


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """Half the sum of both Kullback-Leibler divergences, mean over the batch; logits (batch, classes).

    In each, the distribution that is the target gets no gradient.
    """
    first, second = one.log_softmax(1), other.log_softmax(1)
    halves = (
        kl_div(value, target.detach(), reduction="batchmean", log_target=True)
        for value, target in ((first, second), (second, first))
    )
    return 0.5 * sum(halves, torch.zeros((), device=one.device))


def _schedule(count: int, recipe: TrainSpec, seed: int) -> Tensor:
    """The indices of each full batch of each epoch: (epochs, batches, batch size)."""
    order = torch.Generator().manual_seed(seed)
    used = count // recipe.batch_size * recipe.batch_size
    epochs = [torch.randperm(count, generator=order)[:used] for _ in range(recipe.epochs)]
    return torch.stack(epochs).view(recipe.epochs, -1, recipe.batch_size)


def _batches(
    split: Split,
    schedule: Tensor,
    recipe: TrainSpec,
    pixels: Pixels,
    seed: int,
    loaders: int,
    begin: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Input and labels of every batch from epoch `begin` on, in order."""
    device = pixels.device
    if recipe.augment.crop:
        mean, std = NORMALIZATIONS[recipe.normalization]
        augmented = Augmented(split.images, recipe.augment, pixels.size, (mean, std), seed)
        labels = torch.from_numpy(split.labels)[schedule[begin:].flatten(0, 1)].to(device)
        for images, target in zip(augmented.batches(schedule, loaders, begin), labels, strict=True):
            yield pixels(sent(images, device)), target
        return
    assert isinstance(split.images, np.ndarray)
    held = torch.from_numpy(split.images).to(device)
    for images, target in _rows(held, split, schedule[begin:]):
        yield pixels(images), target


def _rows(held: Tensor, split: Split, schedule: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of `held` and their labels for every batch, all of it on the device from the start."""
    labels = torch.from_numpy(split.labels).to(held.device)
    for batch in schedule.flatten(0, 1).to(held.device):
        yield held[batch], labels[batch]


def sent(images: Tensor, device: torch.device) -> Tensor:
    """On the device; to a GPU without waiting for it."""
    if device.type != "cuda":
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)


@torch.inference_mode()
def outputs(model: nn.Module, split: Split, pixels: Pixels) -> Iterator[Tensor]:
    """What the model gives for each batch of images, in order; on the pixels' device."""
    model.eval()
    assert isinstance(split.images, np.ndarray)
    size = evaluation_batch(pixels.size, pixels.device)
    for start in range(0, len(split), size):
        yield model(pixels(sent(torch.from_numpy(split.images[start : start + size]), pixels.device)))


def predict(model: nn.Module, split: Split, pixels: Pixels) -> NDArray[np.int64]:
    """The class of the greatest logit of every image.

    Raises:
        DivergedError: a logit is not finite.
    """
    found = []
    finite = torch.ones((), dtype=torch.bool, device=pixels.device)
    for logits in outputs(model, split, pixels):
        found.append(logits.argmax(1))
        finite &= logits.isfinite().all()
    if not finite:
        raise DivergedError("the model's outputs are not finite: lower train.lr or scale")
    return torch.cat(found).cpu().numpy()


def evaluate(model: nn.Module, split: Split, pixels: Pixels) -> float:
    """Fraction of images that `predict` gets right."""
    return float((predict(model, split, pixels) == split.labels).mean())


def log_epochs(log: SummaryWriter, losses: Sequence[float], recipe: TrainSpec, begin: int = 0) -> None:
    """Write losses and learning rates for TensorBoard, the first of them of epoch `begin`."""
    for epoch, loss in enumerate(losses, begin):
        log.add_scalar("train/loss", loss, epoch)
        log.add_scalar("train/lr", learning_rate(epoch, recipe), epoch)


def log_result(log: SummaryWriter, settings: Mapping[str, str | float], result: Mapping[str, float]) -> None:
    """Write a run's settings and result for TensorBoard's HPARAMS page into the run's own directory."""
    events: Any = log.file_writer
    for summary in hparams(dict(settings), dict(result)):
        events.add_summary(summary)
    for name, value in result.items():
        log.add_scalar(name, value)
