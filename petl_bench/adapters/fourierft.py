"""FourierFT (Gao et al. 2024, arXiv 2405.03003) and WaveFT: few coefficients of a transformed weight update.

    y = W x + b + s * T(C) x

W (outputs, inputs) and b (outputs,) are the frozen projection of q or v. C (outputs, inputs) is zero but at
`numbers` random positions, which are the same in all blocks, and its values there are trained. T is

- transform=fourier: the real part of the inverse Fourier transform in two dimensions (FourierFT),
- transform=haar: one level of the inverse Haar wavelet transform in two dimensions (WaveFT),
- transform=none: nothing, so that C itself is added, a sparse update at random positions (the control).

All transforms are orthonormal, so that the size of an update does not depend on the width and `scale` is near
1, where the sources need 300 and 25. Values are initialized with zeros, or near zero below 32 bits.

Source: huggingface/peft, tuners/fourierft and tuners/waveft; repository Chaos96/fourierft, where values start
from a standard normal distribution, away from the frozen backbone. Positions come from the seed and take no
bytes. Blocks without attention have the same updates on both linears of their MLP, a translation by this
project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import one_of
from petl_bench.adapters.delta import Delta, query_value
from petl_bench.adapters.rows import Stack, first_values
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError


@dataclass(frozen=True)
class FourierFTConfig:
    numbers: int = 1000
    """Number of trained values per linear; at least 1."""
    transform: str = "fourier"
    """Transform from trained values to the update of a weight: fourier, haar or none."""

    def __post_init__(self) -> None:
        if self.numbers < 1:
            raise ValueError(f"numbers must be at least 1, not {self.numbers}")
        one_of("transform", self.transform, TRANSFORMS)


def inverse_fourier(coefficients: Tensor) -> Tensor:
    """Return the real part of the orthonormal inverse Fourier transform of (rows, columns)."""
    found: Tensor = torch.fft.ifft2(coefficients, norm="ortho").real
    return found


def inverse_haar(coefficients: Tensor) -> Tensor:
    """Return one level of the orthonormal inverse Haar transform of (rows, columns), both of them even.

    The first half of the rows and columns holds sums of neighbors, the second half differences.
    """
    for dim in (0, 1):
        sums, differences = coefficients.chunk(2, dim)
        pairs = torch.stack([sums + differences, sums - differences], dim + 1)
        coefficients = pairs.flatten(dim, dim + 1) / 2**0.5
    return coefficients


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "fourier": inverse_fourier,
    "haar": inverse_haar,
    "none": lambda coefficients: coefficients,
}


class TransformedDelta(Delta):
    """The update scale * T(C), with C zero but at some positions.

    Args:
        values: module that returns the values at the positions (1, numbers).
        positions: row-major positions (numbers,) in the weight.
        size: shape of the weight.
        transform: T.
        scale: fixed factor.
    """

    positions: Tensor

    def __init__(
        self,
        values: nn.Module,
        positions: Tensor,
        size: tuple[int, int],
        transform: Callable[[Tensor], Tensor],
        scale: float,
    ) -> None:
        super().__init__()
        self.values = values
        self.size = size
        self.transform = transform
        self.scale = scale
        self.register_buffer("positions", positions, persistent=False)

    def product(self) -> Tensor:
        values: Tensor = self.values()[0]
        empty = values.new_zeros(self.size[0] * self.size[1])
        return self.scale * self.transform(empty.scatter(0, self.positions, values).view(self.size))


@cache
def chosen(seed: int, count: int, outputs: int, inputs: int) -> Tensor:
    """Return `count` different random positions in a weight (outputs, inputs), in ascending order."""
    words = initialization.words(seed, "adapter.positions", (outputs * inputs,))
    return torch.from_numpy(np.sort(np.argsort(words, kind="stable")[:count]))


@adapter(
    "fourierft",
    description="Few coefficients of the transformed update of q and v (FourierFT, arXiv 2405.03003).",
    config=FourierFTConfig,
    group="reparameterized",
    tokenwise=True,
    unused={"hidden": 1, "start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: FourierFTConfig) -> Attached:
    """Attach one row of the matrix `values` (linears, numbers) per linear: `numbers` weights and 0 floats.

    Raises:
        UserError: a weight has fewer entries than numbers are asked for, or an odd width with transform=haar.
    """
    stack = Stack()

    def update(name: str, inputs: int, outputs: int) -> TransformedDelta:
        if config.numbers > inputs * outputs:
            raise UserError(
                f"adapter.numbers={config.numbers} is out of range: {name} has {inputs * outputs} weights"
            )
        if config.transform == "haar" and (inputs % 2 or outputs % 2):
            raise UserError(
                f"adapter.transform=haar needs even widths, but {name} has {inputs} inputs and {outputs} "
                "outputs"
            )
        positions = chosen(shape.seed, config.numbers, outputs, inputs)
        values = stack.rows(1, config.numbers)
        transform = TRANSFORMS[config.transform]
        return TransformedDelta(values, positions, (outputs, inputs), transform, shape.scale)

    for number, block in enumerate(sites.blocks):
        query_value(block, number, update)
    attached = Attached(float32=True)  # the Fourier transform has no bfloat16
    stack.declare(attached, "values", first_values(shape))
    return attached
