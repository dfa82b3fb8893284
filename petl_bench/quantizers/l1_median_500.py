"""The codebook that the released code computes: the iteration for `l1_median`, ended after 500 steps.

It starts from levels of zero, and the outer levels move first. Up to 4 bits 500 steps reach the fixed point,
so that the levels are those of `l1_median`. At 8 bits they do not: 148 of the 256 levels are still below
0.001 in absolute value. Use it for 8-bit files of the released code, and to repeat its 8-bit results.

Source: the released code of arXiv 2307.16867 (JieShibo/PETL-ViT, folder binary_adapter).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from petl_bench.quantizers.base import CODEBOOKS, Codebook, Levels

STEPS = 500


def levels(bits: int) -> Levels:
    """Return 2**bits ascending levels."""
    found = np.zeros(2**bits)
    for _ in range(STEPS):
        below = np.concatenate([[0.0], ndtr((found[1:] + found[:-1]) / 2), [1.0]])
        found = ndtri((below[1:] + below[:-1]) / 2)
    return found


CODEBOOKS.register("l1_median_500")(Codebook(levels))
