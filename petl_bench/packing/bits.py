"""Codes of any width from 1 to 8 bits, packed without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take: count * bits / 8, rounded up."""
    return (count * bits + 7) // 8


def pack(codes: Codes, bits: int) -> bytes:
    """Pack codes, row-major: code k at bit positions [k * bits, (k + 1) * bits), least significant first.

    Raises:
        ValueError: a code does not fit the width.
    """
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"code {int(codes.max())} does not fit {bits} bits")
    flat = codes.reshape(-1, 1)
    planes = flat if bits == 1 else np.unpackbits(flat, axis=1, count=bits, bitorder="little")
    return np.packbits(planes, bitorder="little").tobytes()


def unpack(data: bytes, bits: int, count: int) -> Codes:
    """The `count` codes that `pack` packed, as a flat array."""
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little")
    if bits == 1:
        return flat
    return np.packbits(flat.reshape(count, bits), axis=1, bitorder="little")[:, 0]
