"""Distillation of BitDelta's coefficients on the training images of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from petl_bench import data
from petl_bench.model import Adapted
from petl_bench.model.compression import bitdelta
from petl_bench.train import Pixels
from petl_bench.types import TRAINVAL, RunSpec, Runtime

STEPS = 200
"""Steps of the optimizer, as in the source."""
LEARNING_RATE = 1e-2
"""Learning rate of the factors on the initial coefficients at the first step; a cosine lets it fall to 0."""


def distilled(
    start: Adapted, trained: Adapted, moved: Sequence[Tensor], spec: RunSpec, runtime: Runtime
) -> list[float]:
    """Return the coefficients with which the compressed network best gives the trained one's logits.

    Factors on the initial coefficients start at 1 and are trained in float32 by AdamW on batches of training
    images without augmentation; the loss is the mean squared error of the logits.

    Args:
        start: the model at its start, not prepared.
        trained: the trained model, not prepared.
        moved: differences of its matrices from the pretrained weights.
        spec: the run, its task resolved.
        runtime: how the run is executed.
    """
    device, size = torch.device(runtime.device), spec.backbone.image_size
    images = data.load(spec.task, TRAINVAL, size, runtime.cache)
    decoded = images.images
    assert isinstance(decoded, np.ndarray)
    pixels = Pixels(spec.train.normalization, size, device)
    teacher, student = (model.network.eval().requires_grad_(False).to(device) for model in (trained, start))
    initial = bitdelta.coefficients(moved)
    signs = [torch.where(difference > 0, 1.0, -1.0).to(device) for difference in moved]
    base, fixed = _split(start, trained)
    factors = torch.ones(len(signs), device=device, requires_grad=True)
    sizes = torch.tensor(initial, device=device)
    optimizer = torch.optim.AdamW([factors], LEARNING_RATE, weight_decay=0.0)
    order = np.random.default_rng(spec.seed)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        chosen = order.choice(len(images), min(spec.train.batch_size, len(images)), replace=False)
        batch = pixels(torch.from_numpy(decoded[np.sort(chosen)]).to(device))
        with torch.no_grad():
            wanted = teacher(batch)
        weights = {
            name: weight + factor * size * sign
            for (name, weight), factor, size, sign in zip(base.items(), factors, sizes, signs, strict=True)
        }
        loss = nn.functional.mse_loss(functional_call(student, weights | fixed, (batch,)), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [float(value) for value in (factors.detach() * sizes).cpu()]


def _split(start: Adapted, trained: Adapted) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the pretrained matrices by name, in the order of the file, and all other trained parameters."""
    names = {id(parameter): name for name, parameter in start.network.named_parameters()}
    pairs = list(
        zip(start.adapter.floats[bitdelta.GROUP], trained.adapter.floats[bitdelta.GROUP], strict=True)
    )
    base: dict[str, Tensor] = {names[id(begun)]: begun for begun, _ in pairs if bitdelta.is_matrix(begun)}
    fixed: dict[str, Tensor] = {
        names[id(begun)]: own for begun, own in pairs if not bitdelta.is_matrix(begun)
    }
    head = dict(zip(_names(start, names), trained.head.linears[0].parameters(), strict=True))
    return base, fixed | head


def _names(start: Adapted, names: dict[int, str]) -> list[str]:
    return [names[id(parameter)] for parameter in start.head.linears[0].parameters()]
