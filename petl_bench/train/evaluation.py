"""Evaluation of a model on the images of a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petl_bench.data import Split
from petl_bench.errors import DivergedError, out_of_memory
from petl_bench.train.allocations import Allocations
from petl_bench.train.pixels import Pixels, to_device

LARGEST = 256
"""Images that pass through a model together, at most."""
SHARE = 0.5
"""Share of a GPU's free memory that the tensors of a pass may take."""
FEW = 32
"""Images that pass through a model on a GPU together without a look at its memory."""


def evaluation_batch(size: int, device: torch.device) -> int:
    """Return the largest batch for images of size x size, which for a CPU is one that suits its caches."""
    return LARGEST if device.type == "cuda" else min(LARGEST, 16 * 224**2 // size**2 or 1)


class Passes:
    """Passes of images through a model for evaluation, in batches that the memory of a GPU holds.

    Where there are more than `FEW` images, the first one goes alone, and the bytes of its tensors are
    counted. So many images go together from then on as `SHARE` of the free memory holds, a power of two.

    Args:
        model: on the device of `pixels`; receives (batch, 3, S, S).
        pixels: conversion of the images to the input of the model.
        again: whether a batch that does not fit nevertheless, and all later ones, are halved. Otherwise the
            error is raised: for models that keep something of each pass.

    Attributes:
        size: images of the next batch, at most.
    """

    def __init__(self, model: nn.Module, pixels: Pixels, again: bool = True) -> None:
        self.model, self.pixels, self.again = model, pixels, again
        self.size = evaluation_batch(pixels.size, pixels.device)
        self.on_gpu = pixels.device.type == "cuda"
        self.unknown = self.on_gpu
        """True until the bytes of one image are counted; always False on a CPU."""

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the outputs of the model, in order and in as many parts as needed.

        Args:
            images: (images, channels, height, width), uint8, on the CPU.
        """
        start = 0
        while start < len(images):
            first = self.unknown and len(images) > FEW
            part = images[start : start + (1 if first else self.size)]
            try:
                found = self._counted(part) if first else self._run(part)
            except RuntimeError as error:
                if not (self.again and self.on_gpu and len(part) > 1 and out_of_memory(error)):
                    raise
                self.size = len(part) // 2
                continue
            yield found
            start += len(part)

    def _run(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.model(self.pixels(to_device(images, self.pixels.device)))
        return outputs

    def _counted(self, image: Tensor) -> Tensor:
        """Return the outputs for one image, and choose the batch by the bytes of its pass."""
        with Allocations() as counted:
            found = self._run(image)
        self.unknown = False
        device = self.pixels.device
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + unused
        most = max(1, int(SHARE * free / max(1, counted.peak)))
        self.size = min(self.size, 2 ** (most.bit_length() - 1))
        return found


@torch.inference_mode()
def outputs(model: nn.Module, images: Split, pixels: Pixels, again: bool = True) -> Iterator[Tensor]:
    """Yield the outputs of a model for each batch of images, in order.

    Args:
        model: on the device of `pixels`; receives (batch, 3, S, S).
        images: split whose images have one size.
        pixels: conversion of the images to the input of the model.
        again: whether images may pass again where the memory of a GPU does not suffice; see `Passes`.
    """
    model.eval()
    assert isinstance(images.images, np.ndarray)
    passes = Passes(model, pixels, again)
    start = 0
    while start < len(images):
        batch = torch.from_numpy(images.images[start : start + passes.size])
        yield from passes(batch)
        start += len(batch)


def predict(model: nn.Module, images: Split, pixels: Pixels) -> NDArray[np.int64]:
    """Return the class with the greatest logit for each image (images,).

    Args:
        model: as in `outputs`; returns logits (batch, classes).
        images: as in `outputs`.
        pixels: as in `outputs`.

    Raises:
        DivergedError: a logit is not finite.
    """
    classes = []
    finite = torch.ones((), dtype=torch.bool, device=pixels.device)
    for logits in outputs(model, images, pixels):
        classes.append(logits.argmax(1))
        finite &= logits.isfinite().all()
    if not finite:
        raise DivergedError("the model's outputs are not finite: lower train.lr or scale")
    return torch.cat(classes).cpu().numpy()


def evaluate(model: nn.Module, images: Split, pixels: Pixels) -> float:
    """Return the accuracy of a model, a fraction from 0 to 1; see `predict`."""
    return float((predict(model, images, pixels) == images.labels).mean())
