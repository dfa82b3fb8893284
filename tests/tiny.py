"""Small models, recipes and data that several test files use."""

from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pytest
import torch

from petl_bench.adapters import ADAPTERS
from petl_bench.data import Split
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.train import Pixels
from petl_bench.types import (
    AdapterSpec,
    BackboneSpec,
    ModelSpec,
    ProtocolSpec,
    RunSpec,
    TaskSpec,
    TrainSpec,
)

BACKBONE = BackboneSpec(
    "vit_tiny_patch16_224", "random", 32, {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
)
FAMILIES = {
    "VisionTransformer": BACKBONE,
    "SwinTransformer": BackboneSpec(
        "swin_tiny_patch4_window7_224",
        "random",
        32,
        {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    ),
    # Layer scale starts at 1e-6 in timm, where a block could do anything unseen.
    "ConvNeXt": BackboneSpec(
        "convnext_atto",
        "random",
        32,
        {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16], "conv_mlp": False, "ls_init_value": 0.5},
    ),
    # Stages of no depth do not halve the image.
    "LowFormer": BackboneSpec(
        "lowformer_b0",
        "random",
        32,
        {"width_list": [8, 8, 8, 30, 30], "depth_list": [0, 0, 0, 1, 1], "head_widths": [16, 24]},
    ),
}
"""A small backbone of the families on which every method is tested, by the name of its timm class."""
_SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
FURTHER = {
    "EVA-02": BackboneSpec("eva02_tiny_patch14_224", "random", 32, _SMALL),
    "EVA-02 with separate projections": BackboneSpec("eva02_base_patch14_224", "random", 32, _SMALL),
    "DINOv3": BackboneSpec("vit_small_patch16_dinov3", "random", 32, _SMALL),
    "BEiT": BackboneSpec("beit_base_patch16_224", "random", 32, _SMALL),
    "DeiT distilled": BackboneSpec("deit_tiny_distilled_patch16_224", "random", 32, _SMALL),
    "Swin-V2": BackboneSpec(
        "swinv2_tiny_window8_256",
        "random",
        32,
        {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    ),
    "relative positions, inferred": BackboneSpec("vit_relpos_small_patch16_224", "random", 32, _SMALL),
}
"""Small backbones of the other families, by their names in papers; the last is of no family."""
WITH_LINEARS = [family for family in FAMILIES if family != "LowFormer"]
"""Families that accept updates of linears, such as LoRA."""
CLASSES = 5


def model_spec(
    adapter="adaptformer",
    head="linear",
    bits=1,
    hidden=4,
    scale=1.0,
    dropout=0.0,
    backbone=BACKBONE,
    **settings,
):
    defaults = asdict(ADAPTERS.get(adapter).config())
    settings = defaults | ({"dropout": dropout} if "dropout" in defaults else {}) | settings
    return ModelSpec(
        backbone, AdapterSpec(adapter, settings), hidden, scale, "l1_median", bits, head, CLASSES
    )


@contextmanager
def skipped_where_refused():
    """Skip the test if the method refuses the family because it has none of the method's sites."""
    try:
        yield
    except UserError as error:
        if "choose another adapter or backbone" not in str(error):
            raise
        pytest.skip(str(error))


def run_spec(model, train, seed=0, task="made-up"):
    """Return the spec of a run of this model."""
    facts = TaskSpec(task, "none", "none", model.classes, "none", {}, "")
    return RunSpec(
        task=facts,
        backbone=model.backbone,
        adapter=model.adapter,
        hidden=model.hidden,
        scale=model.scale,
        quantizer=model.quantizer,
        bits=model.bits,
        head=model.head,
        float_bits=model.float_bits,
        compress=model.compress,
        protocol=ProtocolSpec("fixed"),
        seed=seed,
        train=train,
    )


def quantized_model(spec, seed=0):
    adapted = assemble(spec, seed)
    adapted.prepare()
    return adapted


def values(adapted):
    """Return the trainable tensors of a prepared model by name; lists give their first tensor. No copies."""
    floats = {
        name: group[0].detach()
        for part in (adapted.adapter, adapted.head)
        for name, group in part.floats.items()
    }
    return {**adapted.adapter.latents, **adapted.head.latents, **floats}


def gradients(adapted):
    """Return the gradients of the tensors that `values` returns."""
    weights = adapted.trainable
    held = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.copy_(weight.grad)
        found = {name: value.clone() for name, value in values(adapted).items()}
        for weight, before in zip(weights, held, strict=True):
            weight.copy_(before)
    return found


def in_double(adapted):
    """Convert a prepared model to float64 in place."""
    for stack in adapted.weights:
        stack.dtype = torch.float64
        if stack.quantizer is not None:
            stack.quantizer.double()
    for weight in adapted.trainable:
        weight.data = weight.data.double()
    adapted.network.double()


def recipe(epochs=20, batch_size=8, **changes):
    """Return the VTAB-1K recipe of JieShibo/PETL-ViT with fewer epochs and without drop path."""
    values = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "warmup_epochs": 10,
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
        "schedule_lag": 1,
        "drop_path": 0.0,
        "normalization": "none",
    }
    return TrainSpec(**(values | changes))


def split(count, seed=0, classes=CLASSES):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Split(images, random.integers(0, classes, count))


def pixels():
    return Pixels("none", 32, torch.device("cpu"))
