"""Packing of codes of 1 to 8 bits without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]


def packed_size(count: int, bits: int) -> int:
    """Return the bytes of `count` codes of `bits` bits: count * bits / 8, rounded up."""
    return (count * bits + 7) // 8


def pack(codes: Codes, bits: int) -> bytes:
    """Pack codes in row-major order without gaps.

    Code k occupies the bits [k * bits, (k + 1) * bits) of the result, its least significant bit first.

    Args:
        codes: uint8 codes of any shape.
        bits: bits per code, 1 to 8.

    Raises:
        ValueError: a code has more than `bits` bits.
    """
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"code {int(codes.max())} does not fit {bits} bits")
    flat = codes.reshape(-1, 1)
    planes = flat if bits == 1 else np.unpackbits(flat, axis=1, count=bits, bitorder="little")
    return np.packbits(planes, bitorder="little").tobytes()


def unpack(data: bytes, bits: int, count: int) -> Codes:
    """Return the codes (count,) that `pack` has packed."""
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little")
    if bits == 1:
        return flat
    return np.packbits(flat.reshape(count, bits), axis=1, bitorder="little")[:, 0]
