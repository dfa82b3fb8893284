"""Stored tensors and their bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from petl_bench.packing.bits import Codes, pack, packed_size, unpack
from petl_bench.types import FLOAT_BITS

STATISTIC_SIZES = (4, 3, 2)
"""Bytes that a mean or a std may take: the upper ones of a float32."""


@dataclass(frozen=True)
class Entry:
    """Name, shape and bits of one stored tensor."""

    name: str
    shape: tuple[int, ...]
    bits: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def body(self) -> int:
        """Bytes of the packed codes, or of the float32 values."""
        return 4 * self.count if self.bits == FLOAT_BITS else packed_size(self.count, self.bits)

    def tail(self, statistics: int) -> int:
        """Bytes of a matrix's mean and std, at `statistics` bytes each."""
        return 0 if self.bits == FLOAT_BITS else 2 * statistics

    @property
    def nbytes(self) -> int:
        """Bytes as the released code lays a tensor out."""
        return self.body + self.tail(4)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as stored: float32 `values`, or `codes` with their mean and std."""

    entry: Entry
    values: NDArray[np.float32] | None = None
    codes: Codes | None = None
    mean: float = 0.0
    std: float = 0.0

    def to_bytes(self) -> bytes:
        """As the released code lays it out: `body` and `tail`."""
        return self.body() + self.tail()

    def body(self) -> bytes:
        """Packed codes or float32 values."""
        if self.values is not None:
            return self.values.astype("<f4").tobytes()
        assert self.codes is not None
        return pack(self.codes, self.entry.bits)

    def shortened(self, statistics: int) -> StoredTensor:
        """The same with mean and std rounded to `statistics` bytes."""
        return replace(self, mean=shorten(self.mean, statistics), std=shorten(self.std, statistics))

    def tail(self, statistics: int = 4) -> bytes:
        """Shift and std, at `statistics` bytes each; nothing of a float32 tensor.

        Raises:
            ValueError: one of them has more digits than that.
        """
        if self.values is not None:
            return b""
        digits = np.array([self.mean, self.std], "<f4").view(np.uint8).reshape(2, 4)
        if digits[:, : 4 - statistics].any():
            raise ValueError(f"{self.entry.name}: its statistics do not fit {statistics} bytes")
        return digits[:, 4 - statistics :].tobytes()


def shorten(value: float, statistics: int) -> float:
    """The nearest float32 whose lower bytes are zero beyond the upper `statistics`; ties go to even."""
    dropped = 8 * (4 - statistics)
    word = int(np.array(value, np.float32).view(np.uint32))
    half = (1 << dropped >> 1) - 1 + (word >> dropped & 1) if dropped else 0
    rounded = np.array((word + half) >> dropped << dropped, np.uint32).view(np.float32)
    return float(rounded)


def read_tensor(entry: Entry, body: bytes | Codes, tail: bytes) -> StoredTensor:
    """The tensor of which `body`, packed or its very codes, and `tail` are given."""
    if entry.bits == FLOAT_BITS:
        values = np.frombuffer(body, "<f4").astype(np.float32).reshape(entry.shape)
        return StoredTensor(entry, values=values)
    codes = body if isinstance(body, np.ndarray) else unpack(body, entry.bits, entry.count)
    digits = np.zeros((2, 4), np.uint8)
    digits[:, 4 - len(tail) // 2 :] = np.frombuffer(tail, np.uint8).reshape(2, -1)
    mean, std = digits.view("<f4")[:, 0].tolist()
    return StoredTensor(entry, codes=codes.reshape(entry.shape), mean=mean, std=std)
