"""MoSA (Zhang et al. 2023, arXiv 2312.02923; Theia-4869/MoSA): an adapter that trains by random parts.

    d + s * (up @ dropout(gelu(down @ LN(x) + c)) + e)

stands parallel to the MLP branch, LN its own layer norm. The elements of `up` are dealt to `experts` of
equal size, once and for all, by the seed; each pass in training draws one expert a block for the whole
batch. A pass in training has experts * (up where it is that expert's, 0 elsewhere), evaluation has `up`: the
mean over experts of what training has. `down`, biases and norm are shared.

That is the source's training in merged scale, with one matrix instead of a copy an expert (inference): its
copies start alike at zero, and their mean is stored. An element's gradient here is `experts` times the
source's and its value a fraction, so that the source's steps are those of a learning rate divided by
`experts`. Below 32 bits the whole matrix is quantized before it is masked; codes of single experts would
have three zeros in four. The source gives each expert an `e` of its own (here one, trained each step); it
has `up` shared and `down` split for one task. The loss compares two passes, each with its own draws:
training reads `consistency`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import one_of
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class MosaConfig:
    experts: int = 4
    """Parts that `up` is split into, at most 256."""
    norm: str = "own"
    """Before down: own, a layer norm that is trained, or none."""
    dropout: float = 0.1
    """Before up."""
    consistency: float = 1.0
    """Weight of the symmetric KL divergence between two passes with other experts; 0: one pass."""


class Mosa(nn.Module):
    """x, z, d -> d + scale * (up @ dropout(gelu(down @ LN(x) + c)) + e)."""

    experts: Tensor

    def __init__(
        self, down: nn.Linear, up: nn.Linear, experts: Tensor, scale: float, config: MosaConfig
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(down.in_features, eps=1e-6) if config.norm == "own" else nn.Identity()
        self.down = down
        self.up = up
        self.down_bias = nn.Parameter(torch.zeros(down.out_features))
        self.up_bias = nn.Parameter(torch.zeros(up.out_features))
        self.count = config.experts
        self.register_buffer("experts", experts, persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.scale = scale

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """All (batch, ..., dim)."""
        hidden = functional.gelu(functional.linear(self.norm(x), self.down.weight, self.down_bias))
        update = functional.linear(self.dropout(hidden), self.drawn(), self.up_bias)
        return torch.add(d, update, alpha=self.scale)

    def drawn(self) -> Tensor:
        """What stands for `up` in this pass: (dim, hidden)."""
        if not self.training:
            return self.up.weight
        expert = torch.randint(self.count, (), device=self.experts.device)
        return self.up.weight * (self.count * (self.experts == expert))


@adapter("mosa", config=MosaConfig, group="additive", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: MosaConfig) -> Attached:
    """A block: 2 * dim * hidden weights, dim + hidden floats of biases and 2 * dim of its norm."""
    if not 1 <= config.experts <= 256:
        raise ValueError(f"experts must be between 1 and 256, not {config.experts}")
    if config.consistency < 0:
        raise ValueError(f"consistency must be 0 or more, not {config.consistency}")
    one_of("norm", config.norm, ("own", "none"))
    attached = Attached(consistency=config.consistency)
    for number, block in enumerate(sites.blocks):
        down, up = pair(attached, str(number), block.dim, block.dim, shape)
        experts = dealt(shape.seed, f"adapter.{number}.experts", (block.dim, shape.hidden), config.experts)
        module = Mosa(down, up, experts, shape.scale, config)
        attached.floats.setdefault("biases", []).extend([module.down_bias, module.up_bias])
        if config.norm == "own":
            attached.floats.setdefault("norms", []).extend(module.norm.parameters())
        block.branch("mlp").join(module)
    return attached


def dealt(seed: int, name: str, size: tuple[int, int], experts: int) -> Tensor:
    """The expert of each element, uint8 of `size`: shares that differ by one element at most."""
    order = np.argsort(initialization.words(seed, name, size), axis=None, kind="stable")
    dealt = np.empty(order.size, np.uint8)
    dealt[order] = np.arange(order.size) * experts // order.size
    return torch.from_numpy(dealt.reshape(size))
