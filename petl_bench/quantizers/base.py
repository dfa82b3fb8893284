"""Fake quantization with a straight-through gradient estimator, for any codebook.

Source: arXiv 2307.16867 and its released code (JieShibo/PETL-ViT, folder binary_adapter).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petl_bench.errors import UserError
from petl_bench.registry import Registry

EPSILON = 1e-5
"""Added to the standard deviation before dividing by it."""

Levels = NDArray[np.float64]

MOST_BINS = 2**20
"""Maximum number of bins of Bucketize."""

MATRIX = (-2, -1)
"""Dimensions of one matrix. All dimensions before them count matrices, each of which is quantized alone."""


def mean_and_std(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the unbiased standard deviation of each matrix.

    Args:
        weight: (..., outputs, inputs).

    Returns:
        Mean and standard deviation, each (..., 1, 1).
    """
    std, mean = torch.std_mean(weight, dim=MATRIX, keepdim=True)
    return mean, std


@dataclass(frozen=True)
class Codebook:
    """A family of codebooks: 2**bits levels for standardized weights, and how weights are standardized.

    Attributes:
        levels: function of the number of bits that returns the ascending levels (2**bits,), float64.
        statistics: function of a weight (..., outputs, inputs) that returns two numbers per matrix, each of
            shape (..., 1, 1), called its mean and std here: z = (weight - mean) / (std + EPSILON). A family
            may standardize by other numbers in their places; `minmax` uses the minimum and the range.
    """

    levels: Callable[[int], Levels]
    statistics: Callable[[Tensor], tuple[Tensor, Tensor]] = mean_and_std


CODEBOOKS: Registry[Codebook] = Registry("quantizer", "CODEBOOKS")


