"""The precision in which a frozen backbone is stored and computes; trainable weights stay in float32.

fp32   float32 throughout.
bf16   frozen weights and activations in bfloat16.
int8   as bf16, but the products with frozen linears, forward and back to their inputs, in 8-bit integers;
       linears whose widths are no multiples of 8 stay in bf16, since GPUs have no product for them.

Trainable weights are used in the precision of the activations; those of which only a small move counts, in
float32 (petl_bench.adapters.Attached.float32).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
"""What activations are in."""

_LEAST_ROWS = 32
"""Integer products on GPUs want more than 16 rows."""


def lower(network: nn.Module, precision: str, device: torch.device, kept: Iterable[nn.Module] = ()) -> None:
    """Store and compute a network in `precision`, on `device`; images and logits are float32 all the same.

    What trains must have been taken out (`casts`, petl_bench.quantizers.LatentStack); the rest is frozen.

    Args:
        kept: linears that int8 leaves alone.
    """
    dtype = COMPUTE[precision]
    if precision == "int8":
        _replace_linears(network, set(kept))
    if precision != "fp32" and device.type == "cpu":
        # torch's fused attention takes two to three times as long there in bfloat16 as the plain products.
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
    """A float32 parameter that a module uses in another precision, cast anew before each forward pass."""

    module: nn.Module
    name: str
    parameter: nn.Parameter
    dtype: torch.dtype

    def materialize(self) -> None:
        setattr(self.module, self.name, self.parameter.to(self.dtype))


def casts(network: nn.Module, parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> list[Cast]:
    """Take the parameters out of all modules that hold them."""
    chosen = {id(parameter) for parameter in parameters}
    found = []
    for path, parameter in list(network.named_parameters(remove_duplicate=False)):
        if id(parameter) in chosen:
            parent, _, name = path.rpartition(".")
            module = network.get_submodule(parent)
            delattr(module, name)
            found.append(Cast(module, name, parameter, dtype))
    return found


class Int8Linear(nn.Module):
    """A frozen linear in 8-bit integers: one scale an output for the weight, one for each row it multiplies.

    The gradient of its input is a product in integers too, with one weight scale an input. Both copies of the
    weight together take the bytes of one in bfloat16. A scale is the greatest magnitude / 127, rounded to
    bfloat16 before codes are made with it.
    """

    codes: Tensor
    scale: Tensor
    codes_back: Tensor
    scale_back: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        for suffix, weight in (("", linear.weight), ("_back", linear.weight.t())):
            codes, scale = _quantized_rows(weight.detach())
            self.register_buffer(f"codes{suffix}", codes.contiguous())
            self.register_buffer(f"scale{suffix}", scale.squeeze(1))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs); result (..., outputs) in the precision of x."""
        weights = (self.codes, self.scale, self.bias, self.codes_back, self.scale_back)
        product: Tensor = _Product.apply(x.flatten(0, -2), *weights)
        return product.view(*x.shape[:-1], len(self.codes))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, codes, scale, bias, codes_back, scale_back):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(codes_back, scale_back)
        return _product(rows, codes, scale, bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        codes, scale = ctx.saved_tensors
        return _product(gradient, codes, scale, None), None, None, None, None, None


def _product(rows: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """rows (R, I) times a matrix (O, I) of codes and scales (O,): (R, O) in the precision of `rows`."""
    count = len(rows)
    if count < _LEAST_ROWS:
        rows = nn.functional.pad(rows, (0, 0, 0, _LEAST_ROWS - count))
    left, row_scale = _quantized_rows(rows)
    product = torch._int_mm(left, codes.t())[:count].to(rows.dtype).mul_(row_scale[:count])
    return product.mul_(scale) if bias is None else torch.addcmul(bias, product, scale)


def _quantized_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (int8) and scales (rows, 1) of a matrix."""
    row_scale = (matrix.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127).bfloat16().to(matrix.dtype)
    return (matrix / row_scale).round_().clamp_(-127, 127).to(torch.int8), row_scale
