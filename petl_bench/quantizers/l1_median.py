"""Codebook of least expected absolute error for standard normal weights.

The levels are the fixed point of two conditions: each threshold is the midpoint of neighboring levels, and
each level is the conditional median of its cell, Phi(level) = (Phi(lower threshold) + Phi(upper
threshold)) / 2.

Source: arXiv 2307.16867. The released code (JieShibo/PETL-ViT) stops after 500 iterations, far from the
fixed point at 8 bits; here the system is solved to float64 convergence.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from petl_bench.quantizers.base import CODEBOOKS, Codebook, Levels, normal_density, solve


def _system(levels: Levels) -> tuple[Levels, Levels]:
    threshold = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    below, above = threshold[:-1], threshold[1:]
    residual = 2 * ndtr(levels) - ndtr(below) - ndtr(above)
    half = normal_density(threshold) / 2
    jacobian = np.zeros((3, levels.size))
    jacobian[0, 1:] = -half[1:-1]
    jacobian[1] = 2 * normal_density(levels) - half[:-1] - half[1:]
    jacobian[2, :-1] = -half[1:-1]
    return residual, jacobian


def levels(bits: int) -> Levels:
    """Return 2**bits ascending levels; the initial levels have the optimal point density, pdf ** (1/2)."""
    count = 2**bits
    return solve(np.sqrt(2) * ndtri((np.arange(count) + 0.5) / count), _system)


CODEBOOKS.register("l1_median")(Codebook(levels))
