"""HiRA (Huang et al. 2025, repository hqsiswiliam/hira): an update that multiplies each weight.

    y = (W + s * W * (up @ down)) x + b

W (outputs, inputs) and b (outputs,) are the frozen projection of q or v, down is (hidden, inputs), up is
(outputs, hidden), and `*` multiplies elements, so that the rank of the update can be that of W.

Source: huggingface/peft, tuners/hira. Blocks without attention have the same updates on both linears of their
MLP, a translation by this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.decomposed import Start
from petl_bench.adapters.delta import Delta, query_value, weight_of
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import BlockSites, Sites


@dataclass(frozen=True)
class HiRAConfig:
    """Settings of the method, which has none."""


class MultipliedDelta(Delta):
    """The update scale * frozen * (up @ down).

    Args:
        down: weight (rank, inputs).
        up: weight (outputs, rank).
        frozen: module whose `weight` (outputs, inputs) is multiplied.
        scale: fixed factor.
    """

    def __init__(self, down: nn.Linear, up: nn.Linear, frozen: Start, scale: float) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.frozen = frozen
        self.scale = scale

    def product(self) -> Tensor:
        product: Tensor = self.up.weight @ self.down.weight
        return self.scale * product * self.frozen.weight.to(product.dtype)


@adapter(
    "hira",
    description="A low-rank matrix times the frozen weight by elements, on q and v (hqsiswiliam/hira).",
    config=HiRAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: HiRAConfig) -> Attached:
    """Attach two pairs per block, as LoRA does: 4 * dim * hidden weights and 0 floats."""
    attached = Attached()

    def update(block: BlockSites, name: str, inputs: int, outputs: int) -> MultipliedDelta:
        matrices = pair(attached, name, inputs, outputs, shape)
        return MultipliedDelta(*matrices, Start(weight_of(block, name).detach().clone()), shape.scale)

    for number, block in enumerate(sites.blocks):
        query_value(block, number, partial(update, block))
    return attached
