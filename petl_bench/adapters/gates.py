"""Gates on the output of a branch with adapter, after VL-PET (repository HenryHZY/VL-PET).

    large     y * 2 sigmoid(W2 gelu(W1 u))                      one factor per token and channel
    middle_x  y * 2 sigmoid(w (u + y))                          one factor per token
    middle_y  y * (1 + g)                                       one factor per channel
    small     y * mean over tokens of 2 sigmoid(w [u; y])       one factor per image

y (dim,) is the branch output with adapter and u (dim,) the normalized input of the branch, for each token;
W1 (hidden, dim), W2 (dim, hidden), w (1, dim) or (1, 2 dim) in `small`, g (dim,). There are no biases.

Differences from the source: it uses the sigmoid without the factor 2, which halves the frozen branch before
training. Here W2, w and g start at zero, or near zero below 32 bits, so that every gate starts at 1; the
source draws g from a normal distribution with standard deviation 0.02. That u is the normalized stream is a
choice of this project: in the post-norm network of the source the two are the same.
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
    """The gate `large`: one factor per token and channel, from a bottleneck as wide as the adapter."""

    def __init__(self, down: nn.Linear, up: nn.Linear) -> None:
        super().__init__()
        self.down = down
        self.up = up

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Return y times the gate; u, y and the result are (batch, ..., dim)."""
        return y * (2 * torch.sigmoid(self.up(functional.gelu(self.down(u)))))


class MiddleX(nn.Module):
    """The gate `middle_x`: one factor per token."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Return y times the gate; u, y and the result are (batch, ..., dim)."""
        return y * (2 * torch.sigmoid(self.linear(u + y)))


class MiddleY(nn.Module):
    """The gate `middle_y`: one trained factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.excess = nn.Parameter(torch.zeros(dim))

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Return y times the gate; u, y and the result are (batch, ..., dim)."""
        return torch.addcmul(y, y, self.excess)  # 1 + excess would be rounded in bfloat16


class Small(nn.Module):
    """The gate `small`: one factor per image."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Return y times the gate; u, y and the result are (batch, ..., dim)."""
        factors = 2 * torch.sigmoid(self.linear(torch.cat([u, y], -1)))
        return y * factors.mean(tuple(range(1, y.ndim - 1)), keepdim=True)


def gate(kind: str, attached: Attached, name: str, dim: int, shape: Shape) -> nn.Module | None:
    """Return the gate of one branch after adding its matrices and floats to `attached`, or None.

    The gate `large` adds `NAME.gate.down` (hidden, dim) and `NAME.gate.up` (dim, hidden), `middle_x` adds
    `NAME.gate` (1, dim), `small` adds `NAME.gate` (1, 2 dim), and `middle_y` adds dim floats.

    Args:
        kind: a name of GATES.
        attached: declaration that receives matrices and floats.
        name: first part of the names of the matrices.
        dim: width of the residual stream.
        shape: settings that all methods share.
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
