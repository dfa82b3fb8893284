"""Calibration: the access of adapter methods to the training images before the training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from petl_bench import data
from petl_bench.data import Load
from petl_bench.model import Adapted
from petl_bench.train import Pixels, Training, fit, outputs
from petl_bench.types import RunSpec, Runtime


class Calibration:
    """Access of a method to the training images; see petl_bench.adapters.base.Calibration.

    Args:
        adapted: model that is not yet prepared for training, on its device.
        spec: the run, its task resolved.
        runtime: how the run is executed.
        split: training images: `trainval` or `train`.
        load: loads a split, as `petl_bench.data.load` does.
    """

    def __init__(
        self, adapted: Adapted, spec: RunSpec, runtime: Runtime, split: str, load: Load = data.load
    ) -> None:
        self.network = adapted.network
        self.head = [*adapted.head.linears[0].parameters()]
        self.spec, self.runtime, self.split, self.load = spec, runtime, split, load
        self.pixels = Pixels(spec.train.normalization, spec.backbone.image_size, torch.device(runtime.device))

    def observe(self) -> None:
        """Pass every training image through the network once in evaluation mode, without gradients."""
        images = self.load(self.spec.task, self.split, self.spec.backbone.image_size, self.runtime.cache)
        for _ in outputs(self.network, images, self.pixels, again=False):  # what is observed counts once
            pass

    def fit(self, parameters: Sequence[nn.Parameter], epochs: int) -> None:
        """Train parameters and the head by the run's recipe, then restore the head.

        Args:
            parameters: parameters to train, besides those of the head.
            epochs: number of epochs; the recipe is shortened to it.

        Raises:
            DivergedError: a loss is not finite.
        """
        recipe = self.spec.train.shortened(epochs / self.spec.train.epochs)
        size, crop = self.spec.backbone.image_size, recipe.augment.crop
        images = self.load(self.spec.task, self.split, size, self.runtime.cache, native=crop)
        before = [parameter.detach().clone() for parameter in self.head]
        fit(
            Training(
                self.network,
                [*parameters, *self.head],
                images,
                recipe,
                self.pixels,
                self.spec.seed,
                classes=self.spec.task.classes,
                loaders=max(0, self.runtime.loaders),
            )
        )
        with torch.no_grad():
            for parameter, value in zip(self.head, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None


def calibrate(adapted: Adapted, spec: RunSpec, runtime: Runtime, split: str, load: Load = data.load) -> None:
    """Calibrate the adapter if its method needs it, in float32 for any precision of the run.

    Args:
        adapted: model that is not yet prepared for training; it is on the CPU again afterwards.
        spec: the run, its task resolved.
        runtime: how the run is executed.
        split: training images: `trainval` or `train`.
        load: loads a split, as `petl_bench.data.load` does.

    Raises:
        UserError: see `Calibration.fit`.
    """
    if adapted.adapter.attached.calibrate is None:
        return
    adapted.network.to(torch.device(runtime.device))
    adapted.adapter.attached.calibrate(Calibration(adapted, spec, runtime, split, load))
    adapted.network.to("cpu")
