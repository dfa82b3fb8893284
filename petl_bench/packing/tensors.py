"""Stored tensors and their representation in bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from petl_bench.packing.bits import Codes, pack, packed_size, unpack
from petl_bench.packing.statistics_in_bits import rounded
from petl_bench.types import FLOAT_BITS

STATISTIC_SIZES = (4, 3, 2)
"""Numbers of bytes in which a mean or a std may be stored: the upper bytes of a float32."""


@dataclass(frozen=True)
class Entry:
    """Name, shape and bits per weight of a stored tensor."""

    name: str
    shape: tuple[int, ...]
    bits: int

    @property
    def count(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def body_size(self) -> int:
        """Bytes of the packed codes, or of the float32 values."""
        return 4 * self.count if self.bits == FLOAT_BITS else packed_size(self.count, self.bits)

    def statistics_size(self, statistic_size: int) -> int:
        """Return the bytes of mean and std at `statistic_size` bytes each; 0 for a float32 tensor."""
        return 0 if self.bits == FLOAT_BITS else 2 * statistic_size

    @property
    def nbytes(self) -> int:
        """Bytes in the layout of the released code: body and float32 statistics."""
        return self.body_size + self.statistics_size(4)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it is stored: either float32 values, or codes with a mean and a std.

    Attributes:
        entry: name, shape and bits.
        values: float32 values in the shape of the entry; None for a tensor of codes.
        codes: uint8 codes in the shape of the entry; None for a float32 tensor.
        mean: mean of the weights; for quantizer minmax, their minimum.
        std: standard deviation of the weights; for quantizer minmax, their range.
    """

    entry: Entry
    values: NDArray[np.float32] | None = None
    codes: Codes | None = None
    mean: float = 0.0
    std: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the bytes in the layout of the released code: body and float32 statistics."""
        return self.body() + self.statistics()

    def body(self) -> bytes:
        """Return the bytes of the packed codes or of the float32 values."""
        if self.values is not None:
            return self.values.astype("<f4").tobytes()
        assert self.codes is not None
        return pack(self.codes, self.entry.bits)

    def with_statistic_size(self, statistic_size: int) -> StoredTensor:
        """Return the tensor with mean and std rounded to `statistic_size` bytes."""
        return replace(
            self,
            mean=round_statistic(self.mean, statistic_size),
            std=round_statistic(self.std, statistic_size),
        )

    def with_mantissa(self, bits: int) -> StoredTensor:
        """Return the tensor with mean and std rounded to `bits` bits of mantissa; see `rounded`.

        Raises:
            ValueError: no such mean and std are near.
        """
        if self.codes is None:
            return self
        mean, std = rounded(self.mean, self.std, bits)
        return replace(self, mean=mean, std=std)

    def statistics(self, statistic_size: int = 4) -> bytes:
        """Return mean and std, at `statistic_size` bytes each; no bytes for a float32 tensor.

        Raises:
            ValueError: mean or std is not representable in that many bytes.
        """
        if self.values is not None:
            return b""
        digits = np.array([self.mean, self.std], "<f4").view(np.uint8).reshape(2, 4)
        if digits[:, : 4 - statistic_size].any():
            raise ValueError(f"{self.entry.name}: its statistics do not fit {statistic_size} bytes")
        return digits[:, 4 - statistic_size :].tobytes()


def round_statistic(value: float, statistic_size: int) -> float:
    """Return the nearest float32 whose bytes below the upper `statistic_size` are zero; ties go to even."""
    dropped = 8 * (4 - statistic_size)
    word = int(np.array(value, np.float32).view(np.uint32))
    half = (1 << dropped >> 1) - 1 + (word >> dropped & 1) if dropped else 0
    rounded = np.array((word + half) >> dropped << dropped, np.uint32).view(np.float32)
    return float(rounded)


def read_tensor(entry: Entry, body: bytes | Codes, statistics: bytes) -> StoredTensor:
    """Return the tensor with given bytes.

    Args:
        entry: name, shape and bits.
        body: bytes that `StoredTensor.body` returned, or the codes themselves.
        statistics: bytes that `StoredTensor.statistics` returned, at any statistic size.
    """
    if entry.bits == FLOAT_BITS:
        values = np.frombuffer(body, "<f4").astype(np.float32).reshape(entry.shape)
        return StoredTensor(entry, values=values)
    codes = body if isinstance(body, np.ndarray) else unpack(body, entry.bits, entry.count)
    digits = np.zeros((2, 4), np.uint8)
    digits[:, 4 - len(statistics) // 2 :] = np.frombuffer(statistics, np.uint8).reshape(2, -1)
    mean, std = digits.view("<f4")[:, 0].tolist()
    return StoredTensor(entry, codes=codes.reshape(entry.shape), mean=mean, std=std)
