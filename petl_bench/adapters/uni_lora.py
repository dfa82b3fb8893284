"""Uni-LoRA (arXiv 2506.00799; repository KaiyangLi1992/Uni-LoRA): all entries of LoRA from one short vector.

    y = W x + b + s * up @ dropout(down @ x)
    entry i of all matrices down and up together = sum over j of P[i, j] * theta[j]

W (outputs, inputs) and b (outputs,) are the frozen projection of q or v, down is (hidden, inputs), up is
(outputs, hidden), and theta (numbers,) is all that is trained and stored. P follows from the seed:

- projection=uniform: each entry is one of the values of theta, chosen at random so that all are used equally
  often (up to one time), divided by the square root of that number and multiplied by the root of their mean.
- projection=dense: each entry is a combination of all values, with coefficients that are uniform with mean 0
  and variance 1 / numbers, as in NOLA (arXiv 2310.02556) but with one vector for all matrices.

theta is initialized uniformly between -0.02 and 0.02; at zero its gradient would vanish, since up and down
would be zero together. So training starts near the frozen backbone, but not exactly there.

Differences from the sources: entries of projection=uniform are multiplied so that their variance is that of
theta, and `scale` means what it means for LoRA. NOLA has two vectors per matrix and adds frozen initial
values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import one_of
from petl_bench.adapters.delta import ComputedPair, query_value
from petl_bench.adapters.rows import at_least_one
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError

BOUND = 0.02
"""Largest magnitude of the initial values."""
PROJECTIONS = ("uniform", "dense")


@dataclass(frozen=True)
class UniLoRAConfig:
    numbers: int = 256
    """Number of trained values, from which all entries of all matrices are computed; at least 1."""
    projection: str = "uniform"
    """Computation of an entry: uniform (one of the values) or dense (a combination of all values)."""
    dropout: float = 0.0
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""

    def __post_init__(self) -> None:
        if self.numbers < 1:
            raise ValueError(f"numbers must be at least 1, not {self.numbers}")
        one_of("projection", self.projection, PROJECTIONS)


def balanced(seed: int, entries: int, numbers: int) -> NDArray[np.int64]:
    """Return which of `numbers` values each of `entries` entries is; counts differ by 1 at most.

    Args:
        seed: seed of the run.
        entries: number of entries.
        numbers: number of values.
    """
    order = np.argsort(initialization.words(seed, "adapter.index", (entries,)), kind="stable")
    return np.asarray(order % numbers, np.int64)


class Chosen(nn.Module):
    """A matrix whose entries are values of theta, multiplied by a factor for each value.

    Args:
        theta: linear with weight (1, numbers).
        index: number of the value of each entry, int64 (rows, columns).
        factors: factor of each value (numbers,).
    """

    index: Tensor
    factors: Tensor

    def __init__(self, theta: nn.Linear, index: Tensor, factors: Tensor) -> None:
        super().__init__()
        self.theta = theta
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("factors", factors, persistent=False)

    def forward(self) -> Tensor:
        """Return the matrix (rows, columns)."""
        values = self.theta.weight[0] * self.factors.to(self.theta.weight.dtype)
        return values.index_select(0, self.index.flatten()).view(self.index.shape)


class Combined(nn.Module):
    """A matrix whose entries are combinations of all values of theta.

    Args:
        theta: linear with weight (1, numbers).
        coefficients: (rows, columns, numbers).
    """

    coefficients: Tensor

    def __init__(self, theta: nn.Linear, coefficients: Tensor) -> None:
        super().__init__()
        self.theta = theta
        self.register_buffer("coefficients", coefficients, persistent=False)

    def forward(self) -> Tensor:
        """Return the matrix (rows, columns)."""
        return self.coefficients.to(self.theta.weight.dtype) @ self.theta.weight[0]


@adapter(
    "uni_lora",
    description="LoRA whose entries are all computed from one short vector (Uni-LoRA, arXiv 2506.00799).",
    config=UniLoRAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: UniLoRAConfig) -> Attached:
    """Attach one matrix `theta` (1, numbers): `numbers` weights and 0 floats.

    Raises:
        UserError: hidden is less than 1, or there are more numbers than entries.
    """
    rank = at_least_one(shape)
    theta = nn.Linear(config.numbers, 1, bias=False)
    wanted: dict[str, tuple[int, int]] = {}
    updates: dict[str, ComputedPair] = {}

    def update(name: str, inputs: int, outputs: int) -> ComputedPair:
        wanted.update({f"{name}.down": (rank, inputs), f"{name}.up": (outputs, rank)})
        updates[name] = ComputedPair(nn.Identity(), nn.Identity(), shape.scale, config.dropout)
        return updates[name]

    for number, block in enumerate(sites.blocks):
        query_value(block, number, update)
    matrices = _matrices(theta, wanted, shape.seed, config)
    for name, pair in updates.items():
        pair.down, pair.up = matrices[f"{name}.down"], matrices[f"{name}.up"]
    return Attached(matrices={"theta": theta}, initializers={"theta": initialization.uniform(BOUND)})


def _matrices(
    theta: nn.Linear, wanted: dict[str, tuple[int, int]], seed: int, config: UniLoRAConfig
) -> dict[str, nn.Module]:
    """Return modules that compute matrices of the wanted shapes, by name."""
    entries, numbers = sum(map(math.prod, wanted.values())), config.numbers
    if numbers > entries:
        raise UserError(
            f"adapter.numbers={numbers} is out of range: the matrices have {entries} entries, and more "
            "values cannot be used"
        )
    if config.projection == "dense":
        draw = initialization.uniform(math.sqrt(3 / numbers))
        return {
            name: Combined(
                theta, _tensor(draw(seed, f"adapter.{name}", (math.prod(size), numbers))).view(*size, -1)
            )
            for name, size in wanted.items()
        }
    index = balanced(seed, entries, numbers)
    factors = np.sqrt(entries / numbers / np.bincount(index, minlength=numbers)).astype(np.float32)
    ends = np.cumsum([math.prod(size) for size in wanted.values()])[:-1]
    return {
        name: Chosen(theta, _tensor(piece).view(size), _tensor(factors))
        for (name, size), piece in zip(wanted.items(), np.split(index, ends), strict=True)
    }


def _tensor(values: NDArray[np.float32] | NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
