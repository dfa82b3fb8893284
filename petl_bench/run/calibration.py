"""What methods that look at the training images before the training may do with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from petl_bench import data
from petl_bench.model import Adapted
from petl_bench.train import Pixels, fit, outputs
from petl_bench.types import RunSpec, Runtime


class Calibration:
    """The training images of one training and a model that is not yet prepared; see petl_bench.adapters."""

    def __init__(self, adapted: Adapted, spec: RunSpec, runtime: Runtime, split: str) -> None:
        self.network = adapted.network
        self.head = [*adapted.head.linears[0].parameters()]
        self.spec, self.runtime, self.split = spec, runtime, split
        self.pixels = Pixels(spec.train.normalization, spec.backbone.image_size, torch.device(runtime.device))

    def observe(self) -> None:
        """Pass every training image through the network once, without gradients, as for evaluation."""
        images = data.load(self.spec.task, self.split, self.spec.backbone.image_size, self.runtime.cache)
        for _ in outputs(self.network, images, self.pixels):
            pass

    def fit(self, parameters: Sequence[nn.Parameter], epochs: int) -> None:
        """Train these and the head by the run's recipe over other epochs; the head is put back after.

        Raises:
            DivergedError: a loss that is not finite.
        """
        recipe = self.spec.train.shortened(epochs / self.spec.train.epochs)
        size, crop = self.spec.backbone.image_size, recipe.augment.crop
        images = data.load(self.spec.task, self.split, size, self.runtime.cache, native=crop)
        before = [parameter.detach().clone() for parameter in self.head]
        fit(
            self.network,
            [*parameters, *self.head],
            images,
            recipe,
            self.pixels,
            self.spec.seed,
            classes=self.spec.task.classes,
            loaders=self.runtime.loaders,
        )
        with torch.no_grad():
            for parameter, value in zip(self.head, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None


def calibrate(adapted: Adapted, spec: RunSpec, runtime: Runtime, split: str) -> None:
    """Let the method look at the training images, where it wants to; in float32, whatever the precision.

    Raises:
        UserError: as `Calibration.fit`.
    """
    if adapted.adapter.attached.calibrate is None:
        return
    adapted.network.to(torch.device(runtime.device))
    adapted.adapter.attached.calibrate(Calibration(adapted, spec, runtime, split))
    adapted.network.to("cpu")
