"""Lloyd-Max codebook: least expected squared error for standard normal weights.

The levels are the fixed point of two conditions: each threshold is the midpoint of neighboring levels, and
each level is the conditional mean of its cell.

Source: J. Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6 (1960).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from petl_bench.quantizers.base import CODEBOOKS, Codebook, Levels, normal_density, solve


def _system(levels: Levels) -> tuple[Levels, Levels]:
    threshold = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    below, above = threshold[:-1], threshold[1:]
    mass = np.where(above > 0, ndtr(-below) - ndtr(-above), ndtr(above) - ndtr(below))
    mean = -np.diff(normal_density(threshold)) / mass
    half = normal_density(threshold[1:-1]) / 2
    upper = half * (threshold[1:-1] - mean[:-1]) / mass[:-1]  # d mean[i] / d level[i], d level[i + 1]
    lower = half * (mean[1:] - threshold[1:-1]) / mass[1:]  # d mean[i] / d level[i - 1], d level[i]
    jacobian = np.zeros((3, levels.size))
    jacobian[0, 1:] = -upper
    jacobian[1] = 1 - np.append(upper, 0) - np.append(0, lower)
    jacobian[2, :-1] = -lower
    return levels - mean, jacobian


def levels(bits: int) -> Levels:
    """Return 2**bits ascending levels; the initial levels have the optimal point density, pdf ** (1/3)."""
    count = 2**bits
    return solve(np.sqrt(3) * ndtri((np.arange(count) + 0.5) / count), _system)


CODEBOOKS.register("lloyd_max")(Codebook(levels))
