"""Updates of the weight of a frozen linear, the common form of methods that merge into the backbone.

A method of this form computes y = W x + b + D x, where W (outputs, inputs) and b (outputs,) are frozen and D
(outputs, inputs) is a function of a few trainable parameters. After training, W + D replaces W.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench.adapters.base import Mergeable
from petl_bench.backbones.sites import BlockSites, Sites, Slot, widths

ROLES = ("qkv", "proj", "fc1", "fc2")


def roles(block: BlockSites) -> list[str]:
    """Return the roles of all linears of a block, in the order of ROLES.

    Raises:
        UserError: the block has no linear.
    """
    found = [role for role in ROLES if role in block.linears]
    if not found:
        block.linear("fc1")
    return found


def linears(sites: Sites) -> dict[str, Slot]:
    """Return the slots of all linears of all blocks by the name "BLOCK.ROLE", from input to output.

    Raises:
        UserError: a block has no linear.
    """
    return {
        f"{number}.{role}": block.linear(role)
        for number, block in enumerate(sites.blocks)
        for role in roles(block)
    }


class Delta(nn.Module, ABC):
    """A trainable update of the weight of a frozen linear."""

    @abstractmethod
    def product(self) -> Tensor:
        """Return the update as one matrix (outputs, inputs), without dropout."""

    def added_to(self, weight: Tensor) -> Tensor:
        """Return the sum of a weight (outputs, inputs) and the update."""
        return weight + self.product()

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        """Return the output of the updated linear.

        Subclasses override this method to apply dropout, or to avoid building the whole matrix.

        Args:
            base: output of the frozen linear (batch, ..., outputs).
            x: input of the frozen linear (batch, ..., inputs).

        Returns:
            base + product() x, of the shape of `base`.
        """
        return base + functional.linear(x, self.product().to(x.dtype))


class LowRank(Delta):
    """The update scale * up @ down, with dropout between the two matrices and no factor alpha / rank.

    Args:
        down: weight (rank, inputs).
        up: weight (outputs, rank).
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
    """

    def __init__(self, down: nn.Linear, up: nn.Linear, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def product(self) -> Tensor:
        product: Tensor = self.up.weight @ self.down.weight
        return product.mul_(self.scale)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        return torch.add(base, self.up(self.dropout(self.down(x))), alpha=self.scale)


class ComputedPair(Delta):
    """The update scale * up @ down of two matrices that modules compute, with dropout between them.

    Args:
        down: module that returns down (rank, inputs).
        up: module that returns up (outputs, rank).
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
    """

    def __init__(self, down: nn.Module, up: nn.Module, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def product(self) -> Tensor:
        product: Tensor = self.up() @ self.down()
        return self.scale * product

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        hidden = self.dropout(functional.linear(x, self.down().to(x.dtype)))
        return torch.add(base, functional.linear(hidden, self.up().to(x.dtype)), alpha=self.scale)


SLICES = ("q", "k", "v")
"""The equal parts of the outputs of a qkv projection, in order."""


class Slices(Delta):
    """Separate updates of some of the slices q, k and v of a qkv projection.

    Args:
        deltas: updates by the name of their slice, each of shape (outputs / 3, inputs).
    """

    def __init__(self, deltas: Mapping[str, Delta]) -> None:
        super().__init__()
        self.deltas = nn.ModuleDict(deltas)

    def product(self) -> Tensor:
        found = {name: delta.product() for name, delta in self.deltas.items()}  # type: ignore[operator]
        zero = torch.zeros_like(next(iter(found.values())))
        return torch.cat([found.get(name, zero) for name in SLICES])

    def added_to(self, weight: Tensor) -> Tensor:
        found = weight.clone()
        for name, part in zip(SLICES, found.chunk(len(SLICES)), strict=True):
            if name in self.deltas:
                part.add_(self.deltas[name].product())  # type: ignore[operator]
        return found

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        parts = zip(SLICES, base.chunk(len(SLICES), dim=-1), strict=True)
        changed = [self.deltas[name](part, x) if name in self.deltas else part for name, part in parts]
        return torch.cat(changed, dim=-1)


class DeltaLinear(Mergeable):
    """A frozen linear with an update of its weight."""

    def __init__(self, linear: nn.Module, delta: Delta) -> None:
        super().__init__()
        self.linear = linear
        self.delta = delta

    def forward(self, x: Tensor) -> Tensor:
        """Map x (batch, ..., inputs) to (batch, ..., outputs)."""
        result: Tensor = self.delta(self.linear(x), x)
        return result

    @torch.no_grad()
    def merged(self) -> nn.Module:
        assert isinstance(self.linear, nn.Linear)
        self.linear.weight = nn.Parameter(self.delta.added_to(self.linear.weight))
        return self.linear


def query_value(block: BlockSites, number: int, make: Callable[[str, int, int], Delta]) -> None:
    """Update q and v of a block, or fc1 and fc2 if the block has no attention.

    Args:
        block: sites of the block.
        number: number of the block, the first part of the names of its updates.
        make: function of a name such as "NUMBER.q" and of the numbers of inputs and outputs that returns the
            update.
    """
    if "qkv" in block.linears:
        slot = block.linear("qkv")
        inputs, outputs = widths(slot)
        deltas = {part: make(f"{number}.{part}", inputs, outputs // len(SLICES)) for part in ("q", "v")}
        slot.set(DeltaLinear(slot.get(), Slices(deltas)))
        return
    for role in ("fc1", "fc2"):
        slot = block.linear(role)
        slot.set(DeltaLinear(slot.get(), make(f"{number}.{role}", *widths(slot))))


def weight_of(block: BlockSites, name: str) -> Tensor:
    """Return the frozen weight (outputs, inputs) that an update of `query_value` belongs to.

    Args:
        block: sites of the block, before the update is attached.
        name: name of the update, such as "NUMBER.q".
    """
    part = name.rpartition(".")[2]
    weight = block.linear(part if part in ROLES else "qkv").get().weight
    assert isinstance(weight, Tensor)
    return weight.chunk(len(SLICES))[SLICES.index(part)] if part in SLICES else weight


@torch.no_grad()
def changed(linear: nn.Module, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """Return `linear` with `weight` (outputs, inputs) and `bias` (outputs,) added to its own.

    Its parameters are replaced, not written to: several models may share those of a backbone.
    """
    assert isinstance(linear, nn.Linear)
    linear.weight = nn.Parameter(linear.weight + weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias if linear.bias is None else linear.bias + bias)
    return linear
