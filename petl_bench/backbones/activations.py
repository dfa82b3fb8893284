"""Reduced memory for the activations that a frozen backbone keeps for the backward pass.

The forward pass does not change. There are four kinds (`train.activations`):

full    Everything that torch keeps by default.
exact   A layer norm before an adapted linear computes its gradient from its output, which the adapter keeps
        anyway, instead of its input. Gradients are equal up to rounding. Source: MS-LN of repository
        yyyyychen/LowMemoryBP, which folds the norm's weight into the next linear; here the output is divided
        by the weight.
4bit    As `exact`, and GELU keeps its derivative rounded to 16 levels instead of its input. Gradients are
        approximate. Source: after S2A, arXiv 2503.08154; the choice of levels is our own.
2bit    As `4bit`, with a derivative of 4 values, so GELU's gradient is that of a step function. Source:
        ReGELU2 of LowMemoryBP.
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from timm.layers.activations import GELU
from torch import Tensor, nn

from petl_bench.backbones.sites import BlockSites, Sites
from petl_bench.errors import UserError

LOW, HIGH = -0.129, 1.129
"""Bounds of GELU's derivative, cdf(x) + x density(x)."""
STEP = (HIGH - LOW) / 15
"""Distance between two of the 16 levels; the error of a derivative is at most half of it."""
EDGES = (-3.1858810, -0.0011788, 3.1908326)
JUMPS = (-0.0492226, 1.0979632, -0.0487406)
"""ReGELU2: the derivative at x is the sum of the jumps at all edges below x."""
MOST_RATIO = 100.0
"""Largest ratio of a norm's bias to its weight at which dividing by the weight keeps enough digits."""

FIRST = {"attention": "qkv", "mlp": "fc1"}
"""Role of the linear that follows the norm of a branch."""


class ActivationReduction:
    """Replacement of layer norms and GELUs of a backbone by modules that keep fewer activations.

    It must be created before an adapter is attached, so that the modules of the adapter are not replaced, and
    `adapter_attached` must be called afterwards.

    Args:
        network: the backbone; its modules are replaced in place.
        sites: sites of the backbone.
        kind: full, exact, 4bit or 2bit.

    Raises:
        UserError: the backbone has no module that `kind` could replace.
    """

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

    def adapter_attached(self) -> None:
        """Use the outputs of those norms that an attached adapter follows, since it keeps them anyway."""
        for block, role, norm in self.norms:
            adapted = type(block.linears[role].get()) is not nn.Linear
            norm.from_output = adapted and norm.invertible()


def _is_gelu(module: nn.Module) -> bool:
    """Return whether a module is torch's or timm's exact GELU."""
    return isinstance(module, GELU) or (isinstance(module, nn.GELU) and module.approximate == "none")


class LowBitGELU(nn.GELU):
    """GELU that keeps 4 or 2 bits of each derivative for the backward pass.

    Args:
        bits: 4 or 2.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU of `x`, a tensor of any shape."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return super().forward(x)
        result: Tensor = _GELU.apply(x, self.bits)
        return result


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bits):  # type: ignore[no-untyped-def]
        ctx.bits, ctx.size = bits, x.shape
        ctx.save_for_backward(pack_codes(derivative_codes(x, bits).flatten(), bits))
        return nn.functional.gelu(x)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (packed,) = ctx.saved_tensors
        codes = unpack_codes(packed, ctx.bits)[: ctx.size.numel()].view(ctx.size)
        return gradient * derivatives(codes, ctx.bits, gradient.dtype), None


def derivative_codes(x: Tensor, bits: int) -> Tensor:
    """Return the index of the level of GELU's derivative at each x: uint8 in the shape of `x`."""
    if bits == 2:
        return sum((x > edge).to(torch.uint8) for edge in EDGES)  # type: ignore[return-value]
    wide = x.float()
    derivative = torch.special.ndtr(wide) + wide * torch.exp(-wide.square() / 2) / sqrt(2 * pi)
    return ((derivative - LOW) / STEP).round_().clamp_(0, 15).to(torch.uint8)


def derivatives(codes: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Return the derivatives that `codes` stand for, in their shape."""
    if bits == 4:
        return codes.to(dtype) * STEP + LOW
    return sum(((codes > i).to(dtype) * jump for i, jump in enumerate(JUMPS)), torch.zeros((), dtype=dtype))


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack codes (n,) into ceil(n * bits / 8) bytes.

    The codes are padded and cut into 8 / bits parts of equal length; a byte holds one code of each part.
    """
    parts = 8 // bits
    table = nn.functional.pad(codes, (0, -len(codes) % parts)).view(parts, -1)
    packed = table[0]
    for i in range(1, parts):
        packed = packed | table[i] << bits * i
    return packed


def unpack_codes(packed: Tensor, bits: int) -> Tensor:
    """Return the codes that `pack_codes` has packed, and the padding after them."""
    mask = (1 << bits) - 1
    return torch.cat([packed >> bits * i & mask for i in range(8 // bits)])


class OutputSavingLayerNorm(nn.LayerNorm):
    """A layer norm that can keep its output for the backward pass instead of its input.

    It does so only while its own parameters are frozen and for float32 inputs: the division by the weight
    would lose too many digits in bfloat16.

    Args:
        norm: the layer norm to replace, whose parameters are shared.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.from_output = False

    @torch.no_grad()
    def invertible(self) -> bool:
        """Return whether the normalized input can be computed from the output with enough digits."""
        if self.weight.is_meta:  # without values, where only memory is told
            return True
        return bool((self.bias.abs() <= MOST_RATIO * self.weight.abs()).all() and (self.weight != 0).all())

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized `x` (..., dim), in its shape."""
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
        projection = normalized * (inner * normalized).mean(-1, keepdim=True)
        return inverse * (inner - inner.mean(-1, keepdim=True) - projection), None, None, None
