"""LoRAQuant: the singular components of low-rank updates, the first of them at more bits than the rest.

    up @ down = U S V',   up' = U sqrt(S),   down' = sqrt(S) V'

The first h columns of up' and rows of down' have `bits` bits per weight, the others 1. h is the least
number of components, at least one, that hold the share `kept` of the sum of all squared singular values. Each
row or column is rounded alone: with 2 bits or more to evenly spaced levels from its least to its greatest
value, with 1 bit to its mean magnitude with the signs.

Source: repository Anonymous890920/LoRAQuant. Differences: there a group of 128 weights is rounded alone, the
components are refined by gradient descent before they are rounded, and the stated average of bits leaves the
scales out. Here the scales are part of the file, each in two bytes unless the head has statistics as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petl_bench.adapters.delta import LowRank
from petl_bench.adapters.dora import Directed
from petl_bench.adapters.hira import MultipliedDelta
from petl_bench.errors import UserError
from petl_bench.model.compression.parameters import Parameters, decoded, evenly_coded
from petl_bench.packing import Entry, StoredTensor, round_statistic
from petl_bench.types import FLOAT_BITS

PRODUCTS = (LowRank, MultipliedDelta, Directed)
"""Modules that use the product of their matrices `up` and `down` alone."""
STATISTIC_SIZE = 2
"""Bytes to which the two numbers of each row or column are rounded."""
LOW_BITS = 1


def check(component: Parameters, network: nn.Module) -> None:
    """Refuse an adapter whose matrices are no pairs, of which the product alone counts.

    Raises:
        UserError: it is such an adapter.
    """
    found = [module for module in network.modules() if isinstance(module, PRODUCTS)]
    inside = {linear for module in found for linear in (module.down, module.up)}
    matrices = {*component.matrices.values()}
    paired = all(_partner(name) in component.matrices for name in component.matrices)
    if not matrices or matrices != inside or not paired:
        raise UserError(
            "compress=loraquant: needs an adapter of low-rank updates, the products of two matrices each: "
            "lora, hira or dora"
        )


def entries(component: Parameters, stored: Sequence[StoredTensor]) -> list[Entry]:
    """Return the tensors of a file; the bits of each component are those that the file states."""
    found: list[Entry] = []
    for name, linear in component.matrices.items():
        down = _is_down(name)
        rank = linear.weight.shape[0 if down else 1]
        shape = (1, linear.in_features) if down else (linear.out_features, 1)
        for number in range(rank):
            place = len(found)
            bits = stored[place].entry.bits if place < len(stored) else component.bits
            bits = bits if bits in (component.bits, LOW_BITS) else component.bits
            found.append(Entry(f"{name}.{number}", shape, bits))
    return found + [
        Entry(name, (sum(parameter.numel() for parameter in group),), FLOAT_BITS)
        for name, group in component.floats.items()
    ]


@torch.no_grad()
def fill(component: Parameters, stored: Sequence[StoredTensor]) -> None:
    """Fill the pairs of a component with the stored components of their products."""
    tensors = iter(stored)
    for name, linear in component.matrices.items():
        down = _is_down(name)
        rank = linear.weight.shape[0 if down else 1]
        linear.weight.copy_(torch.cat([decoded(next(tensors)) for _ in range(rank)], 0 if down else 1))
    for group in component.floats.values():
        values, begin = decoded(next(tensors)), 0
        for parameter in group:
            parameter.copy_(values[begin : begin + parameter.numel()].view_as(parameter))
            begin += parameter.numel()


@torch.no_grad()
def compress(trained: Parameters, bits: int, kept: float) -> list[StoredTensor]:
    """Return the tensors of a file.

    Args:
        trained: the trained adapter.
        bits: bits per weight of the first components.
        kept: share of the squared singular values that these hold.
    """
    found: list[StoredTensor] = []
    halves: dict[str, tuple[NDArray[np.float64], int]] = {}
    for name in trained.matrices:
        if name not in halves:
            other = _partner(name)
            pair = (name, other) if _is_down(name) else (other, name)
            down, up = (trained.matrices[part].weight for part in pair)
            rows, columns, values = factors(up.double().cpu(), down.double().cpu())
            first = leading(values, kept)
            halves |= {pair[0]: (rows, first), pair[1]: (columns.T, first)}
        vectors, first = halves[name]
        for number, vector in enumerate(vectors):
            shape = (1, vector.size) if _is_down(name) else (vector.size, 1)
            own = bits if number < first else LOW_BITS
            found.append(_rounded(f"{name}.{number}", vector, own, shape))
    for name, group in trained.floats.items():
        value = torch.cat([parameter.flatten() for parameter in group]).numpy()
        found.append(StoredTensor(Entry(name, value.shape, FLOAT_BITS), values=value))
    return found


def factors(up: Tensor, down: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return down' (rank, inputs), up' (outputs, rank) and the singular values (rank,), in descending order.

    Args:
        up: (outputs, rank), float64.
        down: (rank, inputs), float64.
    """
    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(upper @ lower.T)
    root = values.sqrt()
    u, v = left @ u[:, : len(root)], v[: len(root)] @ right.T
    # A decomposition leaves signs undetermined: the entry of largest magnitude of each column is positive.
    signs = u.gather(0, u.abs().argmax(0)[None])[0].sign()
    signs[signs == 0] = 1
    return (root[:, None] * signs[:, None] * v).numpy(), (u * signs * root).numpy(), values.numpy()


def leading(values: NDArray[np.float64], kept: float) -> int:
    """Return the least number of singular values, at least one, that hold a share of the sum of squares."""
    held = np.cumsum(values**2)
    return 1 + int(np.searchsorted(held, kept * held[-1] * (1 - 1e-12)))


def _rounded(name: str, vector: NDArray[np.float64], bits: int, shape: tuple[int, int]) -> StoredTensor:
    """Return a rounded row or column."""
    if bits == LOW_BITS:
        size = round_statistic(float(np.abs(vector).mean()), STATISTIC_SIZE)
        codes = (vector > 0).astype(np.uint8)
        return evenly_coded(name, codes.reshape(shape), bits, -size, 2 * size)
    least = round_statistic(float(vector.min()), STATISTIC_SIZE)
    extent = round_statistic(max(float(vector.max()) - least, 0.0), STATISTIC_SIZE)
    steps = (vector - least) / extent * (2**bits - 1) if extent else np.zeros_like(vector)
    codes = np.clip(np.rint(steps), 0, 2**bits - 1).astype(np.uint8)
    return evenly_coded(name, codes.reshape(shape), bits, least, extent)


def _is_down(name: str) -> bool:
    return name.endswith(".down")


def _partner(name: str) -> str:
    stem, _, side = name.rpartition(".")
    return f"{stem}.{'up' if side == 'down' else 'down'}"
