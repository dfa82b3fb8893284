"""Fake quantization with the straight-through gradient, over any codebook.

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
from scipy.linalg import solve_banded
from torch import Tensor, nn

from petl_bench.errors import UserError
from petl_bench.registry import Registry

EPSILON = 1e-5
"""Added to the std before dividing by it."""

Levels = NDArray[np.float64]

MATRIX = (-2, -1)
"""The dimensions of one matrix; those before them count matrices, which are quantized each by itself."""


def moments(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each matrix: (..., 1, 1) of (..., outputs, inputs)."""
    deviation, mean = torch.std_mean(weight, dim=MATRIX, keepdim=True)
    return mean, deviation


@dataclass(frozen=True)
class Codebook:
    """A family of codebooks: 2**bits levels on a standardized axis, and what standardizes a weight.

    Attributes:
        levels: bits -> ascending levels, float64.
        statistics: weight -> (mean, std), one each a matrix; z = (w - mean) / (std + EPSILON).
    """

    levels: Callable[[int], Levels]
    statistics: Callable[[Tensor], tuple[Tensor, Tensor]] = moments


CODEBOOKS: Registry[Codebook] = Registry("quantizer")


class _StraightThrough(torch.autograd.Function):
    """Fake quantization over `moments`, its gradient in closed form: one step instead of autograd's chain.

    With rho = s / (s + eps) and q the level of z, for each matrix by itself:
    dL/dw = rho g + (1 - rho) mean(g) + (w - m) / ((N - 1) s) * sum(g (q - rho z)).
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, nearest_to: Callable[[Tensor], Tensor]) -> Tensor:
        mean, std = moments(weight)
        z = (weight - mean) / (std + EPSILON)
        nearest = nearest_to(z)
        ctx.save_for_backward(z, nearest, std)
        return nearest * std + mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        z, nearest, std = ctx.saved_tensors
        rho = std / (std + EPSILON)
        weights = z.shape[-1] * z.shape[-2]
        through_std = (gradient * (nearest - rho * z)).sum(MATRIX, keepdim=True) / ((weights - 1) * rho)
        # (w - m) / s = z / rho
        through_mean = (1 - rho) * gradient.mean(MATRIX, keepdim=True)
        return rho * gradient + through_mean + z * through_std, None


class Cells(nn.Module):
    """z -> the number of thresholds below it, as torch.bucketize; several times faster for many thresholds.

    The axis is cut into bins of one width, so narrow that none has two thresholds. A bin knows how many
    thresholds lie in those before it, and one comparison with the next threshold does the rest. Bins of z and
    of thresholds come from the same float32 arithmetic, which keeps order, so the result is exact.
    """

    bounds: Tensor
    before: Tensor

    def __init__(self, thresholds: Tensor) -> None:
        super().__init__()
        self.low, self.high, self.per_unit = float(thresholds[0]), float(thresholds[-1]), 0.0
        if len(thresholds) > 1:
            self.per_unit = 2 / float(thresholds.diff().min())
        bins = self._bins(thresholds)
        self.count = int(bins[-1]) + 1
        before = torch.bucketize(torch.arange(self.count), bins).to(torch.int32)
        self.register_buffer("before", before, persistent=False)
        self.register_buffer("bounds", torch.cat([thresholds, torch.tensor([math.inf])]), persistent=False)

    def _bins(self, z: Tensor) -> Tensor:
        return ((z - self.low) * self.per_unit).floor_().to(torch.int32)

    def forward(self, z: Tensor) -> Tensor:
        """z of any shape; int32 of the same shape, anything where z is not a number."""
        inside = z.float().clamp(self.low, self.high)
        cell = self.before.index_select(0, self._bins(inside).clamp_(0, self.count - 1).view(-1))
        above = z.reshape(-1) > self.bounds.index_select(0, cell)
        return (cell + above).view(z.shape)


class FakeQuantize(nn.Module):
    """A weight -> its quantized value; a matrix (outputs, inputs) or a stack of them (..., outputs, inputs).

    forward: w_q = Q(z) * std + mean with Q(z) the level of the cell that z falls in; a z on a
    threshold belongs to the lower cell.
    backward: straight-through, Q(z) counts as z + (Q(z) - z).detach(); gradients flow through mean and
    std, and nothing is clipped.
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
        self.cells = Cells(thresholds)

    def standardize(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z in the shape of weight, and mean and std, (..., 1, 1)."""
        mean, std = self.codebook.statistics(weight)
        return (weight - mean) / (std + EPSILON), mean, std

    def forward(self, weight: Tensor) -> Tensor:
        if self.codebook.statistics is moments:
            return _StraightThrough.apply(weight, self._nearest)
        z, mean, std = self.standardize(weight)
        nearest = self._nearest(z.detach())
        return (z + (nearest - z).detach()) * std + mean

    def _nearest(self, z: Tensor) -> Tensor:
        """The level of the cell of each z."""
        if self.bits == 1:
            return torch.where(z > self.thresholds, self.levels[1], self.levels[0])
        return self.levels.index_select(0, self.cells(z).view(-1)).view(z.shape)

    @torch.no_grad()
    def encode(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (uint8, shape of weight), mean and std (..., 1, 1): what is stored of a weight."""
        z, mean, std = self.standardize(weight)
        return self.cells(z).to(torch.uint8), mean, std

    @torch.no_grad()
    def decode(self, codes: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The float32 weight that `encode` stored."""
        return self.levels[codes.long()] * std + mean

    def rounded(self, weight: Tensor) -> Tensor:
        """What is left of a matrix once it is stored."""
        return self.decode(*self.encode(weight))


def density(z: Levels) -> Levels:
    """Density of the standard normal."""
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def solve(levels: Levels, system: Callable[[Levels], tuple[Levels, Levels]]) -> Levels:
    """Damped Newton's method on a tridiagonal fixed-point system, to float64 convergence.

    A step is halved until the levels stay ascending and the residual shrinks.

    Args:
        levels: ascending start values.
        system: levels -> (residual (n,), banded Jacobian (3, n) in the order of scipy's solve_banded).
    """
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
