"""DoRA (Liu et al. 2024, arXiv 2402.09353): direction and length of each row of a weight are trained apart.

    y = m * (V / |V|) x + b,    V = W + s * up @ down

W (outputs, inputs) and b (outputs,) are the frozen projection of q or v, down is (hidden, inputs), up is
(outputs, hidden), |V| (outputs, 1) are the Euclidean lengths of the rows of V, and m (outputs, 1) is
initialized with those of W, so that training starts at the frozen backbone. Gradients do not flow through
|V|.

Source: section 4.3 of arXiv 2402.09353; huggingface/peft, tuners/lora/dora.py. Blocks without attention have
the same updates on both linears of their MLP, a translation by this project. What is trained and stored in
place of m is its difference from the lengths of W, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.decomposed import Start
from petl_bench.adapters.delta import Delta, query_value, weight_of
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import BlockSites, Sites


@dataclass(frozen=True)
class DoRAConfig:
    """Settings of the method, which has none."""


class Directed(Delta):
    """The update m * V / |V| - W with V = W + scale * up @ down.

    Args:
        down: weight (rank, inputs).
        up: weight (outputs, rank).
        longer: differences (outputs,) of m from the lengths of the rows of W.
        frozen: module whose `weight` is W (outputs, inputs).
        scale: fixed factor.
    """

    def __init__(
        self, down: nn.Linear, up: nn.Linear, longer: nn.Parameter, frozen: Start, scale: float
    ) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.longer = longer
        self.frozen = frozen
        self.scale = scale

    def product(self) -> Tensor:
        frozen = self.frozen.weight
        update = self.scale * (self.up.weight @ self.down.weight)
        direction = frozen + update
        lengths = direction.detach().norm(dim=1, keepdim=True)
        # (m / |V|) V - W without the difference of two large matrices
        longer = (frozen.norm(dim=1, keepdim=True) - lengths + self.longer[:, None]) / lengths
        return update + longer * direction


@adapter(
    "dora",
    description="LoRA on the direction of each row of q and v, and its trained length (arXiv 2402.09353).",
    config=DoRAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"start": 0.0},
)
def attach(sites: Sites, shape: Shape, config: DoRAConfig) -> Attached:
    """Attach two pairs per block and the lengths: 4 * dim * hidden weights and 2 * dim floats per block."""
    attached = Attached(float32=True)
    lengths: list[nn.Parameter] = []

    def update(block: BlockSites, name: str, inputs: int, outputs: int) -> Directed:
        matrices = pair(attached, name, inputs, outputs, shape)
        lengths.append(nn.Parameter(torch.zeros(outputs)))
        return Directed(*matrices, lengths[-1], Start(weight_of(block, name).detach().clone()), shape.scale)

    for number, block in enumerate(sites.blocks):
        query_value(block, number, partial(update, block))
    attached.floats["lengths"] = lengths
    return attached
