"""Kronecker products as updates of weights: shapes of the factors, rearrangement and fast application."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench.adapters.decomposed import Start
from petl_bench.adapters.delta import Delta

Factors = tuple[tuple[int, int], tuple[int, int]]
"""(m, n) and (p, q): the shapes of the left and the right factor of a matrix (m * p, n * q)."""


def factors(outputs: int, inputs: int) -> Factors:
    """Return the shapes of the Kronecker factors of a weight (outputs, inputs).

    The left factor gets, of each width, the smallest divisor that is at least the square root of the width:
    32 of 768, 48 of 2304 and 64 of 3072.
    """
    m, n = (
        next(d for d in range(math.isqrt(width - 1) + 1, width + 1) if width % d == 0)
        for width in (outputs, inputs)
    )
    return (m, n), (outputs // m, inputs // n)


def rearranged(weight: Tensor, shapes: Factors) -> Tensor:
    """Rearrange W (m * p, n * q) to (m * n, p * q), so that a Kronecker product becomes a matrix of rank 1.

    Source: C. Van Loan and N. Pitsianis, "Approximation with Kronecker products" (1993).
    """
    (m, n), (p, q) = shapes
    return weight.reshape(m, p, n, q).permute(0, 2, 1, 3).reshape(m * n, p * q)


class Kronecker(Delta):
    """The update scale * sum of kron(left, right) over the terms, minus the same sum of initial factors.

    The difference is computed term by term as kron(left - start_left, right) + kron(start_left, right -
    start_right), which is exactly zero before training; with initial factors, float32 is used throughout.

    Args:
        lefts, rights: factors of the terms, with weights (m, n) and (p, q).
        scale: fixed factor.
        starts: initial factors (terms, m, n) of the lefts and (terms, p, q) of the rights; None subtracts
            nothing.
    """

    def __init__(
        self,
        lefts: Sequence[nn.Linear],
        rights: Sequence[nn.Linear],
        scale: float,
        starts: tuple[Start, Start] | None = None,
    ) -> None:
        super().__init__()
        self.lefts = nn.ModuleList(lefts)
        self.rights = nn.ModuleList(rights)
        self.starts = None if starts is None else nn.ModuleList(starts)
        self.scale = scale
        (m, n), (p, q) = lefts[0].weight.shape, rights[0].weight.shape
        terms = len(lefts) * (1 if starts is None else 2)
        self.fast = terms * n * p * (q + m) < m * n * p * q

    def _terms(self) -> tuple[Tensor, Tensor]:
        """Return factors (terms, m, n) and (terms, p, q); with initial factors, those of the difference."""
        left, right = _stacked(self.lefts), _stacked(self.rights)
        if self.starts is None:
            return left, right
        begun = [start.weight for start in cast(Sequence[Start], self.starts)]
        return torch.cat([left - begun[0], begun[0]]), torch.cat([right, right - begun[1]])

    def product(self) -> Tensor:
        product = torch.einsum("tmn,tpq->mpnq", *self._terms())
        return self.scale * product.flatten(2).flatten(0, 1)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        """Apply each term as A X B^T, with X (n, q) holding x, or all terms as one matrix if cheaper."""
        if not self.fast:
            return super().forward(base, x)
        left, right = (term.to(x.dtype) for term in self._terms())
        terms, _, n = left.shape
        inner = functional.linear(x.unflatten(-1, (n, -1)), right.flatten(0, 1)).unflatten(-1, (terms, -1))
        columns = inner.transpose(-1, -3).flatten(-2)  # (..., p, terms * n)
        rows = functional.linear(columns, left.transpose(0, 1).flatten(1))
        return torch.add(base, rows.transpose(-1, -2).flatten(-2), alpha=self.scale)


def _stacked(linears: nn.ModuleList) -> Tensor:
    """Return the weights of linears (linears, outputs, inputs), without a copy where there is one alone."""
    weights = [linear.weight for linear in cast(Sequence[nn.Linear], linears)]
    return weights[0][None] if len(weights) == 1 else torch.stack(weights)
