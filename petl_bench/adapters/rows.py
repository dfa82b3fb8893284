"""Trained matrices whose rows belong to different linears, so that one mean and one spread serve all of them.

Methods with few numbers per linear store them in one matrix: below 32 bits each matrix takes 8 bytes for its
mean and its standard deviation, as many as 64 codes of 1 bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape
from petl_bench.errors import UserError


class Rows(nn.Module):
    """Some rows of a trained matrix.

    Attributes:
        matrix: linear whose weight (rows of all linears, columns) is trained; set by `Stack.declare`.
        first: first row.
        count: number of rows.
    """

    matrix: nn.Linear

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.first = first
        self.count = count

    def forward(self) -> Tensor:
        """Return the rows (count, columns)."""
        return self.matrix.weight[self.first : self.first + self.count]


@dataclass
class Stack:
    """Rows of many linears, in one matrix for each number of columns."""

    _rows: dict[int, list[Rows]] = field(default_factory=dict)

    def rows(self, count: int, columns: int) -> Rows:
        """Return `count` new rows, whose matrix is there once `declare` has been called."""
        before = self._rows.setdefault(columns, [])
        before.append(Rows(sum(rows.count for rows in before), count))
        return before[-1]

    def declare(self, attached: Attached, name: str, initializer: initialization.Initializer) -> None:
        """Make the matrices and add them to `attached`.

        They are called `name`, or `name.COLUMNS` where linears have different numbers of columns.
        """
        for columns, rows in self._rows.items():
            full = name if len(self._rows) == 1 else f"{name}.{columns}"
            matrix = nn.Linear(columns, sum(own.count for own in rows), bias=False)
            attached.matrices[full], attached.initializers[full] = matrix, initializer
            for own in rows:
                own.matrix = matrix


def first_values(shape: Shape) -> initialization.Initializer:
    """Return zeros, or values near zero below 32 bits, since zeros have no spread."""
    return initialization.near_zero if shape.quantized else initialization.zero


def at_least_one(shape: Shape) -> int:
    """Return `hidden`.

    Raises:
        UserError: hidden is less than 1.
    """
    if shape.hidden < 1:
        raise UserError(f"hidden={shape.hidden} is out of range: this adapter needs at least 1 hidden unit")
    return shape.hidden
