"""Linear changes of the outputs of frozen linears, which merge into their weights and biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Mergeable
from petl_bench.adapters.delta import SLICES
from petl_bench.backbones.sites import BlockSites, widths


class ChangedOutputs(Mergeable):
    """A frozen linear whose outputs, or slices of them, are changed linearly and without a constant.

    Args:
        linear: the frozen linear.
        changes: modules that map outputs (..., width) to changed outputs of that shape: by the names of their
            slices of a qkv projection, or one under the name "all".
    """

    def __init__(self, linear: nn.Module, changes: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.linear = linear
        self.changes = nn.ModuleDict(changes)

    def change(self, y: Tensor) -> Tensor:
        """Return changed outputs, of the shape of `y` (..., outputs)."""
        if "all" in self.changes:
            changed: Tensor = self.changes["all"](y)
            return changed
        parts = zip(SLICES, y.chunk(len(SLICES), -1), strict=True)
        return torch.cat([self.changes[n](part) if n in self.changes else part for n, part in parts], -1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (batch, ..., inputs) to (batch, ..., outputs)."""
        return self.change(self.linear(x))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        linear = self.linear
        assert isinstance(linear, nn.Linear)
        linear.weight = nn.Parameter(self.change(linear.weight.t()).t().contiguous())
        if linear.bias is not None:
            linear.bias = nn.Parameter(self.change(linear.bias))
        return linear


def change_slices(block: BlockSites, slices: str, make: Callable[[int], nn.Module]) -> None:
    """Change slices of the qkv projection of a block, if it has one.

    Args:
        block: sites of the block.
        slices: names of the slices, for example "qv".
        make: function of the number of outputs of a slice that returns the module that changes them.
    """
    slot = block.linear("qkv")
    width = widths(slot)[1] // len(SLICES)
    slot.set(ChangedOutputs(slot.get(), {name: make(width) for name in slices}))
