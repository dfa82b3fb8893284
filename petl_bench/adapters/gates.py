"""Gates on what a branch gives, after VL-PET (HenryHZY/VL-PET), u being the branch's normalized input.

    large     y * 2 sigmoid(W2 gelu(W1 u))                      one factor a token and channel
    middle_x  y * 2 sigmoid(w (u + y))                          one a token
    middle_y  y * (1 + g)                                       one a channel
    small     y * mean over tokens of 2 sigmoid(w [u; y])       one an image

The source has sigmoid without the 2, which halves the frozen branch at the start; here W2, w and g start at
zero (the source's g: normal .02), so that every gate starts at 1 (inference). No biases. That u is the
normalized stream is a choice: in the source's post-norm network the two are one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape
from petl_bench.adapters.lowrank import pair

GATES = ("none", "large", "middle_x", "middle_y", "small")


class Large(nn.Module):
    """A bottleneck as wide as the adapter's."""

    def __init__(self, down: nn.Linear, up: nn.Linear) -> None:
        super().__init__()
        self.down = down
        self.up = up

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Both (batch, ..., dim)."""
        return y * (2 * torch.sigmoid(self.up(functional.gelu(self.down(u)))))


class MiddleX(nn.Module):
    """One factor a token."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Both (batch, ..., dim)."""
        return y * (2 * torch.sigmoid(self.linear(u + y)))


class MiddleY(nn.Module):
    """One factor a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.excess = nn.Parameter(torch.zeros(dim))

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Both (batch, ..., dim)."""
        return torch.addcmul(y, y, self.excess)  # 1 + excess would lose its digits in bfloat16


class Small(nn.Module):
    """One factor an image."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Both (batch, ..., dim)."""
        factors = 2 * torch.sigmoid(self.linear(torch.cat([u, y], -1)))
        return y * factors.mean(tuple(range(1, y.ndim - 1)), keepdim=True)


def gate(kind: str, attached: Attached, name: str, dim: int, shape: Shape) -> nn.Module | None:
    """The gate of one branch, its matrices and floats added to what is attached.

    large: `NAME.gate.down` (hidden, dim) and `NAME.gate.up` (dim, hidden). middle_x: `NAME.gate` (1, dim).
    small: `NAME.gate` (1, 2 dim). middle_y: dim floats.
    """
    if kind == "none":
        return None
    if kind == "large":
        return Large(*pair(attached, f"{name}.gate", dim, dim, shape))
    if kind == "middle_y":
        channels = MiddleY(dim)
        attached.floats.setdefault("gates", []).append(channels.excess)
        return channels
    linear = nn.Linear(dim if kind == "middle_x" else 2 * dim, 1, bias=False)
    attached.matrices[f"{name}.gate"] = linear
    attached.initializers[f"{name}.gate"] = (
        initialization.near_zero if shape.quantized else initialization.zero
    )
    return MiddleX(linear) if kind == "middle_x" else Small(linear)
