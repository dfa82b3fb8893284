"""Benchmarks of the quantizer at each bit-width, and of packing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from petl_bench import packing
from petl_bench.dev.bench import ours, reference
from petl_bench.dev.bench.case import HIDDEN, Setting, case
from petl_bench.dev.bench.measure import Timing, Work, compare, peak_bytes
from petl_bench.quantizers import CODEBOOKS

DIM = 768


def shapes(setting: Setting) -> list[tuple[int, int]]:
    """Return the shapes of AdaptFormer's matrices in the blocks of the setting."""
    return [(HIDDEN, DIM), (DIM, HIDDEN)] * setting.blocks


def reference_quantizer(bits: int, weights: list[torch.Tensor], gradients: list[torch.Tensor]) -> Work:
    """Return a function that quantizes each weight separately and computes the gradients of their latents."""
    levels = torch.tensor(CODEBOOKS.get("l1_median").levels(bits), dtype=torch.float32)
    levels = levels.to(weights[0].device)
    latents = [weight.clone().requires_grad_() for weight in weights]

    return lambda: torch.autograd.grad([reference.quantize(w, levels) for w in latents], latents, gradients)


def quantizer(setting: Setting, bits: int) -> Timing:
    """Compare time and peak memory of quantizing all matrices of an adapter, with gradients."""
    random = torch.Generator().manual_seed(0)

    def draw() -> list[torch.Tensor]:
        return [torch.randn(shape, generator=random).to(setting.device) for shape in shapes(setting)]

    weights, gradients = draw(), draw()
    mine = ours.quantizer(bits, weights, gradients)
    theirs = reference_quantizer(bits, weights, gradients)
    note = f"{2 * setting.blocks} matrices of {HIDDEN} x {DIM}, forward and backward"
    found = compare(mine, theirs, setting.device, setting.rounds(9), note)
    held = [peak_bytes(work, setting.device) for work in (mine, theirs)]
    return replace(found, bytes=held[0], bytes_reference=held[1])


for _bits, _target in ((1, None), (2, None), (4, None), (8, 0.05)):
    _what = f"fake quantization and its gradient, {_bits} bit" + "s" * (_bits > 1)
    case(f"quantizer_{_bits}bit", _what, _target)(partial(quantizer, bits=_bits))


def codes(setting: Setting) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return as many random 1-bit codes as AdaptFormer on ViT-B/16 has weights."""
    count = 1000 if setting.quick else 24 * DIM * HIDDEN
    return np.random.default_rng(0).integers(0, 2, count, dtype=np.uint8)


@case("pack_1bit", "packing of 1-bit codes")
def pack_1bit(setting: Setting) -> Timing:
    """Time packing all codes of an adapter."""
    held = codes(setting)
    return compare(
        lambda: packing.pack(held, 1),
        lambda: reference.pack(held, 1),
        "cpu",
        setting.rounds(9),
        f"{held.size:,} codes",
    )


@case("unpack_1bit", "unpacking of 1-bit codes")
def unpack_1bit(setting: Setting) -> Timing:
    """Time unpacking all codes of an adapter."""
    held = codes(setting)
    data = packing.pack(held, 1)
    return compare(
        lambda: packing.unpack(data, 1, held.size),
        lambda: reference.unpack(data, 1, held.size),
        "cpu",
        setting.rounds(9),
        f"{held.size:,} codes",
    )
