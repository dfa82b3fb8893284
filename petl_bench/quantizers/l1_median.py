"""The paper's codebook: least absolute error for a standard normal.

Fixed point of: threshold = midpoint of neighbouring levels; level = conditional median of its cell,
Phi(level) = (Phi(lower threshold) + Phi(upper threshold)) / 2. The released code stops after 500
iterations, far from the fixed point at 8 bits; this one is solved to float64 convergence.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from petl_bench.quantizers.base import CODEBOOKS, Codebook, Levels, density, solve


def _system(levels: Levels) -> tuple[Levels, Levels]:
    threshold = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    below, above = threshold[:-1], threshold[1:]
    residual = 2 * ndtr(levels) - ndtr(below) - ndtr(above)
    half = density(threshold) / 2
    jacobian = np.zeros((3, levels.size))
    jacobian[0, 1:] = -half[1:-1]
    jacobian[1] = 2 * density(levels) - half[:-1] - half[1:]
    jacobian[2, :-1] = -half[1:-1]
    return residual, jacobian


def levels(bits: int) -> Levels:
    """2**bits ascending levels; the start has the optimal point density, pdf ** (1/2)."""
    count = 2**bits
    return solve(np.sqrt(2) * ndtri((np.arange(count) + 0.5) / count), _system)


CODEBOOKS.register("l1_median")(Codebook(levels))
