"""Uniform min-max: evenly spaced levels from the least to the greatest weight of the tensor."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from petl_bench.quantizers.base import CODEBOOKS, Codebook, Levels


def levels(bits: int) -> Levels:
    """2**bits evenly spaced levels on [0, 1]."""
    return np.linspace(0.0, 1.0, 2**bits)


def span(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Least weight and the distance from it to the greatest."""
    least = weight.min()
    return least, weight.max() - least


CODEBOOKS.register("minmax")(Codebook(levels, span))
