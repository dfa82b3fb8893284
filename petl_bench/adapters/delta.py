"""Changes of a frozen linear's weight: the common form of methods that merge."""

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
    """Those of a block's linears, for methods that change each of them.

    Raises:
        UserError: it has none.
    """
    found = [role for role in ROLES if role in block.linears]
    if not found:
        block.linear("fc1")
    return found


def linears(sites: Sites) -> dict[str, Slot]:
    """Every linear of every block, as "BLOCK.ROLE".

    Raises:
        UserError: a block has none.
    """
    return {
        f"{number}.{role}": block.linear(role)
        for number, block in enumerate(sites.blocks)
        for role in roles(block)
    }


class Delta(nn.Module, ABC):
    """A trainable change of a frozen linear's weight."""

    @abstractmethod
    def product(self) -> Tensor:
        """The change as one matrix (outputs, inputs), without dropout."""

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        """base (batch, ..., outputs), what the linear gives of x (batch, ..., inputs), -> changed.

        Methods with dropout, or with a faster way than the whole matrix, have their own.
        """
        return base + functional.linear(x, self.product().to(x.dtype))


class LowRank(Delta):
    """scale * up @ down, with dropout between the two; no alpha / rank factor."""

    def __init__(self, down: nn.Linear, up: nn.Linear, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def product(self) -> Tensor:
        product: Tensor = self.scale * (self.up.weight @ self.down.weight)
        return product

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        return torch.add(base, self.up(self.dropout(self.down(x))), alpha=self.scale)


SLICES = ("q", "k", "v")
"""Equal parts of the outputs of qkv, in order."""


class Slices(Delta):
    """Changes of some of the slices q, k, v of a qkv projection."""

    def __init__(self, deltas: Mapping[str, Delta]) -> None:
        super().__init__()
        self.deltas = nn.ModuleDict(deltas)

    def product(self) -> Tensor:
        found = {name: delta.product() for name, delta in self.deltas.items()}  # type: ignore[operator]
        zero = torch.zeros_like(next(iter(found.values())))
        return torch.cat([found.get(name, zero) for name in SLICES])

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        parts = zip(SLICES, base.chunk(len(SLICES), dim=-1), strict=True)
        changed = [self.deltas[name](part, x) if name in self.deltas else part for name, part in parts]
        return torch.cat(changed, dim=-1)


class DeltaLinear(Mergeable):
    """A frozen linear and a change of its weight."""

    def __init__(self, linear: nn.Module, delta: Delta) -> None:
        super().__init__()
        self.linear = linear
        self.delta = delta

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, ..., inputs); result (batch, ..., outputs)."""
        result: Tensor = self.delta(self.linear(x), x)
        return result

    def merged(self) -> nn.Module:
        return changed(self.linear, self.delta.product())


def query_value(block: BlockSites, number: int, make: Callable[[str, int, int], Delta]) -> None:
    """Change q and v of a block, or fc1 and fc2 where it has no attention.

    Args:
        make: name ("NUMBER.q"), inputs, outputs -> the change.
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


@torch.no_grad()
def changed(linear: nn.Module, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """The linear itself, `weight` (outputs, inputs) and `bias` (outputs,) added to its own."""
    assert isinstance(linear, nn.Linear)
    linear.weight += weight
    if bias is not None:
        linear.bias = nn.Parameter(bias if linear.bias is None else linear.bias + bias)
    return linear
