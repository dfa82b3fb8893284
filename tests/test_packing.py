import csv
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import save

from petl_bench import packing
from petl_bench.config import group_config, manifests
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.packing import (
    MAX_OVERHEAD,
    AdapterFile,
    Entry,
    StoredTensor,
    dump,
    load,
    pack,
    packed_size,
    unpack,
)
from petl_bench.packing.layout import lengthened, read_layout, shortened, write_layout
from petl_bench.types import AdapterSpec, BackboneSpec, ModelSpec
from tests import tiny

# ViT-B/16: 12 blocks of 768 dimensions (Dosovitskiy et al. 2021, table 1).
DIM, DEPTH = 768, 12
LONGEST = max(manifests(), key=len)
assert len(LONGEST) >= len("vtab_diabetic_retinopathy")


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
    # method.md: code k at bits [k * b, (k + 1) * b), least significant first. So the bytes, read as one
    # little-endian number, are the sum of code k times 2**(k * b).
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
    assert lengthened(shortened(write_layout(entries))) == write_layout(entries)


@pytest.mark.parametrize("text", ["", "!", "AAAA", shortened("a=1")[:-3], shortened("a=1") + "AAAA", "é"])
def test_what_is_no_short_layout_is_refused(text):
    with pytest.raises(ValueError, match="its layout cannot be read"):
        lengthened(text)


def test_a_short_layout_stands_for_no_more_than_a_megabyte():
    with pytest.raises(ValueError, match="its layout cannot be read"):
        lengthened(shortened("a=1," * 300_000))


def test_a_count_needs_a_number_to_begin_at():
    with pytest.raises(ValueError, match="counts from no number"):
        read_layout("a-3=1")


float32 = st.floats(width=32, allow_nan=False)


@st.composite
def stored_tensors(draw, entry):
    if entry.bits == 32:
        return StoredTensor(entry, values=draw(npst.arrays(np.float32, entry.shape, elements=float32)))
    codes = draw(npst.arrays(np.uint8, entry.shape, elements=st.integers(0, 2**entry.bits - 1)))
    return StoredTensor(entry, codes=codes, shift=draw(float32), spread=draw(float32))


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
            assert (a.shift, a.spread) == (b.shift, b.spread)
            content = (a.values, b.values) if b.codes is None else (a.codes, b.codes)
            np.testing.assert_array_equal(*content, strict=True)


@settings(deadline=None, max_examples=60)
@given(adapter_files())
def test_load_inverts_dump(file):
    data = dump(file)
    assert_same(load(data, "here"), file)
    assert dump(file) == data
    assert load(data, "here").checksum == file.checksum


