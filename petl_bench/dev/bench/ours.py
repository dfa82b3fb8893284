"""This implementation's side of the comparisons, built from its own parts."""

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
from petl_bench.device import find_precision
from petl_bench.model import Adapted, assemble, restore
from petl_bench.quantizers import FakeQuantize
from petl_bench.run.execute import execute
from petl_bench.run.identity import job_of, resolve_tasks
from petl_bench.train import Pixels, evaluate, fit
from petl_bench.types import AdapterSpec, ModelSpec, Runtime, TrainSpec

DROP_PATH = 0.1
"""Of the last block, in training."""


def model_spec(
    setting: Setting, adapter: str = "adaptformer", bits: int = 1, hidden: int = HIDDEN
) -> ModelSpec:
    """The model that both sides build."""
    chosen = AdapterSpec(adapter, {"dropout": 0.1})
    return ModelSpec(setting.backbone, chosen, hidden, 1.0, "l1_median", bits, "linear", CLASSES)


def prepared(spec: ModelSpec, precision: str, device: str, drop_path: float = 0.0) -> Adapted:
    """An adapted model ready to be trained on its device."""
    adapted = assemble(spec, drop_path=drop_path)
    adapted.prepare(precision, torch.device(device))
    return adapted


def pictures(count: int, side: int) -> Split:
    """Random uint8 images (count, 3, side, side) and labels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return Split(images, random.integers(0, CLASSES, count))


def training(spec: ModelSpec, precision: str, setting: Setting, steps: int) -> Work:
    """One call trains `steps` steps by petl_bench.train.fit, from images as the cache holds them."""
    adapted = prepared(spec, precision, setting.device, DROP_PATH)
    side = setting.backbone.image_size
    split, pixels = pictures(setting.batch * steps, side), Pixels("none", side, torch.device(setting.device))
    recipe = TrainSpec(1, setting.batch, 1e-3, 1e-4, 0, 1e-6, 1e-5, 1, DROP_PATH, "none")
    return lambda: fit(adapted.network, adapted.trainable, split, recipe, pixels, seed=0)


def evaluation(spec: ModelSpec, precision: str, setting: Setting, count: int) -> Work:
    """One call classifies `count` images with the model that a file restores."""
    file = prepared(spec, "fp32", "cpu").file({})
    device, side = torch.device(setting.device), setting.backbone.image_size
    network = restore(spec, file, "bench", precision, device)
    split, pixels = pictures(count, side), Pixels("none", side, device)
    return lambda: evaluate(network, split, pixels)


def quantizer(bits: int, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Work:
    """One call quantizes weights (outputs, inputs), those of one shape at once, then takes gradients."""
    quantize = FakeQuantize("l1_median", bits).to(weights[0].device)
    shapes = dict.fromkeys(weight.shape for weight in weights)

    def stacks(matrices: Sequence[Tensor]) -> list[Tensor]:
        return [torch.stack([one for one in matrices if one.shape == shape]) for shape in shapes]

    latents = [stack.requires_grad_() for stack in stacks(weights)]
    upstream = stacks(gradients)

    return lambda: torch.autograd.grad([quantize(latent) for latent in latents], latents, upstream)


def run_precision(setting: Setting) -> str:
    """What `precision=auto` stands for on the device."""
    return find_precision("auto", setting.device)


def run(root: Path, scratch: Path, setting: Setting, epochs: int, batch: int) -> None:
    """A whole run on the files of `root`: planned, fingerprinted, decoded, trained, packed, evaluated, kept.

    Args:
        scratch: new folder for store and cache.
    """
    precision = run_precision(setting)
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
