"""LoRA-XS (Banaei et al. 2024, arXiv 2405.17604) and TinyLoRA: a matrix between frozen singular vectors.

    y = W x + b + s * U_r R S_r V_r^T x

with W (outputs, inputs) = U S V^T frozen, its r = hidden leading singular triplets U_r (outputs, r), S_r (r,
r), V_r (inputs, r), and R (r, r) trained. R is initialized with zeros, or near zero below 32 bits, so that
training starts at the frozen backbone. With numbers=u above 0 (TinyLoRA, arXiv 2602.04118), R is

    R = sum over i of v_i P_i,    P_i (r, r) frozen, normal with variance 1 / r

and only v (u,) is trained: one vector per linear, or one for all linears with tied=true.

Source: repository MohammadrezaBanaei/LoRA-XS, which decomposes the transposed weight, so that the singular
values stand on the side of the inputs; huggingface/peft, tuners/tinylora, which has their square root on both
sides. The exact decomposition with fixed signs replaces a randomized one. In vision transformers the linears
are a translation by this project: q and v with sites=qv, or all linears of a block with sites=all. As a
control, basis=random replaces singular vectors by seeded random directions of the same length on average.

The frozen factors are not stored: they are computed again from W and the seed when a file is loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import one_of
from petl_bench.adapters.decomposed import components, fitting
from petl_bench.adapters.delta import Delta, DeltaLinear, query_value, roles, weight_of
from petl_bench.adapters.rows import Stack, at_least_one, first_values
from petl_bench.backbones.sites import BlockSites, Sites, widths

BASES = ("svd", "random")
LINEARS = ("qv", "all")


@dataclass(frozen=True)
class LoRAXSConfig:
    sites: str = "all"
    """Linears that are updated: qv (the projections of queries and values) or all linears of a block."""
    basis: str = "svd"
    """Frozen directions: svd (singular vectors of the weight) or random (the control)."""
    numbers: int = 0
    """Trained values per linear of which the small matrix is computed; 0 trains all entries of the matrix."""
    tied: bool = False
    """True if all linears have the same trained values; needs numbers of at least 1."""

    def __post_init__(self) -> None:
        one_of("sites", self.sites, LINEARS)
        one_of("basis", self.basis, BASES)
        if self.numbers < 0:
            raise ValueError(f"numbers must be at least 0, not {self.numbers}")
        if self.tied and not self.numbers:
            raise ValueError(
                "tied=true needs numbers of at least 1, since matrices of linears cannot be tied"
            )


class BetweenBases(Delta):
    """The update scale * left @ R @ right with frozen `left` and `right`.

    Args:
        core: module that returns R (r, r).
        left: (outputs, r).
        right: (r, inputs).
        scale: fixed factor.
    """

    left: Tensor
    right: Tensor

    def __init__(self, core: nn.Module, left: Tensor, right: Tensor, scale: float) -> None:
        super().__init__()
        self.core = core
        self.scale = scale
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)

    def product(self) -> Tensor:
        return self.scale * (self.left @ self.core().to(self.left.dtype) @ self.right)

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        hidden = functional.linear(functional.linear(x, self.right), self.core().to(x.dtype))
        return torch.add(base, functional.linear(hidden, self.left), alpha=self.scale)


class Combination(nn.Module):
    """R as a combination of frozen matrices.

    Args:
        values: module that returns the coefficients (1, numbers).
        patterns: frozen matrices (numbers, r, r).
    """

    patterns: Tensor

    def __init__(self, values: nn.Module, patterns: Tensor) -> None:
        super().__init__()
        self.values = values
        self.register_buffer("patterns", patterns, persistent=False)

    def forward(self) -> Tensor:
        """Return R (r, r)."""
        values = self.values()
        found: Tensor = torch.einsum("iu,uab->ab", values, self.patterns.to(values.dtype))
        return found


@dataclass
class _Linears:
    """The updates of all linears, whose trained values are added once all of them are known."""

    shape: Shape
    config: LoRAXSConfig
    updates: dict[str, BetweenBases] = field(default_factory=dict)

    def add(self, block: BlockSites, name: str, inputs: int, outputs: int) -> BetweenBases:
        """Return the update of a linear, or of a slice of one, without its small matrix."""
        rank, weight = self.shape.hidden, weight_of(block, name)
        fitting(name, rank, min(outputs, inputs))
        found = components(weight)[:rank]
        left, right = found.left, found.right
        if self.config.basis == "random":
            left, right = (
                self._random(f"{name}.{side}", size) for side, size in (("left", outputs), ("right", inputs))
            )
        pieces = left.float().contiguous(), (right * found.values).t().float().contiguous()
        self.updates[name] = BetweenBases(nn.Identity(), *pieces, self.shape.scale)
        return self.updates[name]

    def _random(self, name: str, size: int) -> Tensor:
        draw = initialization.uniform(math.sqrt(3 / size))  # columns of length 1 on average
        return torch.from_numpy(draw(self.shape.seed, f"adapter.{name}", (size, self.shape.hidden))).double()

    def attached(self) -> Attached:
        """Return the declaration of the trained values, and give the updates their small matrices."""
        rank, numbers, stack = self.shape.hidden, self.config.numbers, Stack()
        draw = initialization.normal(1 / math.sqrt(rank))
        common = stack.rows(1, numbers) if self.config.tied else None
        for name, update in self.updates.items():
            if not numbers:
                update.core = stack.rows(rank, rank)
                continue
            drawn = draw(self.shape.seed, f"adapter.{name}.patterns", (numbers, rank * rank))
            patterns = torch.from_numpy(drawn).view(numbers, rank, rank)
            update.core = Combination(common or stack.rows(1, numbers), patterns)
        attached = Attached()
        stack.declare(attached, "values" if numbers else "core", first_values(self.shape))
        return attached


@adapter(
    "lora_xs",
    description="A small matrix between frozen singular vectors of each linear (LoRA-XS, arXiv 2405.17604).",
    config=LoRAXSConfig,
    group="low-rank",
    tokenwise=True,
    unused={"start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: LoRAXSConfig) -> Attached:
    """Attach one matrix for all linears: hidden**2, or `numbers`, weights per linear and 0 floats.

    It is `core` (linears * hidden, hidden), or with numbers above 0 `values` (linears, numbers).

    Raises:
        UserError: hidden is less than 1, or greater than the number of singular vectors of a linear.
    """
    at_least_one(shape)
    found = _Linears(shape, config)
    for number, block in enumerate(sites.blocks):
        if config.sites == "qv":
            query_value(block, number, partial(found.add, block))
            continue
        for role in roles(block):
            slot = block.linear(role)
            slot.set(DeltaLinear(slot.get(), found.add(block, f"{number}.{role}", *widths(slot))))
    return found.attached()