def small_file():
    codes = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    adapter = [
        StoredTensor(Entry("0.down", (2, 3), 1), codes=codes, shift=0.25, spread=1.5),
        StoredTensor(Entry("0.up", (3, 2), 3), codes=7 * codes.T, shift=-0.5, spread=2.0),
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
def test_random_bytes_are_refused(data):
    with pytest.raises(UserError, match=r"^here: not a petl-bench adapter file"):
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


def adapter_entries(adapter, hidden, bits=1):
    roles = {"adaptformer": [""], "lora": ["q.", "v."]}[adapter]
    pair = {"down": (hidden, DIM), "up": (DIM, hidden)}
    return [
        Entry(f"{i}.{role}{name}", shape, bits)
        for i in range(DEPTH)
        for role in roles
        for name, shape in pair.items()
    ]


def head_entries(classes, binary):
    weight = Entry("weight", (classes, DIM), 1 if binary else 32)
    return [weight] if binary else [weight, Entry("bias", (classes,), 32)]


def size(entries):
    return sum(entry.nbytes for entry in entries)


# method.md: adapter-only payload at 1 bit on ViT-B.
PAYLOADS = [
    ("adaptformer", 32, 73_920),
    ("adaptformer", 1, 2_496),
    ("lora", 32, 147_840),
    ("lora", 1, 4_992),
]
payloads = pytest.mark.parametrize(("adapter", "hidden", "expected"), PAYLOADS)


@payloads
@pytest.mark.parametrize("bits", range(1, 9))
def test_payload_sizes_follow_the_published_formula(adapter, hidden, expected, bits):
    # method.md: AdaptFormer 24 * (768 * h * b / 8 + 8), LoRA 48 * (768 * h * b / 8 + 8).
    count = {"adaptformer": 24, "lora": 48}[adapter]
    found = size(adapter_entries(adapter, hidden, bits))
    assert found == count * (768 * hidden * bits // 8 + 8)
    assert (found == expected) == (bits == 1)


def test_head_sizes_follow_the_published_formula():
    # method.md: 4 * 769 * C bytes in float32, 96 * C + 8 as binary head.
    assert size(head_entries(102, binary=False)) == 4 * 769 * 102
    assert size(head_entries(102, binary=True)) == 96 * 102 + 8


@payloads
def test_a_whole_vit_b_file_has_the_published_payload_and_little_more(adapter, hidden, expected):
    # 102 classes: Oxford Flowers 102 (Nilsback and Zisserman 2008).
    model = ModelSpec(
        BackboneSpec("vit_base_patch16_224", "random", 224),
        AdapterSpec(adapter),
        hidden,
        10.0,
        "l1_median",
        1,
        "linear",
        102,
    )
    run = tiny.run_spec(model, tiny.recipe(100, 64), 42, LONGEST)
    adapted = assemble(run.model)
    adapted.prepare()
    file = adapted.file(packing.describe(run, "0123456789abcdef" * 4))
    assert [tensor.entry for tensor in file.adapter] == adapter_entries(adapter, hidden)
    assert file.bytes_adapter == expected
    assert file.bytes_head == 4 * 769 * 102  # method.md
    data = dump(file)
    assert len(data) - file.bytes_adapter - file.bytes_head <= MAX_OVERHEAD == 512
    assert_same(load(data, "here"), file)
    assert overhead_of_the_longest_metadata(file) <= MAX_OVERHEAD


def overhead_of_the_longest_metadata(file):
    """Of the file with sections coded, statistics short and in int8, which its metadata has to say."""
    metadata = file.metadata | {"p": "i"}  # petl_bench.packing.metadata
    coded = replace(file.shortened(2), code=True, metadata=metadata)
    data = dump(coded)
    return len(data) - coded.bytes_adapter - coded.bytes_head


# Float32: the biases of ViT-B, 768 * (patches 1 + 12 * (qkv 3, proj 1, fc1 4, fc2 1, norms 2) + last norm 1);
# all its parameters, 86,567,656 (torchvision's vit_b_16) less 1000 * 769 of the classifier.
# Pairs of hidden 8 at 1 bit: inputs + outputs bytes and two times 8. Blocks of each width from section 3.3 of
# arXiv 2103.14030 (Swin-B) and section 3 of arXiv 2201.03545 (ConvNeXt-B).
STAGES = {
    "swin_b_in22k": {128: 2, 256: 2, 512: 18, 1024: 2},
    "convnext_b_in22k": {128: 3, 256: 3, 512: 27, 1024: 3},
}
OTHERS = [
    ("vit_b16_in21k", "bitfit", 4 * 768 * (1 + 12 * 11 + 1)),
    ("vit_b16_in21k", "full", 4 * (86_567_656 - 1000 * 769)),
    ("swin_b_in22k", "adaptformer", sum(n * (2 * dim + 16) for dim, n in STAGES["swin_b_in22k"].items())),
    ("swin_b_in22k", "lora", sum(n * (4 * dim + 32) for dim, n in STAGES["swin_b_in22k"].items())),
    ("convnext_b_in22k", "lora", sum(n * (10 * dim + 32) for dim, n in STAGES["convnext_b_in22k"].items())),
]


@pytest.mark.parametrize(("label", "adapter", "expected"), OTHERS)
def test_files_of_other_methods_and_families_have_little_more_than_their_payload(label, adapter, expected):
    backbone = BackboneSpec(**group_config("backbone", label) | {"weights": "random"})
    model = tiny.model_spec(adapter, hidden=8, scale=10.0, dropout=0.1, backbone=backbone)
    adapted = tiny.quantized_model(model)
    run = tiny.run_spec(model, tiny.recipe(100, 64), 42, LONGEST)
    file = adapted.file(packing.describe(run, "0123456789abcdef" * 4))
    assert file.bytes_adapter == expected
    assert len(dump(file)) - expected - file.bytes_head <= MAX_OVERHEAD
    assert overhead_of_the_longest_metadata(file) <= MAX_OVERHEAD


GOLDEN = Path(os.environ.get("PETL_BENCH_GOLDEN", Path(__file__).parents[2] / "shared/golden"))
golden = pytest.mark.skipif(not (GOLDEN / "petl-vit").is_dir(), reason=f"no authors' checkpoints in {GOLDEN}")
# File, hidden, classes (num_class of the .yaml beside it).
CHECKPOINTS = [
    ("adaptformer/kitti-bit1-dim1", 1, 4),
    ("adaptformer/cifar-bit1-dim32", 32, 100),
    ("adaptformer-bihead/dtd-bit1-dim1", 1, 47),
    ("adaptformer-bihead/svhn-bit1-dim32", 32, 10),
    ("lora/kitti-bit1-dim1", 1, 4),
    ("lora/eurosat-bit1-dim32", 32, 10),
    ("lora-bihead/dmlab-bit1-dim1", 1, 6),
    ("lora-bihead/clevr_dist-bit1-dim32", 32, 6),
]


@golden
@pytest.mark.parametrize(("name", "hidden", "classes"), CHECKPOINTS)
def test_the_authors_checkpoints_are_reproduced_to_the_byte(name, hidden, classes):
    """The layout is method.md's: no header; codes, m, s of each tensor in module order, the head last."""
    data = (GOLDEN / "petl-vit" / f"{name}.bin").read_bytes()
    method = name.split("/")[0]
    entries = adapter_entries(method.removesuffix("-bihead"), hidden)
    entries += head_entries(classes, method.endswith("-bihead"))
    assert size(entries) == len(data)
    start = 0
    for entry in entries:
        piece = data[start : start + entry.nbytes]
        start += entry.nbytes
        if entry.bits == 32:
            tensor = StoredTensor(entry, values=np.frombuffer(piece, "<f4").reshape(entry.shape))
        else:
            codes = unpack(piece[:-8], 1, entry.count)
            assert pack(codes, 1) == piece[:-8]
            shift, spread = np.frombuffer(piece[-8:], "<f4").tolist()
            # A trained matrix has both signs, and a spread that four bytes of another place would not show.
            assert 0 < codes.mean() < 1
            assert abs(shift) < spread < 1
            tensor = StoredTensor(entry, codes=codes.reshape(entry.shape), shift=shift, spread=spread)
        assert tensor.to_bytes() == piece


@golden
def test_sizes_of_all_the_authors_checkpoints_are_those_of_our_entries():
    with (GOLDEN / "petl-vit-checkpoints.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 152  # method.md: 19 tasks, 4 methods, 2 widths
    classes = defaultdict(set)
    for row in rows:
        binary = row["method"].endswith("-bihead")
        adapter = row["method"].removesuffix("-bihead")
        head = int(row["bytes"]) - size(adapter_entries(adapter, int(row["dim"])))
        count = (head - 8) // 96 if binary else head // (4 * 769)  # method.md's formulas solved for C
        assert size(head_entries(count, binary)) == head, row
        classes[row["task"]].add(count)
    assert all(len(counts) == 1 for counts in classes.values())
    # Numbers of classes of VTAB (Zhai et al. 2019, table 3).
    assert classes["cifar"] == {100}
    assert classes["sun397"] == {397}
    assert classes["oxford_flowers102"] == {102}


@pytest.mark.parametrize(
    "text", ["0-9999:a.0-9999=1", "a.0-9999=1," * 9 + "b=1", "0-9999:" + "a=1," * 20 + "b=1"]
)
def test_a_short_layout_stands_for_no_more_than_so_many_tensors(text):
    with pytest.raises(ValueError, match="more than 65536 tensors cannot be read"):
        read_layout(text)
