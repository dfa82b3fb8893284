"""Plain reference that `petl-bench bench` compares with: quantized adapters that work like the released code.

It was written from the paper's description and from the behaviour of its code. The backbone is timm's and is
frozen before the first forward pass. All numbers are float32. Attention is written out, as in timm at that
time. A quantized linear layer compares its weight with all thresholds at once in every forward pass, in
evaluation, too. Nothing is slower than that: tests require the same numbers as those of petl_bench.model.

Source: arXiv 2307.16867.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from petl_bench.backbones import families
from petl_bench.quantizers import CODEBOOKS
from petl_bench.types import FLOAT_BITS, ModelSpec

EPSILON = 1e-5
"""Constant that is added to the standard deviation before dividing by it."""
DROPOUT = 0.1


def quantize(weight: Tensor, levels: Tensor) -> Tensor:
    """Quantize a weight to Q(z) * std + mean of the standardized weight z, with straight-through gradients.

    The comparison with all 2**bits - 1 thresholds allocates as many copies of the weight.

    Args:
        weight: shape (outputs, inputs).
        levels: the 2**bits quantization levels, ascending.

    Returns:
        The quantized weight, shape (outputs, inputs).
    """
    mean, std = weight.mean(), weight.std()
    z = (weight - mean) / (std + EPSILON)
    thresholds = (levels[1:] + levels[:-1]) / 2
    cells = (z.detach().unsqueeze(-1) > thresholds).sum(-1)
    return (z + (levels[cells] - z).detach()) * std + mean


class QuantizedLinear(nn.Linear):
    """Linear layer without bias; a weight of fewer than 32 bits is quantized in each forward pass."""

    levels: Tensor | None

    def __init__(self, inputs: int, outputs: int, bits: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        values = None
        if bits != FLOAT_BITS:
            values = torch.tensor(CODEBOOKS.get("l1_median").levels(bits), dtype=torch.float32)
        self.register_buffer("levels", values)

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (..., inputs) to shape (..., outputs)."""
        weight = self.weight if self.levels is None else quantize(self.weight, self.levels)
        return F.linear(x, weight)


class Update(nn.Module):
    """Adapter update: scale * up(dropout(activation(down(x))))."""

    def __init__(self, dim: int, spec: ModelSpec, activation: nn.Module) -> None:
        super().__init__()
        self.down = QuantizedLinear(dim, spec.hidden, spec.bits)
        self.up = QuantizedLinear(spec.hidden, dim, spec.bits)
        self.activation = activation
        self.dropout = nn.Dropout(spec.adapter.settings.get("dropout", DROPOUT))
        self.scale = spec.scale
        nn.init.trunc_normal_(self.up.weight, std=1e-3, a=-2e-3, b=2e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map x to a tensor of the same shape (batch, tokens, dim)."""
        update: Tensor = self.up(self.dropout(self.activation(self.down(x))))
        return self.scale * update


class Block(nn.Module):
    """Transformer block with an adapter: AdaptFormer beside the MLP, or LoRA on queries and values."""

    def __init__(self, frozen: Any, spec: ModelSpec) -> None:
        super().__init__()
        self.frozen = frozen
        dim = frozen.attn.qkv.in_features
        self.has_lora = spec.adapter.name == "lora"
        if self.has_lora:
            self.query = Update(dim, spec, nn.Identity())
            self.value = Update(dim, spec, nn.Identity())
        else:
            self.adapter = Update(dim, spec, nn.ReLU())

    def attention(self, x: Tensor) -> Tensor:
        """Map x to a tensor of the same shape (batch, tokens, dim)."""
        attention = self.frozen.attn
        batch, tokens, dim = x.shape

        def by_head(y: Tensor) -> Tensor:
            return y.reshape(batch, tokens, attention.num_heads, -1).transpose(1, 2)

        query, key, value = attention.qkv(x).split(dim, dim=-1)
        if self.has_lora:
            query, value = query + self.query(x), value + self.value(x)
        query, key, value = by_head(query), by_head(key), by_head(value)
        weights = ((query @ key.transpose(-2, -1)) * attention.scale).softmax(-1)
        return attention.proj((weights @ value).transpose(1, 2).reshape(batch, tokens, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map x to a tensor of the same shape (batch, tokens, dim)."""
        frozen = self.frozen
        x = x + frozen.drop_path1(self.attention(frozen.norm1(x)))
        branch = frozen.drop_path2(frozen.mlp(frozen.norm2(x)))
        return x + branch if self.has_lora else x + branch + self.adapter(x)


class Reference(nn.Module):
    """Plain ViT of timm with adapters and a float32 linear head.

    Args:
        spec: specification with adapter `adaptformer` or `lora` and head `linear`.
        drop_path: drop-path rate of the last block, as in petl_bench.backbones.families.
    """

    def __init__(self, spec: ModelSpec, drop_path: float = 0.0) -> None:
        super().__init__()
        frozen: Any = families.build(spec.backbone, drop_path)[0]
        self.patch_embed, self.norm = frozen.patch_embed, frozen.norm
        self.cls_token, self.pos_embed = frozen.cls_token, frozen.pos_embed
        self.blocks = nn.Sequential(*(Block(block, spec) for block in frozen.blocks))
        self.head = nn.Linear(frozen.num_features, spec.classes)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Matrices in the order of petl_bench.model, then weight and bias of the head."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, images: Tensor) -> Tensor:
        """Map images of shape (batch, 3, side, side) to logits of shape (batch, classes)."""
        patches = self.patch_embed(images)
        first = self.cls_token.expand(len(images), -1, -1)
        x = torch.cat([first, patches], dim=1) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def pack(codes: NDArray[np.uint8], bits: int) -> bytes:
    """Pack codes of 1, 2, 4 or 8 bits element by element in row-major order, least significant bits first."""
    packed = bytearray(codes.size * bits // 8 + (codes.size * bits % 8 > 0))
    for position, code in enumerate(codes.reshape(-1).tolist()):
        packed[position * bits // 8] |= code << position * bits % 8
    return bytes(packed)


def unpack(data: bytes, bits: int, count: int) -> NDArray[np.uint8]:
    """Invert `pack`; the result is a flat array of `count` codes."""
    mask = 2**bits - 1
    codes = [data[position * bits // 8] >> position * bits % 8 & mask for position in range(count)]
    return np.array(codes, np.uint8)
