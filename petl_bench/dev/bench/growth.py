"""Growth of our own times with the problem size: ratios of a larger to a smaller size."""

from __future__ import annotations

import torch

from petl_bench.config import plan
from petl_bench.dev.bench import ours, tensors
from petl_bench.dev.bench.case import HIDDEN, Setting, case
from petl_bench.dev.bench.measure import Timing, compare

LARGER = "larger / smaller"
MANY = ["task=digits,surfaces,sprites_loc,sprites_ori,shapes_count", "adapter=adaptformer,lora"]
MANY += ["head=linear,binary", "bits=1,4,32", "protocol=fixed", "scale=1"]
"""Overrides of 60 runs per seed."""


def seeds(runs: int) -> str:
    """Return the override of seeds with which MANY plans this number of runs, a multiple of 60."""
    return "seed=" + ",".join(map(str, range(runs // 60)))


@case("growth_images", "evaluation of 4 times as many images; 4 is proportional", meaning=LARGER)
def growth_images(setting: Setting) -> Timing:
    """Compare the evaluation of four batches with that of one."""
    spec, few = ours.model_spec(setting), setting.batch
    small, large = (ours.evaluation(spec, "fp32", setting, count) for count in (few, 4 * few))
    note = f"{setting.size}; {few} and {4 * few} images"
    return compare(large, small, setting.device, setting.rounds(3), note)


@case(
    "growth_bits", "quantizer at 8 bits compared with 1 bit; it has 128 times as many levels", meaning=LARGER
)
def growth_bits(setting: Setting) -> Timing:
    """Compare the quantizer at the largest and the smallest bit-width."""
    random = torch.Generator().manual_seed(0)
    sizes = tensors.shapes(setting)
    weights = [torch.randn(shape, generator=random).to(setting.device) for shape in sizes]
    one, eight = (ours.quantizer(bits, weights, weights) for bits in (1, 8))
    return compare(eight, one, setting.device, setting.rounds(9), f"{len(sizes)} matrices")


@case("growth_hidden", "training step with 64 hidden units compared with 8", meaning=LARGER)
def growth_hidden(setting: Setting) -> Timing:
    """Compare training steps of AdaptFormer at 1 bit."""
    specs = (ours.model_spec(setting, hidden=hidden) for hidden in (64, 8))
    large, small = (ours.training(spec, "fp32", setting, 1) for spec in specs)
    note = f"{setting.size.replace(f'h={HIDDEN}', 'h=64 and h=8')}; per step"
    return compare(large, small, setting.device, setting.rounds(5), note)


@case("growth_runs", "planning twice as many runs; 2 is proportional", meaning=LARGER)
def growth_runs(setting: Setting) -> Timing:
    """Compare plans of runs that differ only in the seed, after the first composition."""
    half = 60 if setting.quick else 540
    few, many = ([*MANY, seeds(count)] for count in (half, 2 * half))
    note = f"{half:,} and {2 * half:,} runs"
    return compare(lambda: plan(many), lambda: plan(few), "cpu", setting.rounds(3), note)
