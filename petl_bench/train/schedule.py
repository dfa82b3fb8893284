"""Schedules of a training: the learning rate of each epoch and the order of the images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from petl_bench.types import TrainSpec


def learning_rate(epoch: int, recipe: TrainSpec) -> float:
    """Return the learning rate of an epoch, counted from 0.

    A linear warm-up from `warmup_lr` is followed by a cosine from `lr` to `min_lr`. The cosine spans all
    epochs, and the warm-up replaces its beginning. Both are delayed by `schedule_lag` epochs: with the recipe
    of arXiv 2307.16867, epochs 0 and 1 run at 1e-6 and the peak is 9.758e-4 at epoch 11.
    """
    time = max(epoch - recipe.schedule_lag, 0)
    if time < recipe.warmup_epochs:
        return recipe.warmup_lr + time * (recipe.lr - recipe.warmup_lr) / recipe.warmup_epochs
    wave = 1 + math.cos(math.pi * time / recipe.epochs)
    return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * wave


def image_order(count: int, recipe: TrainSpec, seed: int) -> Tensor:
    """Return the indices of the images of each batch; incomplete batches are dropped.

    Args:
        count: number of training images, at least one batch.
        recipe: recipe with the number of epochs and the batch size.
        seed: seed of the order.

    Returns:
        Indices (epochs, batches, batch), int64.
    """
    generator = torch.Generator().manual_seed(seed)
    used = count // recipe.batch_size * recipe.batch_size
    epochs = [torch.randperm(count, generator=generator)[:used] for _ in range(recipe.epochs)]
    return torch.stack(epochs).view(recipe.epochs, -1, recipe.batch_size)