class _StraightThrough(torch.autograd.Function):
    """Fake quantization with `mean_and_std` and its gradient in closed form, faster than autograd's chain.

    With rho = std / (std + EPSILON), q the level of z, g the gradient of the result and N the number of
    weights of a matrix, the gradient of that matrix is

        dL/dw = rho g + (1 - rho) mean(g) + (w - mean) / ((N - 1) std) * sum(g (q - rho z))
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, nearest_level: Callable[[Tensor], Tensor]) -> Tensor:
        mean, std = mean_and_std(weight)
        z = (weight - mean) / (std + EPSILON)
        nearest = nearest_level(z)
        ctx.save_for_backward(z, nearest, std)
        return nearest * std + mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        z, nearest, std = ctx.saved_tensors
        rho = std / (std + EPSILON)
        weights = z.shape[-1] * z.shape[-2]
        through_std = (gradient * (nearest - rho * z)).sum(MATRIX, keepdim=True) / ((weights - 1) * rho)
        # (w - mean) / std = z / rho
        through_mean = (1 - rho) * gradient.mean(MATRIX, keepdim=True)
        return rho * gradient + through_mean + z * through_std, None


class Bucketize(nn.Module):
    """Number of thresholds below each value, as torch.bucketize; several times faster for many thresholds.

    The axis is divided into bins of equal width, narrow enough that no bin contains two thresholds. For each
    bin the number of thresholds in all bins before it is known, so one comparison with the next threshold
    gives the result. The bins of values and of thresholds are computed with the same monotonic float32
    arithmetic, so the result is exact. Where thresholds are so close that there would be too many bins,
    torch.bucketize itself is used.

    Args:
        thresholds: (n,) float32, ascending, n at least 1.
    """

    bounds: Tensor
    counts: Tensor

    def __init__(self, thresholds: Tensor) -> None:
        super().__init__()
        self.low, self.high, self.per_unit = float(thresholds[0]), float(thresholds[-1]), 0.0
        if len(thresholds) > 1:
            self.per_unit = 2 / float(thresholds.diff().min())
        few = (self.high - self.low) * self.per_unit < MOST_BINS
        self.in_bins = few and self.per_unit <= torch.finfo(torch.float32).max
        bins = self._bins(thresholds) if self.in_bins else torch.zeros(1, dtype=torch.int32)
        self.n_bins = int(bins[-1]) + 1
        counts = torch.bucketize(torch.arange(self.n_bins), bins).to(torch.int32)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("bounds", torch.cat([thresholds, torch.tensor([math.inf])]), persistent=False)

    def _bins(self, z: Tensor) -> Tensor:
        return ((z - self.low) * self.per_unit).floor_().to(torch.int32)

    def forward(self, z: Tensor) -> Tensor:
        """Return int32 counts in the shape of `z`; a count is undefined where z is not a number."""
        if not self.in_bins:
            return torch.bucketize(z.float(), self.bounds[:-1], out_int32=True)
        inside = z.float().clamp(self.low, self.high)
        count = self.counts.index_select(0, self._bins(inside).clamp_(0, self.n_bins - 1).view(-1))
        above = z.reshape(-1) > self.bounds.index_select(0, count)
        return (count + above).view(z.shape)


class FakeQuantize(nn.Module):
    """Quantize and dequantize a weight; each matrix (outputs, inputs) of a stack is quantized alone.

    Forward: w_q = Q(z) * std + mean, where Q(z) is the level whose cell contains z. A z that equals a
    threshold belongs to the lower cell. Backward: straight-through, as if Q(z) were z + (Q(z) - z).detach();
    gradients flow through mean and std, and nothing is clipped.

    Args:
        quantizer: name of a codebook family in CODEBOOKS.
        bits: bits per weight, 1 to 8.

    Raises:
        UserError: the quantizer does not exist, or the number of bits is out of range.
    """

    levels: Tensor
    thresholds: Tensor

    def __init__(self, quantizer: str, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise UserError(f"bits={bits} is out of range: a quantized weight has 1 to 8 bits")
        self.bits = bits
        self.codebook = CODEBOOKS.get(quantizer)
        levels = self.codebook.levels(bits)
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32), persistent=False)
        thresholds = torch.tensor((levels[1:] + levels[:-1]) / 2, dtype=torch.float32)
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.bucketize = Bucketize(thresholds)

    def standardize(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z in the shape of `weight` (..., outputs, inputs), and mean and std, each (..., 1, 1)."""
        mean, std = self.codebook.statistics(weight)
        return (weight - mean) / (std + EPSILON), mean, std

    def forward(self, weight: Tensor) -> Tensor:
        """Return the quantized values of `weight` (..., outputs, inputs), in its shape and dtype."""
        if self.codebook.statistics is mean_and_std:
            return _StraightThrough.apply(weight, self._nearest_level)
        z, mean, std = self.standardize(weight)
        nearest = self._nearest_level(z.detach())
        return (z + (nearest - z).detach()) * std + mean

    def _nearest_level(self, z: Tensor) -> Tensor:
        if self.bits == 1:
            return torch.where(z > self.thresholds, self.levels[1], self.levels[0])
        return self.levels.index_select(0, self.bucketize(z).view(-1)).view(z.shape)

    @torch.no_grad()
    def encode(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is stored of `weight` (..., outputs, inputs).

        Returns:
            Codes (uint8, shape of `weight`), and mean and std, each (..., 1, 1).
        """
        z, mean, std = self.standardize(weight)
        return self.bucketize(z).to(torch.uint8), mean, std

    @torch.no_grad()
    def decode(self, codes: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Return the float32 weight that `encode` has stored as `codes`, `mean` and `std`."""
        found = self.levels.index_select(0, codes.reshape(-1).int()).view(codes.shape)
        return found.mul_(std).add_(mean)

    def rounded(self, weight: Tensor) -> Tensor:
        """Return `weight` after one round trip of `encode` and `decode`."""
        return self.decode(*self.encode(weight))


def normal_density(z: Levels) -> Levels:
    """Return the density of the standard normal distribution at each z."""
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def solve(levels: Levels, system: Callable[[Levels], tuple[Levels, Levels]]) -> Levels:
    """Solve a tridiagonal system by damped Newton iteration to float64 convergence.

    A step is halved until the levels remain ascending and the residual does not grow.

    Args:
        levels: initial levels (n,), ascending.
        system: function of the levels that returns the residual (n,) and the banded Jacobian (3, n) in the
            order of scipy.linalg.solve_banded.

    Returns:
        The levels (n,), made exactly symmetric around 0.
    """
    from scipy.linalg import solve_banded

    residual, jacobian = system(levels)
    for _ in range(100):
        step = solve_banded((1, 1), jacobian, residual)
        for _ in range(50):
            new = levels - step
            new_residual, new_jacobian = system(new)
            if np.all(np.diff(new) > 0) and np.abs(new_residual).sum() <= np.abs(residual).sum():
                break
            step = step / 2
        levels, residual, jacobian = new, new_residual, new_jacobian
        if np.abs(step).max() < 1e-13:
            break
    return (levels - levels[::-1]) / 2
