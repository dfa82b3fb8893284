"""Codes in bytes, and the line that says what tensors a file holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from petl_bench.packing import (
    Entry,
    pack,
    packed_size,
    unpack,
)
from petl_bench.packing.layout import compress_layout, decompress_layout, read_layout, write_layout


@st.composite
def codes_of_any_width(draw):
    bits = draw(st.integers(1, 8))
    shape = npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)
    return bits, draw(npst.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))


@given(codes_of_any_width())
def test_unpack_inverts_pack(case):
    bits, codes = case
    data = pack(codes, bits)
    assert len(data) == packed_size(codes.size, bits)
    np.testing.assert_array_equal(unpack(data, bits, codes.size), codes.ravel())


@given(codes_of_any_width())
def test_codes_stand_at_their_bits_of_the_little_endian_number(case):
    # As in the released code, JieShibo/PETL-ViT, code k occupies bits [k * b, (k + 1) * b), least significant
    # first. So the bytes, read as one little-endian number, are the sum of code k times 2**(k * b).
    bits, codes = case
    number = sum(int(code) << (k * bits) for k, code in enumerate(codes.ravel()))
    assert int.from_bytes(pack(codes, bits), "little") == number


# By hand from the same sentence; a byte is written with its most significant bit first.
BY_HAND = [
    (1, [1, 0, 0, 0, 0, 0, 0, 0], [0b00000001]),
    (1, [0, 1, 1, 0, 0, 0, 0, 1, 1], [0b10000110, 0b00000001]),
    (2, [3, 0, 1, 2], [0b10_01_00_11]),
    (3, [5, 2, 7], [0b11_010_101, 0b1]),
    (4, [1, 15, 10], [0xF1, 0x0A]),
    (5, [1, 31], [0b111_00001, 0b11]),
    (6, [33, 1], [0b01_100001, 0b0000]),
    (7, [127, 1, 64], [0b1_1111111, 0b00_000000, 0b10000]),
    (8, [0, 255, 7], [0, 255, 7]),
]


@pytest.mark.parametrize(("bits", "codes", "expected"), BY_HAND)
def test_bytes_by_hand(bits, codes, expected):
    assert pack(np.array(codes, np.uint8), bits) == bytes(expected)
    np.testing.assert_array_equal(unpack(bytes(expected), bits, len(codes)), codes)


def test_codes_are_packed_row_major():
    codes = np.array([[1, 2], [3, 0]], np.uint8)
    assert pack(codes, 2) == pack(np.asfortranarray(codes), 2) == bytes([0b00_11_10_01])


@pytest.mark.parametrize("bits", range(1, 8))
def test_a_code_too_wide_is_refused(bits):
    with pytest.raises(ValueError, match=f"{2**bits} does not fit {bits}"):
        pack(np.array([0, 2**bits], np.uint8), bits)


# N * b / 8 rounded up, by hand.
@pytest.mark.parametrize(
    ("count", "bits", "size"),
    [(0, 3, 0), (1, 1, 1), (8, 1, 1), (9, 1, 2), (3, 3, 2), (8, 7, 7), (5, 8, 5), (24576, 1, 3072)],
)
def test_packed_size(count, bits, size):
    assert packed_size(count, bits) == size


def entry_of(name, shape, bits):
    return Entry(name, tuple(shape), bits)


names = st.from_regex(r"[a-z_]\w{0,5}(\.[a-z_]\w{0,5})?(\.[01]?\d)?", fullmatch=True)
local = st.builds(
    entry_of,
    names,
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.sampled_from([*range(1, 9), 32]),
)


@st.composite
def layouts(draw):
    """Entries of numbered blocks, equal or not, in any order of numbers, and entries of no block."""
    entries, kinds = [], draw(st.lists(st.lists(local, min_size=1, max_size=3), min_size=1, max_size=3))
    for index in draw(st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=8)):
        first = index or 0
        for i in range(first, first + (1 if index is None else draw(st.integers(1, 3)))):
            prefix = "" if index is None else f"{i}."
            for e in draw(st.sampled_from(kinds)):
                stem, count = f"{prefix}{e.name}", draw(st.integers(0, 3))
                names = [f"{stem}.{9 + k}" for k in range(count)] or [stem]
                entries += [Entry(name, e.shape, e.bits) for name in names]
    return entries


@given(layouts())
def test_layout_round_trip(entries):
    assert read_layout(write_layout(entries)) == entries


def test_equal_blocks_share_one_part_of_the_layout():
    # The example of petl_bench/packing/layout.py, whose compactness the 512 bytes rest on.
    entries = []
    for i in range(12):
        entries += [Entry(f"{i}.down", (32, 768), 1), Entry(f"{i}.up", (768, 32), 1)]
    entries.append(Entry("bias", (10,), 32))
    assert write_layout(entries) == "0-11:down=32x768@1,up=768x32@1;bias=10"


def test_blocks_of_other_widths_share_one_part_of_the_layout():
    # LoRA of hidden 8 on two ConvNeXt stages: fc1 maps d -> 4d, fc2 4d -> d (arXiv 2201.03545).
    entries = []
    for index, dim in enumerate([128, 128, 256, 256]):
        shapes = {"fc1.down": (8, dim), "fc1.up": (4 * dim, 8), "fc2.down": (8, 4 * dim), "fc2.up": (dim, 8)}
        entries += [Entry(f"{index}.{name}", shape, 1) for name, shape in shapes.items()]
    text = "0-1=128,2-3=256:fc1.down=8xd@1,fc1.up=4dx8@1,fc2.down=8x4d@1,fc2.up=dx8@1"
    assert write_layout(entries) == text
    assert read_layout(text) == entries


def test_names_that_count_up_are_one_name_of_the_layout():
    entries = []
    for i in range(2):
        entries += [Entry(f"{i}.q.down.{k}", (1, 64), 1) for k in range(12)]
        entries += [Entry(f"{i}.q.up.{k}", (64, 1), 1) for k in range(12)]
    text = "0-1:q.down.0-11=1x64@1,q.up.0-11=64x1@1"
    assert write_layout(entries) == text
    assert read_layout(text) == entries


@pytest.mark.parametrize(
    "names", [["a.0", "a.2"], ["a.1", "a.0"], ["a.0", "b.1"], ["a.01", "a.2"], ["3", "4"]]
)
def test_other_names_stay_apart(names):
    entries = [Entry(name, (2,), 1) for name in names]
    assert "-" not in write_layout(entries)
    assert read_layout(write_layout(entries)) == entries


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((8, 16), (8, 24)),
        ((4, 4), (8, 8)),
        ((2, 3), (4, 5)),
        ((0, 2), (3, 2)),
        ((8, 2), (2, 8)),
        ((8,), (8, 2)),
    ],
)
def test_layout_of_two_blocks_of_other_shapes(first, second):
    entries = [Entry("0.a", first, 1), Entry("1.a", second, 1)]
    assert read_layout(write_layout(entries)) == entries


def test_layout_of_a_single_number():
    entries = [Entry("0.scale", (), 32), Entry("1.scale", (), 32)]
    assert read_layout(write_layout(entries)) == entries


@pytest.mark.parametrize(
    "text",
    [
        "down",
        "a=1x",
        "a=1@9",
        "a=1@0",
        "0-:a=1",
        ":a=1",
        "0-1=:a=d",
        "0-1:a=d",
        "a=d",
        "a=1;b",
        "a=-1",
        "=1",
        "a=1\n",
        "a.0-=1",
        "a.0-99999=1",
    ],
)
def test_foreign_layouts_are_refused(text):
    with pytest.raises(ValueError, match="cannot be read"):
        read_layout(text)


@given(layouts())
def test_a_short_layout_says_the_same(entries):
    assert decompress_layout(compress_layout(write_layout(entries))) == write_layout(entries)


@pytest.mark.parametrize(
    "text", ["", "!", "AAAA", compress_layout("a=1")[:-3], compress_layout("a=1") + "AAAA", "é"]
)
def test_what_is_no_short_layout_is_refused(text):
    with pytest.raises(ValueError, match="its layout cannot be read"):
        decompress_layout(text)


def test_a_short_layout_stands_for_no_more_than_a_megabyte():
    with pytest.raises(ValueError, match="its layout cannot be read"):
        decompress_layout(compress_layout("a=1," * 300_000))


def test_a_count_needs_a_number_to_begin_at():
    with pytest.raises(ValueError, match="counts from no number"):
        read_layout("a-3=1")


@pytest.mark.parametrize(
    "text", ["0-9999:a.0-9999=1", "a.0-9999=1," * 9 + "b=1", "0-9999:" + "a=1," * 20 + "b=1"]
)
def test_a_short_layout_stands_for_no_more_than_so_many_tensors(text):
    with pytest.raises(ValueError, match="more than 65536 tensors cannot be read"):
        read_layout(text)
