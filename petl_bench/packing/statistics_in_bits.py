"""Means and stds of a section's matrices in a few bits each.

A std is rounded to a float32 with `bits` bits of mantissa; such numbers are counted from 0.0 upwards. A mean
is rounded to a multiple of 2**-bits times the rounded std. So both are whole numbers, and neighbouring ones
differ by about the same part of the std. They are stored as distances from the least one of the section:

    header    the least number of a std, unsigned, and that of a mean, signed, each little-endian in 2 bytes,
              or 3 from 8 bits of mantissa on; one byte with the width of a std's distance (lower 4 bits)
              and that of a mean's (upper 4 bits)
    distances of all stds and then of all means, without gaps, least significant bit first
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MOST_BITS = 12
"""Maximum bits of mantissa."""
_MOST_WIDTH = 15
"""Maximum bits of a distance."""
_MANTISSA = 23
"""Bits of mantissa of a float32."""
Pair = tuple[float, float]
"""A mean and a std."""


def rounded(mean: float, std: float, bits: int) -> Pair:
    """Return the nearest mean and std that can be stored with `bits` bits of mantissa.

    Raises:
        ValueError: there are none: the std is negative or infinite, or it is zero and the mean is not.
    """
    return _pair(*_numbers(mean, std, bits), bits)


def pack_statistics(pairs: Sequence[Pair], bits: int) -> bytes:
    """Return the bytes of means and stds; no bytes for none.

    Args:
        pairs: means and stds, each as `rounded` returns it.
        bits: bits of mantissa, 0 to MOST_BITS.

    Raises:
        ValueError: a pair is not rounded, or the numbers do not fit.
    """
    if not pairs:
        return b""
    numbers = [_numbers(mean, std, bits) for mean, std in pairs]
    if [_pair(*own, bits) for own in numbers] != [*pairs]:
        raise ValueError(f"statistics have more than {bits} bits of mantissa")
    columns = [*zip(*numbers, strict=True)]
    (least_std, least_mean), size = map(min, columns), _size(bits)
    distances = [[number - min(column) for number in column] for column in columns]
    widths = [max(column).bit_length() for column in distances]
    if max(widths) > _MOST_WIDTH or not -(1 << 8 * size - 1) <= least_mean < 1 << 8 * size - 1:
        raise ValueError("statistics differ too much")
    joined = end = 0
    for column, width in zip(distances, widths, strict=True):
        for distance in column:
            joined |= distance << end
            end += width
    header = least_std.to_bytes(size, "little") + least_mean.to_bytes(size, "little", signed=True)
    return header + bytes([widths[0] | widths[1] << 4]) + joined.to_bytes((end + 7) // 8, "little")


def packed_statistics_size(data: bytes, bits: int, count: int) -> int:
    """Return the bytes of `count` pairs at the beginning of `data`.

    Raises:
        ValueError: the data end early.
    """
    size = _header_size(bits)
    if not count:
        return 0
    if len(data) < size:
        raise ValueError("its statistics end early")
    return size + (count * sum(_widths(data[size - 1])) + 7) // 8


def unpack_statistics(data: bytes, bits: int, count: int) -> list[Pair]:
    """Return the pairs that `pack_statistics` has packed.

    Args:
        data: bytes that begin with those of the pairs.
        bits: bits of mantissa.
        count: number of pairs.

    Raises:
        ValueError: the data end early, or are not what `pack_statistics` writes.
    """
    end = packed_statistics_size(data, bits, count)
    if not end:
        return []
    if len(data) < end:
        raise ValueError("its statistics end early")
    size = _size(bits)
    least_std = int.from_bytes(data[:size], "little")
    least_mean = int.from_bytes(data[size : 2 * size], "little", signed=True)
    widths, joined = _widths(data[2 * size]), int.from_bytes(data[2 * size + 1 : end], "little")
    columns: list[list[int]] = []
    for least, width in zip((least_std, least_mean), widths, strict=True):
        columns.append([least + (joined >> place * width & (1 << width) - 1) for place in range(count)])
        joined >>= count * width
    pairs = [_pair(number, multiple, bits) for number, multiple in zip(*columns, strict=True)]
    if pack_statistics(pairs, bits) != data[:end]:
        raise ValueError("its statistics cannot be read")
    return pairs


def _size(bits: int) -> int:
    return 2 if bits < 8 else 3


def _header_size(bits: int) -> int:
    return 2 * _size(bits) + 1


def _widths(byte: int) -> tuple[int, int]:
    return byte & 15, byte >> 4


def _numbers(mean: float, std: float, bits: int) -> tuple[int, int]:
    """Return the numbers of the nearest std and mean; see `rounded`."""
    dropped = _MANTISSA - bits
    word = int(np.array(std, np.float32).view(np.uint32))
    number = (word + (1 << dropped >> 1) - 1 + (word >> dropped & 1)) >> dropped  # ties go to even
    step = _std(number, bits) * 2.0**-bits
    if not 0 <= step < math.inf or not math.isfinite(mean) or (mean and not step):
        raise ValueError("a mean and std that no bits of mantissa hold")
    return number, round(mean / step) if step else 0


def _std(number: int, bits: int) -> float:
    if number >> 8 + bits:
        return math.inf
    return float(np.array(number << _MANTISSA - bits, np.uint32).view(np.float32))


def _pair(number: int, multiple: int, bits: int) -> Pair:
    """Return the mean and std of their numbers."""
    std = _std(number, bits)
    with np.errstate(over="ignore"):
        return float(np.float32(multiple * 2.0**-bits * std)), std
