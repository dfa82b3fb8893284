"""Evaluation of a model on the images of a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petl_bench.data import Split
from petl_bench.errors import DivergedError, out_of_memory
from petl_bench.train.pixels import Pixels, to_device


def evaluation_batch(size: int, device: torch.device) -> int:
    """Return the batch size for images of size x size: large for a GPU, and suited to the caches of a CPU."""
    return 256 if device.type == "cuda" else min(256, 16 * 224**2 // size**2 or 1)


@torch.inference_mode()
def outputs(model: nn.Module, images: Split, pixels: Pixels) -> Iterator[Tensor]:
    """Yield the outputs of a model for each batch of images, in order.

    Where a batch does not fit into the memory of a GPU, it and all later ones are halved.

    Args:
        model: on the device of `pixels`; receives (batch, 3, S, S).
        images: split whose images have one size.
        pixels: conversion of the images to the input of the model.
    """
    model.eval()
    assert isinstance(images.images, np.ndarray)
    size = evaluation_batch(pixels.size, pixels.device)
    start = 0
    while start < len(images):
        batch = torch.from_numpy(images.images[start : start + size])
        try:
            found = model(pixels(to_device(batch, pixels.device)))
        except RuntimeError as error:
            if size == 1 or pixels.device.type != "cuda" or not out_of_memory(error):
                raise
            size //= 2
            continue
        yield found
        start += size


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
