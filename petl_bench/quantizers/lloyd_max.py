"""Lloyd-Max: least squared error for a standard normal (Max 1960).

Fixed point of: threshold = midpoint of neighbouring levels; level = conditional mean of its cell.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from petl_bench.quantizers.base import CODEBOOKS, Codebook, Levels, density, solve


def _system(levels: Levels) -> tuple[Levels, Levels]:
    threshold = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    below, above = threshold[:-1], threshold[1:]
    mass = np.where(above > 0, ndtr(-below) - ndtr(-above), ndtr(above) - ndtr(below))
    mean = -np.diff(density(threshold)) / mass
    pull = density(threshold[1:-1]) / 2
    upper = pull * (threshold[1:-1] - mean[:-1]) / mass[:-1]  # of mean[i] by level[i] and level[i + 1]
    lower = pull * (mean[1:] - threshold[1:-1]) / mass[1:]  # of mean[i] by level[i - 1] and level[i]
    jacobian = np.zeros((3, levels.size))
    jacobian[0, 1:] = -upper
    jacobian[1] = 1 - np.append(upper, 0) - np.append(0, lower)
    jacobian[2, :-1] = -lower
    return levels - mean, jacobian


def levels(bits: int) -> Levels:
    """2**bits ascending levels; the start has the optimal point density, pdf ** (1/3)."""
    count = 2**bits
    return solve(np.sqrt(3) * ndtri((np.arange(count) + 0.5) / count), _system)


CODEBOOKS.register("lloyd_max")(Codebook(levels))
