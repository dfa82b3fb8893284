"""RepAdapter (Luo et al. 2023, arXiv 2302.08106): a linear adapter of the input of qkv and of fc1.

    v' = v + s * (B dropout(A v + a) + b)

v (dim,) is the input of the linear, A (hidden, dim), B (dim, hidden), a (hidden,), b (dim,), and s is the
fixed scale. B has two groups: its first dim / 2 outputs see the first half of the hidden units, the others
the second half, so that B is block-diagonal and has dim * hidden / 2 weights. The adapter is linear and
merges exactly into the linear W, bias that follows:

    W' = W (I + s B A),    bias' = bias + s W (B a + b)

Source: repository luogen1996/RepAdapter. Blocks of ConvNeXt have the adapter before fc1 only: the other one
of the source stands before a depthwise convolution, where it does not merge. The biases of a site, a and
then b, stay in float32. `allocation` is a translation by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Mergeable, Shape, adapter
from petl_bench.adapters.delta import changed
from petl_bench.adapters.lowrank import allocated, pair
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError

GROUPS = 2


@dataclass(frozen=True)
class RepAdapterConfig:
    dropout: float = 0.1
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""
    attention_only: bool = False
    """Place adapters before qkv only, as the mode `repattn` of the source does."""
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""


class RepLinear(Mergeable):
    """A frozen linear with an adapter of its input.

    Args:
        linear: frozen linear with weight (outputs, dim).
        down: weight (hidden, dim).
        up: weight (dim, hidden / 2); each half of its rows belongs to one group.
        biases: biases of `down` (hidden,) and of `up` (dim,).
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
    """

    def __init__(
        self,
        linear: nn.Module,
        down: nn.Linear,
        up: nn.Linear,
        biases: list[nn.Parameter],
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.down = down
        self.up = up
        self.down_bias, self.up_bias = biases
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def _up(self) -> Tensor:
        return torch.block_diag(*self.up.weight.chunk(GROUPS))

    def forward(self, v: Tensor) -> Tensor:
        """Map v (batch, ..., dim) to (batch, ..., outputs)."""
        hidden = self.dropout(functional.linear(v, self.down.weight, self.down_bias))
        update = functional.linear(hidden, self._up(), self.up_bias)
        result: Tensor = self.linear(torch.add(v, update, alpha=self.scale))
        return result

    def merged(self) -> nn.Module:
        assert isinstance(self.linear, nn.Linear)
        before = self.scale * self.linear.weight
        shift = self._up() @ self.down_bias + self.up_bias
        return changed(self.linear, before @ self._up() @ self.down.weight, before @ shift)


@adapter(
    "repadapter",
    description="Linear adapters before qkv and fc1, merged into them (RepAdapter, arXiv 2302.08106).",
    config=RepAdapterConfig,
    group="reparameterized",
    tokenwise=True,
)
def attach(sites: Sites, shape: Shape, config: RepAdapterConfig) -> Attached:
    """Attach one adapter per site: 1.5 * dim * hidden weights and hidden + dim floats.

    A is initialized by Xavier's uniform rule, B with zeros, or near zero below 32 bits, biases with zeros.

    Raises:
        UserError: hidden is odd, or attention_only is set and the blocks have no attention.
    """
    if shape.hidden % GROUPS:
        raise UserError(f"hidden={shape.hidden} must be even: hidden units form {GROUPS} equal groups here")
    attached = Attached()
    ranks = [
        GROUPS * each for each in allocated(config.allocation, len(sites.blocks), shape.hidden // GROUPS)
    ]
    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        roles = ("qkv", "fc1") if "qkv" in block.linears else ("fc1",)
        for role in ("qkv",) if config.attention_only else roles:
            slot = block.linear(role)
            name = f"{number}.{role}"
            down, up = pair(attached, name, block.dim, block.dim, shape, rank, GROUPS)
            attached.initializers[f"{name}.down"] = initialization.xavier
            biases = [nn.Parameter(torch.zeros(width)) for width in (rank, block.dim)]
            attached.floats[f"{name}.bias"] = biases
            slot.set(RepLinear(slot.get(), down, up, biases, shape.scale, config.dropout))
    return attached
