"""VeRA (Kopiczko et al. 2024, arXiv 2310.11454): frozen random matrices, and trained vectors between them.

    y = W x + bias + s * b * (B (d * (A x)))

W (outputs, inputs) and bias (outputs,) are the frozen projection of q or v. A (hidden, inputs) and B
(outputs, hidden) are frozen, random and the same in all blocks; d (hidden,) and b (outputs,) are trained in
each block, and `*` multiplies elements. A and B are uniform within 1 / sqrt(inputs) and 1 / sqrt(hidden). d
starts at 0.1, spread by 0.001 so that it can be quantized, and b at zero, or near zero below 32 bits.

With probabilistic=true (PVeRA, arXiv 2512.07703), A has 2 * hidden rows, and d as many entries. The halves of
d * (A x) are a mean m and the logarithm of a variance v; B is applied to a sample m + exp(v / 2) * noise in
training and to m in evaluation.

Source: huggingface/peft, tuners/vera and tuners/pvera. A and B come from the seed by SHAKE-256, so that they
are never stored, and reloaded files have the same ones with every version of torch. Blocks without attention
have the same updates on both linears of their MLP, which is a translation by this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import Delta, query_value
from petl_bench.adapters.rows import Stack, at_least_one, first_values
from petl_bench.backbones.sites import Sites

FIRST = 0.1
"""Mean of the initial values of d."""
SPREAD = 1e-3
"""Largest distance of an initial value of d from that mean."""


@dataclass(frozen=True)
class VeRAConfig:
    probabilistic: bool = False
    """True if hidden units are sampled in training from a normal distribution that they state (PVeRA)."""
    dropout: float = 0.0
    """Probability that an input of the update is zeroed in training; at least 0 and at most 1."""


class ScaledRandom(Delta):
    """The update scale * diag(b) B diag(d) A with frozen A and B.

    Args:
        d: module that returns the factors of the hidden units (1, hidden), or (1, 2 * hidden) if
        probabilistic. b: module that returns the factors of the outputs (1, outputs). down: A (as
        many rows as d has entries, inputs). up: B (outputs, hidden). scale: fixed factor. dropout:
        probability that an input is zeroed in training.
    """

    down: Tensor
    up: Tensor

    def __init__(
        self, d: nn.Module, b: nn.Module, down: Tensor, up: Tensor, scale: float, dropout: float
    ) -> None:
        super().__init__()
        self.d = d
        self.b = b
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("up", up, persistent=False)

    def product(self) -> Tensor:
        rank = self.up.shape[1]
        inner = self.d().t()[:rank] * self.down[:rank]
        return self.scale * self.b().t() * (self.up @ inner)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        hidden = functional.linear(self.dropout(x), self.down) * self.d().to(x.dtype)
        rank = self.up.shape[1]
        if hidden.shape[-1] > rank:
            hidden, spread = hidden.split(rank, -1)
            if self.training:
                hidden = torch.addcmul(hidden, torch.exp(spread / 2), torch.randn_like(hidden))
        update = functional.linear(hidden, self.up) * self.b().to(x.dtype)
        return torch.add(base, update, alpha=self.scale)


def around_first(seed: int, name: str, shape: tuple[int, int]) -> initialization.Values:
    """Initialize uniformly within SPREAD of FIRST."""
    return FIRST + initialization.uniform(SPREAD)(seed, name, shape)


@cache
def frozen(seed: int, inputs: int, outputs: int, rows: int, rank: int) -> tuple[Tensor, Tensor]:
    """Return A (rows, inputs) and B (outputs, rank), the same tensors for all linears of one shape."""
    down, up = (
        initialization.linear(seed, f"adapter.{name}", size)
        for name, size in (("A", (rows, inputs)), ("B", (outputs, rank)))
    )
    return torch.from_numpy(down), torch.from_numpy(up)


@adapter(
    "vera",
    description="Trained vectors between frozen random matrices on q and v (VeRA, arXiv 2310.11454).",
    config=VeRAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: VeRAConfig) -> Attached:
    """Attach two vectors per linear: hidden (2 * hidden if probabilistic) + outputs weights and 0 floats.

    They are rows of the matrix `d` (linears, hidden) and of `b` (linears, outputs).

    Raises:
        UserError: hidden is less than 1.
    """
    rank = at_least_one(shape)
    outer, inner = Stack(), Stack()

    def update(name: str, inputs: int, outputs: int) -> ScaledRandom:
        down, up = frozen(shape.seed, inputs, outputs, rank * (2 if config.probabilistic else 1), rank)
        d, b = inner.rows(1, len(down)), outer.rows(1, outputs)
        return ScaledRandom(d, b, down, up, shape.scale, config.dropout)

    for number, block in enumerate(sites.blocks):
        query_value(block, number, update)
    attached = Attached()
    inner.declare(attached, "d", around_first)
    outer.declare(attached, "b", first_values(shape))
    return attached
