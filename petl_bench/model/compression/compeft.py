"""ComPEFT: the largest deviations from the start, as signs with one common size.

    deviation = strength * std(t) * sign(t)   for the share `kept` of t with the largest magnitudes, else 0

t are the deviations of all parameters of the adapter from their start, as one vector. The start follows from
seed and backbone, so that the file holds the signs and zeros alone, with the one size.

Source: Yadav et al. 2023 (arXiv 2311.13171) and repository prateeky2806/ComPEFT. There positions are coded by
Golomb's code; here the file's entropy coder takes the codes 0, 1 and 2 of -1, 0 and 1. The size is rounded to
six significant bits, so that the level of zero is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from petl_bench.adapters.lt_sft import greatest
from petl_bench.errors import UserError
from petl_bench.model.compression.parameters import Parameters, add, all_of, decoded, evenly_coded
from petl_bench.packing import Entry, StoredTensor

NAME = "deviations"
BITS = 2
POSITIONS = 4096
"""Most rows of the stored table: with few columns the entropy coder has little to learn."""
SIGNIFICANT = 6
"""Significant bits of the size, so that three times the size fits the shortest statistics of a file."""


def check(component: Parameters, network: object) -> None:
    """Refuse an adapter whose start does not follow from seed and backbone, or that has no parameters.

    Raises:
        UserError: it is such an adapter.
    """
    attached = component.attached
    if attached.calibrate is not None or attached.codes or attached.fixed:
        raise UserError(
            "compress=compeft: stores deviations from the start, which with this adapter does not follow from"
            " seed and backbone; choose compress=ptq or another adapter"
        )
    if not all_of(component):
        raise UserError("compress=compeft: this adapter has no parameters")


def table(count: int) -> tuple[int, int]:
    """Return the rows and columns of the table that holds `count` codes, filled up with zeros."""
    units = -(-count // POSITIONS)
    return -(-count // units), units


def entries(component: Parameters, stored: Sequence[StoredTensor]) -> list[Entry]:
    """Return the tensors of a file: one table of codes."""
    return [Entry(NAME, table(sum(p.numel() for p in all_of(component))), BITS)]


def fill(component: Parameters, stored: Sequence[StoredTensor]) -> None:
    """Add the stored deviations to a component at its start."""
    add(all_of(component), decoded(stored[0]))


def deviations(start: Parameters, trained: Parameters) -> NDArray[np.float64]:
    """Return the deviations of all trained parameters from their start: (numbers,)."""
    pairs = zip(all_of(trained), all_of(start), strict=True)
    with torch.no_grad():
        return torch.cat([(own.double() - begun.double()).flatten() for own, begun in pairs]).numpy()


def compress(moved: NDArray[np.float64], kept: float, strength: float) -> list[StoredTensor]:
    """Return the tensors of a file.

    Args:
        moved: the deviations (numbers,).
        kept: share of the deviations that is kept, above 0.
        strength: size of the kept ones in standard deviations of all.
    """
    count = max(1, round(kept * moved.size))
    rows, columns = table(moved.size)
    codes = np.ones(rows * columns, np.uint8)
    chosen = greatest(torch.from_numpy(np.abs(moved)), count)
    codes[chosen] = 1 + np.sign(moved[chosen]).astype(np.int8)
    spread = float(moved.std(ddof=1)) if moved.size > 1 else float(np.abs(moved).mean())
    size = significant(strength * spread)
    return [evenly_coded(NAME, codes.reshape(rows, columns), BITS, -size, 3 * size)]


def significant(value: float) -> float:
    """Return a number rounded to SIGNIFICANT bits."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 2**SIGNIFICANT), exponent - SIGNIFICANT)
