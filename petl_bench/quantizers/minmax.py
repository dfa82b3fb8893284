"""Uniform min-max: evenly spaced levels from the least to the greatest weight of the tensor."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from petl_bench.quantizers.base import CODEBOOKS, MATRIX, Codebook, Levels


def levels(bits: int) -> Levels:
    """2**bits evenly spaced levels on [0, 1]."""
    return np.linspace(0.0, 1.0, 2**bits)


def span(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Least weight of each matrix and the distance from it to the greatest: (..., 1, 1)."""
    least = weight.amin(MATRIX, keepdim=True)
    return least, weight.amax(MATRIX, keepdim=True) - least


CODEBOOKS.register("minmax")(Codebook(levels, span))
