"""Means and stds in bits: the numbers that are stored, their bytes, and files that hold them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench import packing
from petl_bench.packing import AdapterFile, Entry, StoredTensor
from petl_bench.packing.statistics_in_bits import MOST_BITS, pack_statistics, rounded, unpack_statistics

BITS = st.integers(0, MOST_BITS)
STDS = st.floats(2.0**-100, 2.0**100, width=32)
RATIOS = st.floats(-8, 8, width=32)


@given(STDS, RATIOS, BITS)
def test_rounded_statistics_are_the_nearest(std: float, ratio: float, bits: int) -> None:
    mean = float(np.float32(std * ratio))
    found_mean, found_std = rounded(mean, std, bits)
    # Half a unit in the last place of a mantissa of so many bits, half a multiple, and a float32's rounding.
    assert abs(found_std - std) <= std * 2.0 ** -(bits + 1)
    assert abs(found_mean - mean) <= found_std * 2.0 ** -(bits + 1) + 2.0**-24 * abs(mean)
    assert rounded(found_mean, found_std, bits) == (found_mean, found_std)


def test_bytes_are_those_of_the_documented_format() -> None:
    # With 3 bits of mantissa a float32 (1 sign, 8 exponent, 23 mantissa) loses its lower 20 bits: 0.5 is
    # 0x3F000000, number 0x3F0; 0.625 = 0.5 * 1.25 is 2 eighths more, 0x3F2; 1.0 is 0x3F8.
    # Means are multiples of an eighth of the std: 0, 0.15625 = 2 * 0.625 / 8 and -0.125 = -1 * 1 / 8.
    pairs = [(0.0, 0.5), (0.15625, 0.625), (-0.125, 1.0)]
    # Least numbers 0x3F0 and -1; distances 0, 2, 8 of 4 bits and 1, 3, 0 of 2: 12 + 6 bits from the lowest.
    distances = (0 | 2 << 4 | 8 << 8) | (1 | 3 << 2 | 0 << 4) << 12
    expected = bytes([0xF0, 0x03, 0xFF, 0xFF, 4 | 2 << 4]) + distances.to_bytes(3, "little")
    assert pack_statistics(pairs, 3) == expected
    assert unpack_statistics(expected + b"and more", 3, 3) == pairs
    assert pack_statistics([], 3) == b""
    assert pack_statistics(pairs[:1] * 9, 3) == bytes([0xF0, 0x03, 0, 0, 0])  # equal ones take no bits
    # From 8 bits of mantissa on, the least numbers have 3 bytes: 0.5 is 0x3F000000 >> 15.
    assert pack_statistics(pairs[:1], 8) == bytes([0x00, 0x7E, 0x00, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("pairs", "bits"),
    [
        ([(0.0, 0.3)], 4),  # not rounded
        ([(0.0, 2.0**-60), (0.0, 2.0**60)], 12),  # 120 * 2**12 numbers apart
        ([(40_000 / 8, 1.0)], 3),  # more than two bytes
        ([(0.0, -1.0)], 3),
        ([(1.0, 0.0)], 3),
        ([(0.0, float("inf"))], 3),
        ([(float("nan"), 1.0)], 3),
    ],
)
def test_statistics_that_do_not_fit_are_refused(pairs: list[tuple[float, float]], bits: int) -> None:
    with pytest.raises(ValueError, match=r"statistics|bits of mantissa"):
        pack_statistics(pairs, bits)


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_bytes_that_end_early_are_refused(cut: int) -> None:
    data = pack_statistics([(0.0, 0.5), (0.15625, 0.625), (-0.125, 1.0)], 3)
    with pytest.raises(ValueError, match="end early"):
        unpack_statistics(data[:cut], 3, 3)


def test_bytes_that_are_never_written_are_refused() -> None:
    data = pack_statistics([(0.0, 0.5), (0.15625, 0.625), (-0.125, 1.0)], 3)
    for wrong in (data[:4] + bytes([5 | 2 << 4]) + data[5:], data[:-1] + bytes([data[-1] | 0x80])):
        with pytest.raises(ValueError, match="statistics"):
            unpack_statistics(wrong, 3, 3)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), bits=BITS, code=st.booleans(), short=st.booleans(), shared=st.booleans())
def test_files_hold_them(data: st.DataObject, bits: int, code: bool, short: bool, shared: bool) -> None:
    tensors = []
    for name in ("0.down", "0.up", "1.down", "1.up"):
        std, ratio = data.draw(st.floats(0.0625, 2, width=32)), data.draw(st.sampled_from([0, 0.125, -0.5]))
        codes = np.zeros((5, 7), np.uint8) + data.draw(st.integers(0, 1))
        tensors.append(StoredTensor(Entry(name, (5, 7), 1), codes=codes, mean=std * ratio, std=std))
    tensors.append(StoredTensor(Entry("floats", (2,), 32), values=np.ones(2, np.float32)))
    head = [replace(tensors[0], entry=Entry("weight", (5, 7), 1))]
    file = AdapterFile({"seed": "3"}, tensors, head, code, short=short, shared=shared).with_mantissa(bits)
    content = packing.dump(file)
    found = packing.load(content, "here")
    assert packing.dump(found) == content
    assert (found.mantissa, found.shared) == (bits, shared)
    for one, other in zip([*file.adapter, *file.head], [*found.adapter, *found.head], strict=True):
        assert (one.mean, one.std, one.body()) == (other.mean, other.std, other.body())
    for section in found.sections:
        assert sum(section.sizes) == len(section.data)
    form = {(False, False): b"2", (True, False): b"6", (False, True): b"4", (True, True): b"8"}
    assert short or b"format=" + form[True, shared] in content


def test_few_matrices_need_fewer_bytes_than_with_two_byte_statistics() -> None:
    codes = np.zeros((8, 8), np.uint8)
    tensors = [
        StoredTensor(
            Entry(f"{block}.down", (8, 8), 1), codes=codes, mean=0.001 * block, std=0.05 + 0.01 * block
        )
        for block in range(8)
    ]
    file = AdapterFile({"seed": "3"}, tensors, [])
    # 0.05 to 0.12 has two exponents: with 4 bits of mantissa at most 32 numbers, 5 bits. Means are up to
    # 0.007 / 0.12 of a std, which is below 2 sixteenths: at most 2 bits.
    assert file.with_statistic_size(2).bytes_adapter == 8 * (8 + 4)
    assert file.with_mantissa(4).bytes_adapter <= 8 * 8 + 5 + 7
