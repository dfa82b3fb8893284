"""Kronecker products as changes of weights: the shapes of their factors, and the fast form."""

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
    """The left factor has of each width the least divisor that is no less than its root: 32 of 768."""
    m, n = (
        next(d for d in range(math.isqrt(width - 1) + 1, width + 1) if width % d == 0)
        for width in (outputs, inputs)
    )
    return (m, n), (outputs // m, inputs // n)


def rearranged(weight: Tensor, shapes: Factors) -> Tensor:
    """W (m * p, n * q) -> (m * n, p * q): a Kronecker product becomes a product of rank 1 (Van Loan 1993)."""
    (m, n), (p, q) = shapes
    return weight.reshape(m, p, n, q).permute(0, 2, 1, 3).reshape(m * n, p * q)


class Kronecker(Delta):
    """scale * sum of left x right over the terms; less the same of their starts, where they have any.

    The difference of products is computed as (left - start) x right + start x (right - its start), term by
    term: exactly zero where nothing has moved; with starts all are used in float32.

    Args:
        lefts, rights: the terms' factors, (m, n) and (p, q).
        starts: of the lefts (terms, m, n) and of the rights (terms, p, q).
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
        """(terms, m, n) and (terms, p, q); with starts, the terms of the difference."""
        left = torch.stack([linear.weight for linear in cast(Sequence[nn.Linear], self.lefts)])
        right = torch.stack([linear.weight for linear in cast(Sequence[nn.Linear], self.rights)])
        if self.starts is None:
            return left, right
        begun = [start.weight for start in cast(Sequence[Start], self.starts)]
        return torch.cat([left - begun[0], begun[0]]), torch.cat([right, right - begun[1]])

    def product(self) -> Tensor:
        product = torch.einsum("tmn,tpq->mpnq", *self._terms())
        return self.scale * product.flatten(2).flatten(0, 1)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        """A term is A X B^T of x as a matrix X (n, q); many terms are dearer than their sum as one matrix."""
        if not self.fast:
            return super().forward(base, x)
        left, right = (term.to(x.dtype) for term in self._terms())
        terms, _, n = left.shape
        inner = functional.linear(x.unflatten(-1, (n, -1)), right.flatten(0, 1)).unflatten(-1, (terms, -1))
        columns = inner.transpose(-1, -3).flatten(-2)  # (..., p, terms * n)
        rows = functional.linear(columns, left.transpose(0, 1).flatten(1))
        return torch.add(base, rows.transpose(-1, -2).flatten(-2), alpha=self.scale)
