"""Precisions in which a frozen backbone is stored and computed; trainable parameters stay in float32.

fp32   Float32 throughout.
bf16   Frozen weights and activations in bfloat16.
int8   As bf16, but the products with the weights of frozen linears, in the forward pass and in the gradient
       of their inputs, are computed in 8-bit integers. Linears whose widths are not multiples of 8 stay in
       bf16, since GPUs have no integer product for them.

Trainable parameters are cast to the precision of the activations before each forward pass, except for methods
whose small changes of weights would be lost by that (petl_bench.adapters.Attached.float32).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
"""Dtype of activations in each precision."""

_LEAST_ROWS = 32
"""Integer products on GPUs need more than 16 rows; shorter matrices are padded to this number."""


def lower(network: nn.Module, precision: str, device: torch.device, kept: Iterable[nn.Module] = ()) -> None:
    """Convert a network in place to `precision` on `device`; images and logits remain float32.

    All parameters of the network are treated as frozen. Trainable parameters must have been moved out of it
    before (`casts`, petl_bench.quantizers.LatentStack).

    Args:
        network: images (batch, 3, S, S) -> logits (batch, classes).
        precision: fp32, bf16 or int8.
        device: device that the network is moved to.
        kept: linears that int8 does not replace.
    """
    dtype = COMPUTE[precision]
    if precision == "int8":
        _replace_linears(network, set(kept))
    if precision != "fp32" and device.type == "cpu":
        # On CPUs torch's fused attention in bfloat16 takes two to three times as long as the plain products.
        for module in network.modules():
            if isinstance(getattr(module, "fused_attn", None), bool):
                setattr(module, "fused_attn", False)  # noqa: B010 - the attribute of timm's attention modules
    network.to(device, dtype)
    if dtype is not torch.float32:
        network.register_forward_pre_hook(lambda module, images: (images[0].to(dtype),))
        network.register_forward_hook(lambda module, images, logits: logits.float())


def _replace_linears(network: nn.Module, kept: set[nn.Module]) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or child in kept:
                continue
            if child.in_features % 8 == child.out_features % 8 == 0:
                setattr(parent, name, Int8Linear(child))


@dataclass(frozen=True)
class Cast:
    """A float32 parameter that a module uses in another dtype, cast before each forward pass.

    Attributes:
        module: module that uses the parameter. The reference is weak, because the network's hook holds its
            casts, and the module may be the network.
        name: attribute of the module that receives the cast parameter.
        parameter: the float32 parameter.
        dtype: dtype that the module uses.
    """

    module: ReferenceType[nn.Module]
    name: str
    parameter: nn.Parameter
    dtype: torch.dtype

    def materialize(self) -> None:
        """Give the module the current value of the parameter in `dtype`."""
        setattr(self.module(), self.name, self.parameter.to(self.dtype))


def casts(network: nn.Module, parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> list[Cast]:
    """Remove parameters from all modules of a network that hold them, and return their casts to `dtype`."""
    chosen = {id(parameter) for parameter in parameters}
    found = []
    for module in network.modules():  # each once, whatever the number of its parents
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) in chosen:
                delattr(module, name)
                found.append(Cast(ref(module), name, parameter, dtype))
    return found


class Int8Linear(nn.Module):
    """A frozen linear computed in 8-bit integers.

    The weight has one scale per output, the input one scale per row. The gradient of the input is an integer
    product too, with a second copy of the weight that has one scale per input. Both copies together take as
    many bytes as one copy in bfloat16. A scale is the largest magnitude / 127, rounded to bfloat16 before
    codes are computed with it.

    Args:
        linear: linear with weight (outputs, inputs) that is replaced.

    Attributes:
        codes: (outputs, inputs), int8, for the forward pass.
        scale: (outputs,).
        codes_transposed: (inputs, outputs), int8, for the gradient of the input.
        scale_transposed: (inputs,).
        bias: (outputs,) or None.
    """

    codes: Tensor
    scale: Tensor
    codes_transposed: Tensor
    scale_transposed: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        for suffix, weight in (("", linear.weight), ("_transposed", linear.weight.t())):
            codes, scale = _quantized_rows(weight.detach())
            self.register_buffer(f"codes{suffix}", codes.contiguous())
            self.register_buffer(f"scale{suffix}", scale.squeeze(1))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (..., outputs) for inputs `x` (..., inputs), in the dtype of `x`."""
        weights = (self.codes, self.scale, self.bias, self.codes_transposed, self.scale_transposed)
        product: Tensor = _Product.apply(x.flatten(0, -2), *weights)
        return product.view(*x.shape[:-1], len(self.codes))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, codes, scale, bias, codes_transposed, scale_transposed):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(codes_transposed, scale_transposed)
        return _product(rows, codes, scale, bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        codes, scale = ctx.saved_tensors
        return _product(gradient, codes, scale, None), None, None, None, None, None


def _product(rows: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply rows by a quantized matrix.

    Args:
        rows: (rows, inputs), in float32 or bfloat16.
        codes: (outputs, inputs), int8.
        scale: (outputs,).
        bias: (outputs,) or None.

    Returns:
        (rows, outputs), in the dtype of `rows`.
    """
    count = len(rows)
    if count < _LEAST_ROWS:
        rows = nn.functional.pad(rows, (0, 0, 0, _LEAST_ROWS - count))
    row_codes, row_scale = _quantized_rows(rows)
    product = torch._int_mm(row_codes, codes.t())[:count].to(rows.dtype).mul_(row_scale[:count])
    return product.mul_(scale) if bias is None else torch.addcmul(bias, product, scale)


def _quantized_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the int8 codes (rows, columns) and scales (rows, 1) of a matrix (rows, columns)."""
    row_scale = (matrix.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127).bfloat16().to(matrix.dtype)
    return (matrix / row_scale).round_().clamp_(-127, 127).to(torch.int8), row_scale
