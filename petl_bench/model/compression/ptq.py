"""Rounding after training: matrices, and floats with `float_bits`, become levels of a codebook.

The codes are those that the last step of a training with quantization would store for the same weights: each
matrix, or all of a role or the adapter, is standardized by its own statistics (petl_bench.quantizers). Floats
are rounded as deviations from their start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from petl_bench.packing import StoredTensor

if TYPE_CHECKING:
    from petl_bench.model.component import Component


@torch.no_grad()
def compress(trained: Component, target: Component, network: nn.Module) -> list[StoredTensor]:
    """Return the tensors of a file.

    Args:
        trained: the trained adapter at 32 bits.
        target: the adapter at its start with the bits of the file, which is prepared here.
        network: the network of `target`.
    """
    for name, linear in target.matrices.items():
        linear.weight.copy_(trained.matrices[name].weight)
    quantized = target.quantized_floats
    for name, group in target.floats.items():
        if name not in quantized:
            for own, value in zip(group, trained.floats[name], strict=True):
                own.copy_(value)
    target.prepare(network, torch.float32, torch.device("cpu"))
    for name, held in target.deviations.items():
        values = torch.cat([parameter.flatten() for parameter in trained.floats[name]])
        held.latent.copy_(values - held.initial)
    kept = trained.attached.codes  # of the target they are those of its start
    return [
        replace(tensor, codes=kept[tensor.entry.name].numpy()) if tensor.entry.name in kept else tensor
        for tensor in target.store()
    ]
