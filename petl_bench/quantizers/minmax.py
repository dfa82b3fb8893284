"""Uniform min-max quantization: evenly spaced levels from the least to the greatest weight of a matrix."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from petl_bench.quantizers.base import CODEBOOKS, MATRIX, Codebook, Levels


def levels(bits: int) -> Levels:
    """Return 2**bits evenly spaced levels from 0 to 1."""
    return np.linspace(0.0, 1.0, 2**bits)


def minimum_and_range(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the minimum of each matrix and its range, the maximum less the minimum.

    Args:
        weight: (..., outputs, inputs).

    Returns:
        Minimum and range, each (..., 1, 1). They are stored in the places of mean and std.
    """
    minimum = weight.amin(MATRIX, keepdim=True)
    return minimum, weight.amax(MATRIX, keepdim=True) - minimum


CODEBOOKS.register("minmax")(Codebook(levels, minimum_and_range))
