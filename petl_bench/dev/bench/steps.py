"""Benchmarks of training steps and evaluations, and of their share of the machine's peak speed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from petl_bench.dev.bench import ours, reference_loop
from petl_bench.dev.bench.case import Setting, case
from petl_bench.dev.bench.measure import Timing, Work, compare, paired, seconds_of
from petl_bench.dev.bench.operations import step_operations
from petl_bench.dev.bench.reference import Reference
from petl_bench.types import ModelSpec


def batch_of(setting: Setting) -> tuple[Tensor, Tensor]:
    """Return float32 images and labels on the device, as a loader of the reference provides them."""
    split = ours.pictures(setting.batch, setting.backbone.image_size)
    images = torch.from_numpy(split.images).float() / 255
    return images.to(setting.device), torch.from_numpy(split.labels).to(setting.device)


def reference_training(spec: ModelSpec, setting: Setting, steps: int) -> Work:
    """Return a function that trains the reference for `steps` steps on a batch in memory."""
    model = Reference(spec, ours.DROP_PATH).to(setting.device).train()
    optimizer = reference_loop.optimizer_of(model)
    images, labels = batch_of(setting)

    def work() -> None:
        for _ in range(steps):
            reference_loop.step(model, optimizer, images, labels)

    return work


def reference_evaluation(spec: ModelSpec, setting: Setting) -> Work:
    """Return a function that classifies a batch in memory with the reference."""
    model = Reference(spec).to(setting.device).eval()
    images, labels = batch_of(setting)

    @torch.no_grad()
    def work() -> float:
        return (model(images).argmax(1) == labels).float().mean().item()

    return work


def train_step(setting: Setting, precision: str, adapter: str = "adaptformer", bits: int = 1) -> Timing:
    """Time a training step of both sides."""
    spec = ours.model_spec(setting, adapter, bits)
    mine = ours.training(spec, precision, setting, setting.steps)
    theirs = reference_training(spec, setting, setting.steps)
    count = step_operations(spec, precision, setting.blocks)
    note = f"{setting.size}; per step, {count:,} operations of torch without views"
    return compare(mine, theirs, setting.device, setting.rounds(5), note, setting.steps)


def evaluation(setting: Setting, precision: str, adapter: str = "adaptformer", bits: int = 1) -> Timing:
    """Time the evaluation of one batch on both sides."""
    spec = ours.model_spec(setting, adapter, bits)
    mine = ours.evaluation(spec, precision, setting, setting.batch)
    theirs = reference_evaluation(spec, setting)
    return compare(mine, theirs, setting.device, setting.rounds(7), f"{setting.size}; per batch")


STEPS = {"fp32": (1.0, None), "bf16": (0.58, 0.50), "int8": (None, None)}
"""Target and goal of the ratio of training steps in each precision."""
EVALUATIONS = {"fp32": None, "bf16": 0.55, "int8": None}
"""Target of the ratio of evaluations in each precision."""

for _precision, (_target, _goal) in STEPS.items():
    case(f"train_step_{_precision}", f"training step in {_precision}, AdaptFormer at 1 bit", _target, _goal)(
        partial(train_step, precision=_precision)
    )
for _precision, _target in EVALUATIONS.items():
    case(f"evaluation_{_precision}", f"evaluation in {_precision}, AdaptFormer at 1 bit", _target)(
        partial(evaluation, precision=_precision)
    )
case("train_step_8bit_lora_fp32", "training step in fp32, LoRA at 8 bits")(
    partial(train_step, precision="fp32", adapter="lora", bits=8)
)
case("evaluation_lora_fp32", "evaluation in fp32, LoRA at 1 bit")(
    partial(evaluation, precision="fp32", adapter="lora")
)


def gemm_fraction(setting: Setting, precision: str, dtype: torch.dtype) -> Timing:
    """Compare a training step with the duration of its matrix products at the peak speed of the same round.

    `seconds` is the duration of our training step, `seconds_reference` that of its matrix products.
    """
    spec = ours.model_spec(setting)
    work = ours.training(spec, precision, setting, setting.steps)
    flops = step_flops(spec, setting)
    products = peak_products(setting, dtype)
    for warm in (work, *products):
        warm()
    taken = []
    for _ in range(setting.rounds(5)):
        seconds = seconds_of(work, setting.device) / setting.steps
        peak = max(
            count / min(seconds_of(product, setting.device) for _ in range(3))
            for product, count in products.items()
        )
        taken.append((flops / peak, seconds))
    found = paired(taken)
    best = flops / found.seconds / 1e9
    note = f"{setting.size}; {flops / 1e9:.3g} GFLOP per step, peak {best:,.0f} GFLOP/s"
    assert found.seconds_reference is not None
    return replace(found, seconds=found.seconds_reference, seconds_reference=found.seconds, note=note)


for _precision, _dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
    _what = f"share of the measured peak of {_precision} matrix products that a training step reaches"
    case(f"gemm_fraction_{_precision}", _what, meaning="fraction of the peak")(
        partial(gemm_fraction, precision=_precision, dtype=_dtype)
    )


def step_flops(spec: ModelSpec, setting: Setting) -> int:
    """Return the floating-point operations of all matrix products of one of our training steps.

    They are counted in float32, in which torch counts every product of the forward and backward pass.
    """
    work = ours.training(spec, "fp32", setting, 1)
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def peak_products(setting: Setting, dtype: torch.dtype) -> dict[Work, int]:
    """Return fast matrix products with their numbers of operations: the step's largest one, and a cube."""
    cube = 8192 if setting.on_gpu else 2048
    shapes = ((128, 128, 128),) if setting.quick else ((197 * setting.batch, 768, 3072), (cube, cube, cube))
    return {product(shape, setting.device, dtype): 2 * shape[0] * shape[1] * shape[2] for shape in shapes}


def product(shape: tuple[int, int, int], device: str, dtype: torch.dtype) -> Work:
    """Return a function that multiplies matrices of shapes (m, k) and (k, n), the second stored transposed.

    A linear layer stores its weight in the same way.
    """
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype)
    return lambda: left @ right.t()
