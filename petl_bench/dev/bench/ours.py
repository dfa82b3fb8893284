"""Timed work of this implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from petl_bench.config import plan
from petl_bench.data import Split
from petl_bench.dev.bench.case import CLASSES, HIDDEN, Setting
from petl_bench.dev.bench.measure import Work
from petl_bench.model import Adapted, assemble, restore
from petl_bench.quantizers import FakeQuantize
from petl_bench.run.execute import execute
from petl_bench.run.identity import job_of, resolve_tasks
from petl_bench.train import Pixels, Training, evaluate, fit
from petl_bench.types import AdapterSpec, ModelSpec, Runtime, TrainSpec

DROP_PATH = 0.1
"""Drop-path rate of the last block in training."""


def model_spec(
    setting: Setting, adapter: str = "adaptformer", bits: int = 1, hidden: int = HIDDEN
) -> ModelSpec:
    """Return the specification of the model that both sides build."""
    chosen = AdapterSpec(adapter, {"dropout": 0.1})
    return ModelSpec(setting.backbone, chosen, hidden, 1.0, "l1_median", bits, "linear", CLASSES)


def prepared(spec: ModelSpec, precision: str, device: str, drop_path: float = 0.0) -> Adapted:
    """Return an adapted model that is ready for training on a device."""
    adapted = assemble(spec, drop_path=drop_path)
    adapted.prepare(precision, torch.device(device))
    return adapted


def pictures(count: int, side: int) -> Split:
    """Return random uint8 images of shape (count, 3, side, side) with labels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return Split(images, random.integers(0, CLASSES, count))


def training(spec: ModelSpec, precision: str, setting: Setting, steps: int) -> Work:
    """Return a function that trains for `steps` steps with petl_bench.train.fit on uint8 images."""
    adapted = prepared(spec, precision, setting.device, DROP_PATH)
    side = setting.backbone.image_size
    split, pixels = pictures(setting.batch * steps, side), Pixels("none", side, torch.device(setting.device))
    recipe = TrainSpec(1, setting.batch, 1e-3, 1e-4, 0, 1e-6, 1e-5, 1, DROP_PATH, "none")
    return lambda: fit(Training(adapted.network, adapted.trainable, split, recipe, pixels, seed=0))


def evaluation(spec: ModelSpec, precision: str, setting: Setting, count: int) -> Work:
    """Return a function that classifies `count` images with a model restored from its file."""
    file = prepared(spec, "fp32", "cpu").file({})
    device, side = torch.device(setting.device), setting.backbone.image_size
    network = restore(spec, file, "bench", precision, device)
    split, pixels = pictures(count, side), Pixels("none", side, device)
    return lambda: evaluate(network, split, pixels)


def quantizer(bits: int, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Work:
    """Return a function that quantizes weights, stacked by shape, and computes the gradients of latents.

    Args:
        bits: bits per weight.
        weights: latent weights of shape (outputs, inputs).
        gradients: gradients of the quantized weights, of the same shapes.
    """
    quantize = FakeQuantize("l1_median", bits).to(weights[0].device)
    shapes = dict.fromkeys(weight.shape for weight in weights)

    def stacks(matrices: Sequence[Tensor]) -> list[Tensor]:
        return [torch.stack([one for one in matrices if one.shape == shape]) for shape in shapes]

    latents = [stack.requires_grad_() for stack in stacks(weights)]
    upstream = stacks(gradients)

    return lambda: torch.autograd.grad([quantize(latent) for latent in latents], latents, upstream)


def run(root: Path, scratch: Path, setting: Setting, precision: str, epochs: int, batch: int) -> None:
    """Execute a complete run on image files, from the plan to the stored result.

    Args:
        root: folder of the images and their lists.
        scratch: new folder for store and cache.
        setting: device and sizes.
        precision: a name of PRECISIONS, resolved.
        epochs: number of training epochs.
        batch: training batch size.
    """
    planned = plan(
        [
            "sweep=none",
            "task=folder",
            f"data.root='{root}'",
            f"data.cache='{scratch / 'cache'}'",
            "adapter=adaptformer",
            f"hidden={HIDDEN}",
            "bits=1",
            "scale=1",
            "protocol=fixed",
            "train=vtab",
            f"train.epochs={epochs}",
            f"train.batch_size={batch}",
            f"precision={precision}",
        ]
    )
    (spec,) = resolve_tasks([replace(run, backbone=setting.backbone) for run in planned.runs], planned.cache)
    store = str(scratch / "store")
    execute(job_of(spec), Runtime(store, setting.device, planned.cache, threads=setting.threads))
