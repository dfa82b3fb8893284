"""Parameters of a component, and tensors of codes with two exact levels or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petl_bench.adapters import Attached
from petl_bench.packing import Entry, StoredTensor
from petl_bench.quantizers import FakeQuantize

QUANTIZER = "minmax"
"""Codebook of these tensors: evenly spaced levels between two numbers that a file states."""


class Parameters(Protocol):
    """An adapter that is not prepared (petl_bench.model.Component)."""

    @property
    def attached(self) -> Attached:
        """The declaration of the method."""

    @property
    def bits(self) -> int:
        """Bits per weight of the stored matrices."""

    @property
    def matrices(self) -> dict[str, nn.Linear]:
        """The stored matrices by name, in the order of the file."""

    @property
    def floats(self) -> dict[str, list[nn.Parameter]]:
        """The float parameters by name."""


def all_of(component: Parameters) -> list[nn.Parameter]:
    """Return all stored parameters: matrices in the order of the file, then floats."""
    found = [parameter for linear in component.matrices.values() for parameter in linear.parameters()]
    return found + [parameter for group in component.floats.values() for parameter in group]


def evenly_coded(name: str, codes: NDArray[np.uint8], bits: int, least: float, extent: float) -> StoredTensor:
    """Return a tensor of codes for evenly spaced levels.

    Args:
        name: name of the tensor.
        codes: codes in the shape of the tensor.
        bits: bits per code.
        least: the lowest level.
        extent: the highest level less the lowest.
    """
    return StoredTensor(Entry(name, codes.shape, bits), codes=codes, mean=least, std=extent)


def decoded(tensor: StoredTensor) -> Tensor:
    """Return the float32 values of a tensor that `evenly_coded` has made, or of one of float32 values."""
    if tensor.values is not None:
        return torch.from_numpy(tensor.values)
    assert tensor.codes is not None
    quantize = FakeQuantize(QUANTIZER, tensor.entry.bits)
    return quantize.decode(
        torch.from_numpy(tensor.codes), torch.tensor(tensor.mean), torch.tensor(tensor.std)
    )


@torch.no_grad()
def add(parameters: Sequence[Tensor], values: Tensor) -> None:
    """Add values (numbers, ...) to parameters, one after another; those beyond the last are left out."""
    flat, begin = values.flatten(), 0
    for parameter in parameters:
        parameter.add_(flat[begin : begin + parameter.numel()].view_as(parameter))
        begin += parameter.numel()
