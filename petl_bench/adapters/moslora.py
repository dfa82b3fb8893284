"""MoSLoRA (Wu et al. 2024, arXiv 2406.11909; repository wutaiqiang/MoSLoRA): LoRA with a trained mixer.

    y = W x + b + s * up @ mixer @ dropout(down @ x)

W (outputs, inputs) and b (outputs,) are the frozen projection of q or v, down is (hidden, inputs), mixer
(hidden, hidden) and up (outputs, hidden). down and mixer are initialized as torch.nn.Linear is, up with
zeros, or near zero below 32 bits. Without the mixer this is LoRA.

Blocks without attention have the same updates on both linears of their MLP, a translation by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import Delta, query_value
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class MoSLoRAConfig:
    dropout: float = 0.1
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""


class Mixed(Delta):
    """The update scale * up @ mixer @ down, with dropout after `down`.

    Args:
        down: weight (rank, inputs).
        mixer: weight (rank, rank).
        up: weight (outputs, rank).
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
    """

    def __init__(
        self, down: nn.Linear, mixer: nn.Linear, up: nn.Linear, scale: float, dropout: float
    ) -> None:
        super().__init__()
        self.down = down
        self.mixer = mixer
        self.up = up
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def product(self) -> Tensor:
        return self.scale * (self.up.weight @ self.mixer.weight @ self.down.weight)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        update = self.up(self.mixer(self.dropout(self.down(x))))
        return torch.add(base, update, alpha=self.scale)


@adapter(
    "moslora",
    description="LoRA on q and v with a trained mixer of hidden units (MoSLoRA, arXiv 2406.11909).",
    config=MoSLoRAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: MoSLoRAConfig) -> Attached:
    """Attach two pairs and two mixers per block: 4 * dim * hidden + 2 * hidden**2 weights and 0 floats."""
    attached = Attached()

    def update(name: str, inputs: int, outputs: int) -> Mixed:
        down, up = pair(attached, name, inputs, outputs, shape)
        mixer = attached.matrices[f"{name}.mixer"] = nn.Linear(shape.hidden, shape.hidden, bias=False)
        return Mixed(down, mixer, up, shape.scale, config.dropout)

    for number, block in enumerate(sites.blocks):
        query_value(block, number, update)
    return attached
