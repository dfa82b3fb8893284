"""What starts at parts of the frozen weight: singular values, and products that count from their start on.

PiSSA and what follows it train a product that starts at a part of W, and freeze the rest of W. That is W plus
the trained product minus its start, and here it is computed so: the backbone keeps its parameters, and where
the start goes through the same rounding as what is trained, training begins at the frozen network at any
bit-width. Both are subtracted in float32 in every precision, so that small moves count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench.adapters.delta import Delta
from petl_bench.errors import UserError


@dataclass(frozen=True)
class Components:
    """Singular triplets, descending: left (rows, r), values (r,), right (columns, r); float64, on the CPU."""

    left: Tensor
    values: Tensor
    right: Tensor

    def __getitem__(self, chosen: slice) -> Components:
        return Components(self.left[:, chosen], self.values[chosen], self.right[:, chosen])


def components(matrix: Tensor) -> Components:
    """All singular triplets of a matrix (rows, columns), the greatest entry of each left vector positive.

    The matrix is on the CPU, so that a reader of a file finds what its writer found (or on the meta device).

    By the eigenvectors of the smaller Gram matrix, several times faster than a singular value decomposition;
    values far below the greatest lose digits by it.
    """
    matrix = matrix.detach().double()
    wide = matrix.shape[0] <= matrix.shape[1]
    matrix = matrix if wide else matrix.t()
    squares, left = torch.linalg.eigh(matrix @ matrix.t())
    values, left = squares.clamp_min(0).sqrt().flip(0), left.flip(1)
    right = matrix.t() @ left / values.clamp_min(1e-300)
    return signed(Components(left, values, right) if wide else Components(right, values, left))


def fitting(name: str, rank: int, most: int) -> None:
    """Raises UserError where a linear has fewer components than it is to train."""
    if rank > most:
        raise UserError(f"hidden is too great: {name} would train {rank} components, and has {most}")


def signed(found: Components) -> Components:
    """The same with the greatest entry of each left vector positive, which no decomposition settles."""
    greatest = found.left.gather(0, found.left.abs().argmax(0, keepdim=True))
    signs = torch.where(greatest < 0, -1.0, 1.0).to(found.left.dtype)
    return Components(found.left * signs, found.values, found.right * signs)


class Start(nn.Module):
    """A frozen tensor that follows from the backbone and is stored nowhere, under the name of a linear's."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to` does to all modules, but it stays in float32."""
        weight = self.weight
        super()._apply(fn, recurse)
        self.weight = weight.to(self.weight.device)
        return self


class Moved(Delta):
    """scale * (up @ down - start_up @ start_down).

    Computed as up (down - start_down) + (up - start_up) start_down: exactly zero where nothing has moved, and
    no difference of great numbers. The four are used in float32.
    """

    def __init__(
        self, down: nn.Linear, up: nn.Linear, start_down: nn.Module, start_up: nn.Module, scale: float
    ) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.start_down = start_down
        self.start_up = start_up
        self.scale = scale

    def _pair(self) -> tuple[Tensor, Tensor]:
        start_down, start_up = self.start_down.weight, self.start_up.weight
        assert isinstance(start_down, Tensor)
        assert isinstance(start_up, Tensor)
        down = torch.cat([self.down.weight - start_down, start_down])
        return down, torch.cat([self.up.weight, self.up.weight - start_up], 1)

    def product(self) -> Tensor:
        down, up = self._pair()
        return self.scale * (up @ down)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        down, up = (matrix.to(x.dtype) for matrix in self._pair())
        update = functional.linear(functional.linear(x, down), up)
        return torch.add(base, update, alpha=self.scale)
