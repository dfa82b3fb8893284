"""Hydra (Kim et al. 2023, arXiv 2309.06922): a parallel and a sequential low-rank update of one linear.

On proj and fc2 of every block, y = W x + bias becomes

    y' = y + s * (U_p (P_p x + c_p) + e_p) + s * (U_s (P_s y + c_s) + e_s)

with P_p (hidden, inputs), P_s (hidden, dim), U_p and U_s (dim, hidden), biases c_p and c_s (hidden,), e_p and
e_s (dim,), the fixed scale s, and dropout before each U. The index p stands for parallel and s for
sequential. Hidden is the rank of each pair. The update merges exactly:

    W'    = W + s * (U_p P_p + U_s P_s W)
    bias' = bias + s * (U_p c_p + e_p + U_s (P_s bias + c_s) + e_s)

Source: repository extremebird/Hydra. Translations by this project: the four biases of a site act as one
vector, s * (U_p c_p + e_p + U_s c_s + e_s), and bias=folded trains that vector instead; bias=none leaves all
biases out. Blocks of ConvNeXt have no proj, so that only fc2 is updated.
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
from petl_bench.backbones.sites import Sites, widths

BIASES = ("full", "folded", "none")


@dataclass(frozen=True)
class HydraConfig:
    dropout: float = 0.1
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""
    bias: str = "full"
    """Trained biases of a site: full (four vectors, as in the source), folded (one vector) or none."""
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""

    def __post_init__(self) -> None:
        if self.bias not in BIASES:
            raise ValueError(f"bias must be one of {', '.join(BIASES)}, not {self.bias!r}")


class Side(nn.Module):
    """One low-rank update: base + scale * (up dropout(down x + down_bias) + up_bias).

    Args:
        pair: down, weight (hidden, inputs), and up, weight (dim, hidden).
        down_bias: (hidden,), or None.
        up_bias: (dim,), or None.
        scale: fixed factor.
        dropout: probability that a hidden unit is zeroed in training.
    """

    def __init__(
        self,
        pair: tuple[nn.Linear, nn.Linear],
        down_bias: nn.Parameter | None,
        up_bias: nn.Parameter | None,
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.down, self.up = pair
        self.down_bias = down_bias
        self.up_bias = up_bias
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        hidden = self.dropout(functional.linear(x, self.down.weight, self.down_bias))
        return torch.add(base, functional.linear(hidden, self.up.weight, self.up_bias), alpha=self.scale)

    def product(self) -> Tensor:
        """Return the update of the weight (dim, inputs), without dropout."""
        product: Tensor = self.scale * (self.up.weight @ self.down.weight)
        return product

    def shift(self) -> Tensor | float:
        """Return what the biases add to the output: (dim,), or 0 without biases."""
        down = 0.0 if self.down_bias is None else self.up.weight @ self.down_bias
        return self.scale * (down + (0.0 if self.up_bias is None else self.up_bias))


class HydraLinear(Mergeable):
    """A frozen linear with an update of its input's path and one of its output.

    Args:
        linear: frozen linear with weight (dim, inputs).
        parallel: update that reads the input of the linear.
        sequential: update that reads the output of the linear.
    """

    def __init__(self, linear: nn.Module, parallel: Side, sequential: Side) -> None:
        super().__init__()
        self.linear = linear
        self.parallel = parallel
        self.sequential = sequential

    def forward(self, x: Tensor) -> Tensor:
        """Map x (batch, ..., inputs) to (batch, ..., dim)."""
        y: Tensor = self.linear(x)
        result: Tensor = self.parallel(self.sequential(y, y), x)
        return result

    def merged(self) -> nn.Module:
        assert isinstance(self.linear, nn.Linear)
        behind = self.sequential.product()
        shift = torch.zeros_like(behind[0]) + self.parallel.shift() + self.sequential.shift()
        if self.linear.bias is not None:
            shift = shift + behind @ self.linear.bias
        return changed(self.linear, self.parallel.product() + behind @ self.linear.weight, shift)


@adapter(
    "hydra",
    description="Low-rank pairs parallel to and behind proj and fc2 (Hydra, arXiv 2309.06922).",
    config=HydraConfig,
    group="low-rank",
    tokenwise=True,
)
def attach(sites: Sites, shape: Shape, config: HydraConfig) -> Attached:
    """Attach two pairs per site: (inputs + 3 * dim) * hidden weights.

    A site has 2 * (hidden + dim) floats with bias=full, dim floats with bias=folded and 0 with bias=none.
    Both P are initialized by Xavier's uniform rule, both U with zeros, or near zero below 32 bits, and all
    biases with zeros.
    """
    attached = Attached()
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        for role in ("proj", "fc2") if "proj" in block.linears else ("fc2",):
            slot = block.linear(role)
            inputs, outputs = widths(slot)
            biases: list[nn.Parameter | None] = [None] * 4
            for place in {"full": range(4), "folded": (1,), "none": ()}[config.bias]:
                biases[place] = nn.Parameter(torch.zeros(outputs if place % 2 else rank))
            if config.bias != "none":
                floats = [bias for bias in biases if bias is not None]
                attached.floats[f"{number}.{role}.bias"] = floats
            sides = []
            for side, width, place in (("parallel", inputs, 0), ("sequential", outputs, 2)):
                name = f"{number}.{role}.{side}"
                linears = pair(attached, name, width, outputs, shape, rank)
                attached.initializers[f"{name}.down"] = initialization.xavier
                sides.append(Side(linears, biases[place], biases[place + 1], shape.scale, config.dropout))
            slot.set(HydraLinear(slot.get(), *sides))
    return attached
