"""The adapter file: round trips, layout, and damaged and foreign files."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import save

from petl_bench.data import manifests
from petl_bench.errors import UserError
from petl_bench.packing import (
    AdapterFile,
    Entry,
    StoredTensor,
    dump,
    load,
)
from tests.test_packing import layouts

LONGEST = max(manifests(), key=len)
assert len(LONGEST) >= len("vtab_diabetic_retinopathy")


float32 = st.floats(width=32, allow_nan=False)


@st.composite
def stored_tensors(draw, entry):
    if entry.bits == 32:
        return StoredTensor(entry, values=draw(npst.arrays(np.float32, entry.shape, elements=float32)))
    codes = draw(npst.arrays(np.uint8, entry.shape, elements=st.integers(0, 2**entry.bits - 1)))
    return StoredTensor(entry, codes=codes, mean=draw(float32), std=draw(float32))


@st.composite
def adapter_files(draw):
    # Keys are names of facts and settings, not the three of the container; values are any text.
    keys = st.from_regex(r"[a-z]\w{0,6}(\.[a-z]\w{0,6})?", fullmatch=True)
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    reserved = {"format", "layout", "sha256"}
    metadata = draw(st.dictionaries(keys.filter(lambda key: key not in reserved), text, max_size=4))
    parts = [[draw(stored_tensors(entry)) for entry in draw(layouts())] for _ in range(2)]
    return AdapterFile(metadata, *parts)


def assert_same(found, expected):
    assert found.metadata == expected.metadata
    for part, twin in ((found.adapter, expected.adapter), (found.head, expected.head)):
        assert [tensor.entry for tensor in part] == [tensor.entry for tensor in twin]
        for a, b in zip(part, twin, strict=True):
            assert (a.mean, a.std) == (b.mean, b.std)
            content = (a.values, b.values) if b.codes is None else (a.codes, b.codes)
            np.testing.assert_array_equal(*content, strict=True)


@given(adapter_files())
def test_load_inverts_dump(file):
    data = dump(file)
    assert_same(load(data, "here"), file)
    assert dump(file) == data
    assert load(data, "here").checksum == file.checksum


def small_file():
    codes = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    adapter = [
        StoredTensor(Entry("0.down", (2, 3), 1), codes=codes, mean=0.25, std=1.5),
        StoredTensor(Entry("0.up", (3, 2), 3), codes=7 * codes.T, mean=-0.5, std=2.0),
    ]
    head = [
        StoredTensor(Entry("weight", (2, 3), 32), values=np.arange(6, dtype=np.float32).reshape(2, 3)),
        StoredTensor(Entry("bias", (2,), 32), values=np.array([0.5, -0.5], np.float32)),
    ]
    return AdapterFile({"adapter": "made-up", "task": "none"}, adapter, head)


def test_sizes_of_a_small_file():
    file = small_file()
    # 6 codes of 1 bit in 1 byte, 6 of 3 bits in 3, each with 8 bytes of statistics; 8 floats.
    assert file.bytes_adapter == (1 + 8) + (3 + 8)
    assert file.bytes_head == 4 * 8
    assert file.bits_per_weight == 8 * 20 / 12
    assert AdapterFile({}, [], file.head).bits_per_weight is None


def test_payload_is_laid_out_as_described():
    data = dump(small_file())
    # Codes 101001 and, three bits each, 7 0 0 0 7 7, least significant first; statistics as little-endian
    # float32. safetensors pads the header before the payload.
    expected = b"".join(
        [
            bytes([0b100101]),
            np.array([0.25, 1.5], "<f4").tobytes(),
            (7 | 7 << 12 | 7 << 15).to_bytes(3, "little"),
            np.array([-0.5, 2.0], "<f4").tobytes(),
            np.array([0, 1, 2, 3, 4, 5, 0.5, -0.5], "<f4").tobytes(),
        ]
    )
    assert data.endswith(expected)
    assert len(expected) == small_file().bytes_adapter + small_file().bytes_head


def test_every_flipped_bit_is_refused():
    data = dump(small_file())
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(UserError, match=r"^here: "):
            load(bytes(damaged), "here")


def test_every_truncation_and_any_addition_is_refused():
    data = dump(small_file())
    for length in range(len(data)):
        with pytest.raises(UserError, match=r"^here: "):
            load(data[:length], "here")
    for more in (b"\0", b" ", data):
        with pytest.raises(UserError, match=r"^here: "):
            load(data + more, "here")


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x93PB")
@example(b"\x93PB\x03")
@example(b"\x93PB\x04")
def test_random_bytes_are_refused(data):
    """Short files begin with three letters and their version."""
    said = "not a petl-bench adapter file, or a truncated one"
    if data.startswith(b"\x93PB") and len(data) > 3:
        said = (
            "damaged adapter file" if data[3] == 4 else f"a short adapter file of another version, {data[3]};"
        )
    with pytest.raises(UserError, match=f"^here: {said}"):
        load(data, "here")


TENSOR = {"payload": np.zeros(4, np.uint8)}
FOREIGN = {
    "no metadata": save({"weight": np.ones((2, 2), np.float32)}),
    "payload without metadata": save(TENSOR),
    "two tensors": save(TENSOR | {"other": np.zeros(2, np.uint8)}, metadata={"petl-bench": "format=1"}),
    "metadata of others": save(TENSOR, metadata={"format": "pt"}),
    "another format version": save(TENSOR, metadata={"petl-bench": "format=2&layout=a%3D1&sha256=x"}),
    "no format": save(TENSOR, metadata={"petl-bench": ""}),
    "no checksum": save(TENSOR, metadata={"petl-bench": "format=1&layout=a=1|"}),
    "wrong checksum": save(TENSOR, metadata={"petl-bench": "format=1&layout=a=1|&sha256=x"}),
    "no layout": save(TENSOR, metadata={"petl-bench": "format=1&sha256=x"}),
    "three layouts": save(TENSOR, metadata={"petl-bench": "format=1&layout=a=1||&sha256=x"}),
    "unreadable layout": save(TENSOR, metadata={"petl-bench": "format=1&layout=a|&sha256=x"}),
    "layout of two lines": save(TENSOR, metadata={"petl-bench": "format=1&layout=a=1%0A|&sha256=x"}),
    "layout of another size": save(TENSOR, metadata={"petl-bench": "format=1&layout=a=2|&sha256=x"}),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_safetensors_files_are_refused(data):
    with pytest.raises(UserError, match=r"^here: "):
        load(data, "here")
