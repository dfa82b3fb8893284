"""Fewer bytes of a frozen backbone's activations kept for the backward pass; the forward pass stays the same.

full    what torch keeps.
exact   layer norms before adapted linears are differentiated from their output, which the adapter keeps
        anyway, not from their input: the same gradients but for rounding (MS-LN, repository
        yyyyychen/LowMemoryBP, which folds the norm's weight into the next linear; here it is divided by).
4bit    that, and GELU's input is not kept but its derivative, rounded to 16 levels: approximate gradients
        (after S2A, arXiv 2503.08154; the levels are ours).
2bit    that with a derivative of 4 values, ReGELU2 (LowMemoryBP): GELU's gradient is a step function's.
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from timm.layers.activations import GELU
from torch import Tensor, nn

from petl_bench.backbones.sites import BlockSites, Sites
from petl_bench.errors import UserError

LOW, HIGH = -0.129, 1.129
"""GELU's derivative, cdf(x) + x density(x), is between these."""
STEP = (HIGH - LOW) / 15
"""Between two of the 16 levels: an error of the derivative is at most half of it."""
EDGES = (-3.1858810, -0.0011788, 3.1908326)
JUMPS = (-0.0492226, 1.0979632, -0.0487406)
"""ReGELU2: the derivative is the sum of the jumps at the edges below x."""
MOST_RATIO = 100.0
"""A norm whose bias is more times its weight would lose too many digits by the division."""

FIRST = {"attention": "qkv", "mlp": "fc1"}
"""The linear that a branch's norm feeds."""


class ActivationReduction:
    """What is replaced in a backbone, before an adapter joins it: what that brings along stays as it is."""

    def __init__(self, network: nn.Module, sites: Sites, kind: str) -> None:
        self.norms: list[tuple[BlockSites, str, OutputSavingLayerNorm]] = []
        if kind == "full":
            return
        replaced = False
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if kind != "exact" and _is_gelu(child):
                    setattr(parent, name, LowBitGELU(4 if kind == "4bit" else 2))
                    replaced = True
        for block in sites.blocks:
            for branch, role in FIRST.items():
                if branch in block.branches and role in block.linears:
                    slot = block.branches[branch].first
                    norm = slot.get()
                    if isinstance(norm, nn.LayerNorm) and norm.elementwise_affine and norm.bias is not None:
                        replacement = OutputSavingLayerNorm(norm)
                        slot.set(replacement)
                        self.norms.append((block, role, replacement))
        if not (replaced or self.norms):
            raise UserError(
                f"train.activations={kind} finds nothing to replace in this backbone: choose full"
            )

    def adapted(self) -> None:
        """Now an adapter has joined: norms know whether somebody keeps their output."""
        for block, role, norm in self.norms:
            adapted = type(block.linears[role].get()) is not nn.Linear
            norm.from_output = adapted and norm.invertible()


def _is_gelu(module: nn.Module) -> bool:
    """Whether it is torch's or timm's exact GELU."""
    return isinstance(module, GELU) or (isinstance(module, nn.GELU) and module.approximate == "none")


class LowBitGELU(nn.GELU):
    """GELU that keeps 4 or 2 bits of each derivative."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return super().forward(x)
        result: Tensor = _GELU.apply(x, self.bits)
        return result


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bits):  # type: ignore[no-untyped-def]
        ctx.bits, ctx.size = bits, x.shape
        ctx.save_for_backward(packed(codes(x, bits).flatten(), bits))
        return nn.functional.gelu(x)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (held,) = ctx.saved_tensors
        found = unpacked(held, ctx.bits)[: ctx.size.numel()].view(ctx.size)
        return gradient * slopes(found, ctx.bits, gradient.dtype), None


def codes(x: Tensor, bits: int) -> Tensor:
    """The number of the derivative's level, uint8."""
    if bits == 2:
        return sum((x > edge).to(torch.uint8) for edge in EDGES)  # type: ignore[return-value]
    wide = x.float()
    derivative = torch.special.ndtr(wide) + wide * torch.exp(-wide.square() / 2) / sqrt(2 * pi)
    return ((derivative - LOW) / STEP).round_().clamp_(0, 15).to(torch.uint8)


def slopes(codes: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """The derivatives that `codes` stand for."""
    if bits == 4:
        return codes.to(dtype) * STEP + LOW
    return sum(((codes > i).to(dtype) * jump for i, jump in enumerate(JUMPS)), torch.zeros((), dtype=dtype))


def packed(codes: Tensor, bits: int) -> Tensor:
    """Codes (n,) in ceil(n * bits / 8) bytes: a byte has one from each of 8 / bits equal stretches."""
    parts = 8 // bits
    table = nn.functional.pad(codes, (0, -len(codes) % parts)).view(parts, -1)
    held = table[0]
    for i in range(1, parts):
        held = held | table[i] << bits * i
    return held


def unpacked(held: Tensor, bits: int) -> Tensor:
    """The inverse of `packed`, padding included."""
    mask = (1 << bits) - 1
    return torch.cat([held >> bits * i & mask for i in range(8 // bits)])


class OutputSavingLayerNorm(nn.LayerNorm):
    """A layer norm that can keep its output rather than its input, while its own parameters are frozen.

    In float32 only: the division by the weight would lose what digits bfloat16 has.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.from_output = False

    @torch.no_grad()
    def invertible(self) -> bool:
        """Whether the input can be had from the output."""
        return bool((self.bias.abs() <= MOST_RATIO * self.weight.abs()).all() and (self.weight != 0).all())

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim)."""
        trained = self.weight.requires_grad or self.bias.requires_grad
        if not self.from_output or trained or x.dtype is not torch.float32:
            return super().forward(x)
        result: Tensor = _Norm.apply(x, self.weight, self.bias, self.eps)
        return result


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[no-untyped-def]
        y, _, inverse = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(y, inverse, weight, bias)
        return y

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        y, inverse, weight, bias = ctx.saved_tensors
        normalized = (y - bias) / weight
        inner = gradient * weight
        along = normalized * (inner * normalized).mean(-1, keepdim=True)
        return inverse * (inner - inner.mean(-1, keepdim=True) - along), None, None, None
