"""Sketched deltas, after SketchTune (repository LeanModels/SketchTune): few values stand for a row's changes.

    W = W0 + delta,  delta_ij = grid[i, g(j), code_ij]

Each row of each linear of the blocks has `groups` groups of neighbouring inputs, and each group `hidden`
trained values; the code of a weight, which says the value that it takes, never changes. Grids: (outputs,
groups * hidden), zero at the start.

The source replaces W0 by its grid and has codes of Hessians; a translation of ours keeps W0 exact and takes
its quantiles in each group as codes. They cost no bytes: a reloaded model finds them in W0 again.
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
"""Codes are bytes."""


@dataclass(frozen=True)
class SketchConfig:
    groups: int = 1
    """Groups of neighbouring inputs in each row, of equal size."""

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"groups must be at least 1, not {self.groups}")


class _Lookup(torch.autograd.Function):
    """grid (rows, groups, levels), codes (rows, groups, inputs) -> the value of each code.

    torch's own gather would keep the codes for its gradient as 64-bit integers.
    """

    @staticmethod
    def forward(ctx, grid, codes):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(codes)
        ctx.size = grid.shape
        return grid.gather(2, codes.long())

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (codes,) = ctx.saved_tensors
        # Hundreds of summands a value: too many for bfloat16.
        values = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        total = values.new_zeros(ctx.size).scatter_add_(2, codes.long(), values)
        return total.to(gradient.dtype), None


class SketchedDelta(Delta):
    """The change of a weight that a grid (outputs, groups * levels) and fixed codes spell."""

    codes: Tensor

    def __init__(self, grid: nn.Linear, codes: Tensor) -> None:
        """A change of zero until the grid moves.

        Args:
            codes: (outputs, groups, inputs / groups) uint8.
        """
        super().__init__()
        self.grid = grid
        self.register_buffer("codes", codes, persistent=False)

    def product(self) -> Tensor:
        grid = self.grid.weight.unflatten(1, (self.codes.shape[1], -1))
        product: Tensor = _Lookup.apply(grid, self.codes)
        return product.flatten(1)


def quantile_codes(weight: Tensor, levels: int, groups: int) -> Tensor:
    """Of each weight (outputs, inputs), in which quantile of its group it lies: (outputs, groups, -1) uint8.

    Equal weights have equal codes; a weight on the boundary of two quantiles is in the upper one.
    """
    grouped = weight.detach().unflatten(1, (groups, -1))
    ordered = grouped.sort(2).values
    codes = torch.zeros_like(grouped, dtype=torch.uint8)
    for level in range(1, levels):
        codes += grouped >= ordered[..., level * ordered.shape[2] // levels, None]
    return codes


@adapter("sketch", config=SketchConfig, group="reparameterized", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: SketchConfig) -> Attached:
    """One grid a linear: qkv, proj, fc1, fc2, as far as blocks have them.

    Raises:
        UserError: groups that do not divide the inputs of a linear, or hidden out of range.
    """
    if not 2 <= shape.hidden <= MOST_LEVELS:
        raise UserError(f"hidden={shape.hidden} is out of range: this adapter has 2 to {MOST_LEVELS} values")
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
