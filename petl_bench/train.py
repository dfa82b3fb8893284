"""fit() and evaluate(): the loops, the schedule, TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from petl_bench.data import Split
from petl_bench.errors import UserError
from petl_bench.types import NORMALIZATIONS, TrainSpec

EVALUATION_BATCH = 256


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


class Pixels:
    """Turns uint8 images (N, 1 or 3, H, W) into the backbone's input (N, 3, S, S) in float32."""

    def __init__(self, normalization: str, size: int, device: torch.device) -> None:
        mean, deviation = NORMALIZATIONS[normalization]
        self.mean = torch.tensor(mean, device=device)[:, None, None]
        self.deviation = torch.tensor(deviation, device=device)[:, None, None]
        self.size = size

    def __call__(self, images: Tensor) -> Tensor:
        pixels = images.float() / 255
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)
            pixels = pixels.clamp(0, 1)
        return (pixels.expand(-1, 3, -1, -1) - self.mean) / self.deviation


def fit(
    model: nn.Module,
    trainable: Iterable[nn.Parameter],
    split: Split,
    recipe: TrainSpec,
    pixels: Pixels,
    seed: int,
    log: SummaryWriter | None = None,
) -> list[float]:
    """Train in place with AdamW; incomplete batches are dropped.

    Args:
        model: on its device; receives (batch, 3, S, S).
        trainable: the parameters to train; all others must be frozen already.
        seed: decides the order of images; dropout follows torch's global generator.
        log: TensorBoard writer for loss and learning rate, one value an epoch.

    Returns:
        The mean loss of each epoch.

    Raises:
        UserError: fewer images than one batch, or a loss that is not finite.
    """
    if len(split) < recipe.batch_size:
        raise UserError(
            f"train.batch_size={recipe.batch_size}: the training set has {len(split)} images, not one batch"
        )
    parameters = list(trainable)
    device = parameters[0].device
    images, labels = torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    order = torch.Generator().manual_seed(seed)
    losses = []
    model.train()
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch, recipe)
        total = torch.zeros((), device=device)
        batches = torch.randperm(len(split), generator=order).to(device).split(recipe.batch_size)
        full = [batch for batch in batches if len(batch) == recipe.batch_size]
        for batch in full:
            loss = F.cross_entropy(model(pixels(images[batch])), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        losses.append(total.item() / len(full))
        if not math.isfinite(losses[-1]):
            raise UserError(f"the loss is not finite at epoch {epoch}: lower train.lr or scale")
        if log is not None:
            log.add_scalar("train/loss", losses[-1], epoch)
            log.add_scalar("train/lr", learning_rate(epoch, recipe), epoch)
    return losses


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, pixels: Pixels) -> float:
    """Fraction of images whose greatest logit is their label's."""
    device = next(model.parameters()).device
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for start in range(0, len(split), EVALUATION_BATCH):
        images = torch.from_numpy(split.images[start : start + EVALUATION_BATCH]).to(device)
        labels = torch.from_numpy(split.labels[start : start + EVALUATION_BATCH]).to(device)
        right += (model(pixels(images)).argmax(1) == labels).sum()
    return right.item() / len(split)


def log_result(log: SummaryWriter, settings: Mapping[str, str | float], result: Mapping[str, float]) -> None:
    """Write a run's settings and result for TensorBoard's HPARAMS page into the run's own directory."""
    events: Any = log.file_writer
    for summary in hparams(dict(settings), dict(result)):
        events.add_summary(summary)
    for name, value in result.items():
        log.add_scalar(name, value)
