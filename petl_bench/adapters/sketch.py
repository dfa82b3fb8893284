"""Sketched updates, after SketchTune (repository LeanModels/SketchTune): weights of a row share a few values.

    W' = W + D,    D[i, j] = grid[i, g(j), code[i, j]]

W and D are (outputs, inputs). Each row i of each linear has `groups` groups g of neighboring inputs j, and
each group has `hidden` trained values: grid is (outputs, groups, hidden), stored as (outputs, groups *
hidden) and initialized with zeros, or near zero below 32 bits. The fixed code of a weight, 0 to hidden - 1,
chooses its value.

Differences from the source: it replaces W by the grid and takes codes from a Hessian. As a translation by
this project, W stays exact, and the code of a weight is the quantile of its group that it lies in. Codes take
no bytes, because a reloaded model finds them in W again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import Delta, DeltaLinear, linears
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError

MOST_LEVELS = 256
"""Largest number of values per group, because codes are bytes."""


@dataclass(frozen=True)
class SketchConfig:
    groups: int = 1
    """Number of groups of neighboring inputs per row, all of one size; at least 1."""

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"groups must be at least 1, not {self.groups}")


class _Lookup(torch.autograd.Function):
    """Look up the value of each code in grid (rows, groups, levels); codes are (rows, groups, inputs).

    torch.gather would keep the codes for its gradient as 64-bit integers.
    """

    @staticmethod
    def forward(ctx, grid, codes):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(codes)
        ctx.size = grid.shape
        return grid.gather(2, codes.long())

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (codes,) = ctx.saved_tensors
        # Each value sums hundreds of gradients, too many for the precision of bfloat16.
        values = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        total = values.new_zeros(ctx.size).scatter_add_(2, codes.long(), values)
        return total.to(gradient.dtype), None


class SketchedDelta(Delta):
    """The update of a weight given by trained values and fixed codes."""

    codes: Tensor

    def __init__(self, grid: nn.Linear, codes: Tensor) -> None:
        """Set up the update, which is zero while the grid is zero.

        Args:
            grid: linear with weight (outputs, groups * levels).
            codes: uint8 (outputs, groups, inputs / groups).
        """
        super().__init__()
        self.grid = grid
        self.register_buffer("codes", codes, persistent=False)

    def product(self) -> Tensor:
        grid = self.grid.weight.unflatten(1, (self.codes.shape[1], -1))
        product: Tensor = _Lookup.apply(grid, self.codes)
        return product.flatten(1)


def quantile_codes(weight: Tensor, levels: int, groups: int) -> Tensor:
    """Return the quantile of its group that each weight lies in.

    Equal weights have equal codes. A weight on the boundary of two quantiles belongs to the upper one.

    Args:
        weight: (outputs, inputs).
        levels: number of quantiles.
        groups: number of groups of neighboring inputs.

    Returns:
        Codes 0 to levels - 1, uint8 (outputs, groups, inputs / groups).
    """
    grouped = weight.detach().unflatten(1, (groups, -1))
    ordered = grouped.sort(2).values
    codes = torch.zeros_like(grouped, dtype=torch.uint8)
    for level in range(1, levels):
        codes += grouped >= ordered[..., level * ordered.shape[2] // levels, None]
    return codes


@adapter(
    "sketch",
    description="Trained values, each shared by the weights of one quantile (after LeanModels/SketchTune).",
    config=SketchConfig,
    group="reparameterized",
    tokenwise=True,
    unused={"scale": 1.0, "start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: SketchConfig) -> Attached:
    """Attach one grid per linear of every block: outputs * groups * hidden weights and 0 floats.

    Raises:
        UserError: the number of groups does not divide the inputs of a linear, or hidden is out of range.
    """
    if not 2 <= shape.hidden <= MOST_LEVELS:
        raise UserError(f"hidden={shape.hidden} is out of range: this adapter takes 2 to {MOST_LEVELS}")
    attached = Attached()
    for name, slot in linears(sites).items():
        linear = slot.get()
        assert isinstance(linear, nn.Linear)
        outputs, inputs = linear.weight.shape
        if inputs % config.groups:
            raise UserError(f"adapter.groups={config.groups} does not divide the {inputs} inputs of {name}")
        grid = nn.Linear(config.groups * shape.hidden, outputs, bias=False)
        attached.matrices[name] = grid
        attached.initializers[name] = initialization.near_zero if shape.quantized else initialization.zero
        codes = quantile_codes(linear.weight, shape.hidden, config.groups)
        slot.set(DeltaLinear(linear, SketchedDelta(grid, codes)))
    return attached
