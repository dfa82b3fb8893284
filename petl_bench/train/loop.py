"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div
from torch.utils.tensorboard import SummaryWriter

from petl_bench.data import Split
from petl_bench.errors import DivergedError, UserError, counted
from petl_bench.train.augment import AugmentedImages, BatchAugmentation
from petl_bench.train.checkpoint import TrainingState
from petl_bench.train.pixels import Pixels
from petl_bench.train.schedule import image_order, learning_rate
from petl_bench.train.tensorboard import log_epochs
from petl_bench.types import NORMALIZATIONS, TrainSpec


class Hooks:
    """Callbacks of a training. A subclass overrides those that it needs."""

    def before_epoch(self, epoch: int) -> None:
        """Called before each epoch with its number, from 0."""

    def before_step(self) -> None:
        """Called before each step, when nothing of the last one is needed any more."""

    def after_step(self, learning_rate: float) -> None:
        """Called after each step of the optimizer."""

    def after_epoch(self, epoch: int) -> None:
        """Called after each epoch, once its loss is in the state."""


@dataclass(frozen=True)
class Training:
    """Everything that `fit` needs.

    Attributes:
        model: on the device of `pixels`; receives (batch, 3, S, S), or rows of `features`, and returns logits
            (batch, classes).
        parameters: trainable parameters; all others must be frozen.
        images: training images and their labels.
        recipe: hyperparameters of the training.
        pixels: conversion of the images to the input of the model.
        seed: seed of the order and the augmentation of images; dropout uses torch's global generator.
        log: TensorBoard writer for the loss and the learning rate of each epoch; None: none.
        features: inputs of the model in place of the images, one row per image; None: the images.
        classes: number of classes; needed only for mixup and CutMix.
        loaders: processes that augment images; results do not depend on their number.
        consistency: weight of the symmetric KL divergence between two passes over each batch; 0: one pass.
        factors: factors on the learning rate of the first parameters; that of the others is 1.
        hooks: callbacks.
        state: state to begin from, which is updated and saved after each epoch.
    """

    model: nn.Module
    parameters: Sequence[nn.Parameter]
    images: Split
    recipe: TrainSpec
    pixels: Pixels
    seed: int
    log: SummaryWriter | None = None
    features: Tensor | None = None
    classes: int = 0
    loaders: int = 0
    consistency: float = 0.0
    factors: Sequence[float] = ()
    hooks: Hooks = field(default_factory=Hooks)
    state: TrainingState = field(default_factory=TrainingState)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameters in order, in groups of equal factors, as optimizers take them."""
        pairs = zip_longest(self.parameters, self.factors, fillvalue=1.0)
        groups = groupby(pairs, key=lambda pair: pair[1])
        return [{"params": [parameter for parameter, _ in group], "factor": f} for f, group in groups]

    def batches(self, order: Tensor, begin: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels of all batches from epoch `begin` on.

        Args:
            order: indices of the images (epochs, batches, batch).
            begin: first epoch.
        """
        recipe, images, device = self.recipe, self.images, self.pixels.device
        if self.features is not None:
            yield from _rows(self.features, images, order[begin:])
        elif recipe.augment.crop:
            normalization = NORMALIZATIONS[recipe.normalization]
            augmented = AugmentedImages(
                images.images, recipe.augment, self.pixels.size, normalization, self.seed, device
            )
            labels = torch.from_numpy(images.labels)[order[begin:].flatten(0, 1)].to(device)
            batches = augmented.batches(order, self.loaders, begin)
            for batch, target in zip(batches, labels, strict=True):
                yield self.pixels(batch), target
        else:
            assert isinstance(images.images, np.ndarray)
            for batch, target in _rows(torch.from_numpy(images.images).to(device), images, order[begin:]):
                yield self.pixels(batch), target


class Compiled(nn.Module):
    """A network that torch.compile has turned into one graph, with the quantization of its weights.

    The network itself does not change, and shares its parameters.

    Args:
        network: the network. What its hooks do before a pass belongs to the graph.
        mode: mode of torch.compile.
    """

    def __init__(self, network: nn.Module, mode: str) -> None:
        super().__init__()
        self.network = network
        self.run = torch.compile(self._pass, mode=mode)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (batch, classes) for images (batch, 3, S, S)."""
        logits: Tensor = self.run(images)
        return logits

    def _pass(self, images: Tensor) -> Tensor:
        """Call the network; of a module itself, torch would compile the hooks and the pass apart."""
        logits: Tensor = self.network(images)
        return logits


def fit(training: Training) -> list[float]:
    """Train in place with AdamW; incomplete batches are dropped.

    Returns:
        The mean loss of each epoch, including those of earlier attempts.

    Raises:
        UserError: there are fewer images than one batch.
        DivergedError: a loss is not finite.
        StoreError: a checkpoint cannot be written.
    """
    images, recipe, device = training.images, training.recipe, training.pixels.device
    if len(images) < recipe.batch_size:
        raise UserError(
            f"train.batch_size={recipe.batch_size}: the training set has {counted(len(images), 'image')}, "
            "not one batch"
        )
    model, state, hooks = training.model, training.state, training.hooks
    optimizer = torch.optim.AdamW(training.groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    order = image_order(len(images), recipe, training.seed)
    steps, begin = order.shape[1], len(state.losses)
    batches = training.batches(order, begin)
    augment = BatchAugmentation(recipe, training.classes, training.seed, device, step=begin * steps)
    state.resume(optimizer)
    for epoch in range(begin, recipe.epochs):
        hooks.before_epoch(epoch)
        model.train()
        rate = learning_rate(epoch, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        total = torch.zeros((), device=device)
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            hooks.before_step()
            inputs, target = augment(*next(batches))
            logits = model(inputs)
            loss = augment.loss(logits, target)
            if training.consistency:
                loss = loss + training.consistency * symmetric_kl(logits, model(inputs))
            loss.backward()
            optimizer.step()
            hooks.after_step(rate)
            total += loss.detach()
        state.losses.append(total.item() / steps)
        if not math.isfinite(state.losses[-1]):
            raise DivergedError(f"the loss is not finite at epoch {epoch}: lower train.lr or scale")
        if training.log is not None:
            log_epochs(training.log, state.losses[-1:], recipe, epoch)
        hooks.after_epoch(epoch)
        state.save(optimizer, recipe.epochs)
    return state.losses


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """Return half the sum of both Kullback-Leibler divergences, averaged over the batch.

    Args:
        one: logits (batch, classes).
        other: logits (batch, classes).

    Returns:
        The divergence (). In each of the two terms the target distribution receives no gradient.
    """
    first, second = one.log_softmax(1), other.log_softmax(1)
    terms = (
        kl_div(value, target.detach(), reduction="batchmean", log_target=True)
        for value, target in ((first, second), (second, first))
    )
    return 0.5 * sum(terms, torch.zeros((), device=one.device))


def _rows(values: Tensor, images: Split, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows of `values` and their labels for every batch, with everything on the device of `values`."""
    labels = torch.from_numpy(images.labels).to(values.device)
    for batch in order.flatten(0, 1).to(values.device):
        yield values[batch], labels[batch]
