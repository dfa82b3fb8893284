"""Singular value decompositions, and products that are initialized with a part of the frozen weight.

PiSSA and related methods train a product that is initialized with a part of the frozen weight W, and freeze
the rest of W. Equivalently, the weight is W + (trained product - initial product), which is what is computed
here: the backbone keeps its parameters, and since the initial factors are quantized exactly as the trained
factors are, training starts at the frozen network at every bit-width. The factors are subtracted in float32
in every precision, so that small updates are not lost.
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
    """Singular triplets in descending order of their values, float64, on the CPU.

    Attributes:
        left: left singular vectors (rows, r).
        values: singular values (r,).
        right: right singular vectors (columns, r).
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def __getitem__(self, chosen: slice) -> Components:
        return Components(self.left[:, chosen], self.values[chosen], self.right[:, chosen])


def components(matrix: Tensor) -> Components:
    """Return all singular triplets of a matrix, with the signs that `signed` gives them.

    They are computed from the eigenvectors of the smaller Gram matrix, which is several times faster than a
    singular value decomposition. Singular values far below the largest one lose accuracy.

    Args:
        matrix: (rows, columns), on the CPU, so that whoever reads a file repeats the arithmetic of whoever
            wrote it; or on the meta device.
    """
    matrix = matrix.detach().double()
    wide = matrix.shape[0] <= matrix.shape[1]
    matrix = matrix if wide else matrix.t()
    squares, left = torch.linalg.eigh(matrix @ matrix.t())
    values, left = squares.clamp_min(0).sqrt().flip(0), left.flip(1)
    right = matrix.t() @ left / values.clamp_min(1e-300)
    return signed(Components(left, values, right) if wide else Components(right, values, left))


def fitting(name: str, rank: int, most: int) -> None:
    """Check that a linear has as many components as are to be trained.

    Args:
        name: name of the linear, for the message.
        rank: number of components to train.
        most: number of components that the linear has.

    Raises:
        UserError: `rank` is greater than `most`.
    """
    if rank > most:
        raise UserError(f"hidden is too large: {name} would train {rank} components, but has {most}")


def signed(found: Components) -> Components:
    """Return the triplets with the entry of largest magnitude of each left vector positive.

    A singular value decomposition leaves these signs undetermined.
    """
    greatest = found.left.gather(0, found.left.abs().argmax(0, keepdim=True))
    signs = torch.where(greatest < 0, -1.0, 1.0).to(found.left.dtype)
    return Components(found.left * signs, found.values, found.right * signs)


class Start(nn.Module):
    """The frozen initial value of a trained matrix, which follows from the backbone and is not stored.

    The tensor is called `weight`, as in a linear.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to another device as other modules do, but keep the dtype float32."""
        weight = self.weight
        super()._apply(fn, recurse)
        self.weight = weight.to(self.weight.device)
        return self


class Moved(Delta):
    """The update scale * (up @ down - start_up @ start_down).

    It is computed in float32 as up (down - start_down) + (up - start_up) start_down, which is exactly zero
    before training and avoids a difference of large products.

    Args:
        down, start_down: trained and initial weight (rank, inputs).
        up, start_up: trained and initial weight (outputs, rank).
        scale: fixed factor.
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
