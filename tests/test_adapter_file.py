"""The adapter file: round trips, published sizes, and released checkpoints reproduced byte for byte."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import save

from petl_bench import packing
from petl_bench.config import group_config
from petl_bench.data import manifests
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
    unpack,
)
from petl_bench.packing.pieces import SEEDED
from petl_bench.types import AdapterSpec, BackboneSpec, ModelSpec
from tests import golden, tiny
from tests.reference import released
from tests.test_packing import layouts

LONGEST = max(manifests(), key=len)
assert len(LONGEST) >= len("vtab_diabetic_retinopathy")

# ViT-B/16: 12 blocks of 768 dimensions (Dosovitskiy et al. 2021, table 1).
DIM, DEPTH = 768, 12


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


# Adapter payloads at 1 bit on ViT-B, by the formulas of the next test.
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
    # arXiv 2307.16867 and its released code: a matrix takes 768 * h * b / 8 bytes of codes and 8 bytes of
    # statistics. AdaptFormer has 2 matrices in each of 12 blocks, LoRA on q and v has 4.
    count = {"adaptformer": 24, "lora": 48}[adapter]
    found = size(adapter_entries(adapter, hidden, bits))
    assert found == count * (768 * hidden * bits // 8 + 8)
    assert (found == expected) == (bits == 1)


def test_head_sizes_follow_the_published_formula():
    # Weight and bias in float32; a binary head has 768 / 8 bytes per class, 8 bytes of statistics, no bias.
    assert size(head_entries(102, binary=False)) == 4 * 769 * 102
    assert size(head_entries(102, binary=True)) == 96 * 102 + 8


@payloads
@pytest.mark.sampled(2)
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
    assert file.bytes_head == 4 * 769 * 102  # weight and bias in float32
    data = dump(file)
    assert len(data) - file.bytes_adapter - file.bytes_head <= MAX_OVERHEAD == 512
    assert_same(load(data, "here"), file)
    assert overhead_of_the_longest_metadata(file) <= MAX_OVERHEAD


def overhead_of_the_longest_metadata(file):
    """Return the overhead of a coded file with short statistics that was trained in int8."""
    metadata = file.metadata | {"p": "i"}  # petl_bench.packing.metadata
    coded = replace(file.with_statistic_size(2), code=True, metadata=metadata)
    with pytest.MonkeyPatch.context() as patch:  # the search for the shortest code takes long
        patch.setattr(
            "petl_bench.packing.coded._best_modes", lambda matrices, _: np.full(len(matrices), SEEDED)
        )
        data = dump(coded)
    return len(data) - coded.bytes_adapter - coded.bytes_head


# Float32: the biases of ViT-B, 768 * (patches 1 + 12 * (qkv 3, proj 1, fc1 4, fc2 1, norms 2) + last norm 1);
# all parameters of the smaller ViT-Ti, 5,717,416 (table 1 of arXiv 2012.12877: 5M; timm's
# vit_tiny_patch16_224), less 1000 * 193 of the classifier.
# Pairs of hidden 8 at 1 bit: inputs + outputs bytes and two times 8. Blocks of each width from section 3.3 of
# arXiv 2103.14030 (Swin-B) and section 3 of arXiv 2201.03545 (ConvNeXt-B).
STAGES = {
    "swin_b_in22k": {128: 2, 256: 2, 512: 18, 1024: 2},
    "convnext_b_in22k": {128: 3, 256: 3, 512: 27, 1024: 3},
}
OTHERS = [
    ("vit_b16_in21k", "bitfit", 4 * 768 * (1 + 12 * 11 + 1)),
    ("vit_b16_in21k", "full", 4 * (5_717_416 - 1000 * 193)),
    ("swin_b_in22k", "adaptformer", sum(n * (2 * dim + 16) for dim, n in STAGES["swin_b_in22k"].items())),
    ("swin_b_in22k", "lora", sum(n * (4 * dim + 32) for dim, n in STAGES["swin_b_in22k"].items())),
    ("convnext_b_in22k", "lora", sum(n * (10 * dim + 32) for dim, n in STAGES["convnext_b_in22k"].items())),
]


@pytest.mark.parametrize(("label", "adapter", "expected"), OTHERS)
@pytest.mark.sampled(2)
def test_files_of_other_methods_and_families_have_little_more_than_their_payload(label, adapter, expected):
    smaller = {"name": "vit_tiny_patch16_224"} if adapter == "full" else {}
    backbone = BackboneSpec(**group_config("backbone", label) | {"weights": "random"} | smaller)
    model = tiny.model_spec(adapter, hidden=8, scale=10.0, dropout=0.1, backbone=backbone)
    adapted = tiny.quantized_model(model)
    run = tiny.run_spec(model, tiny.recipe(100, 64), 42, LONGEST)
    file = adapted.file(packing.describe(run, "0123456789abcdef" * 4))
    assert file.bytes_adapter == expected
    assert len(dump(file)) - expected - file.bytes_head <= MAX_OVERHEAD
    assert overhead_of_the_longest_metadata(file) <= MAX_OVERHEAD


@pytest.mark.parametrize("checkpoint", golden.CHECKPOINTS, ids=str)
def test_released_checkpoints_are_reproduced_to_the_byte(checkpoint):
    """The file has no header: codes, mean, std of each tensor in module order, the head last."""
    data, (adapter, _, binary) = checkpoint.bin.read_bytes(), checkpoint.method.partition("-")
    entries = adapter_entries(adapter, checkpoint.hidden) + head_entries(checkpoint.classes, bool(binary))
    assert size(entries) == len(data)
    reference = released.read(data, checkpoint.method, checkpoint.hidden, checkpoint.classes)
    assert [entry.name for entry in entries] == list(reference)
    start = 0
    for entry, expected in zip(entries, reference.values(), strict=True):
        piece = data[start : start + entry.nbytes]
        start += entry.nbytes
        if entry.bits == 32:
            tensor = StoredTensor(entry, values=np.frombuffer(piece, "<f4").reshape(entry.shape))
            np.testing.assert_array_equal(tensor.values, expected)
        else:
            codes = unpack(piece[:-8], 1, entry.count)
            assert pack(codes, 1) == piece[:-8]
            mean, std = np.frombuffer(piece[-8:], "<f4").tolist()
            # A trained matrix has both signs, and a std that four bytes of another place would not show.
            assert 0 < codes.mean() < 1
            assert abs(mean) < std < 1
            tensor = StoredTensor(entry, codes=codes.reshape(entry.shape), mean=mean, std=std)
            np.testing.assert_array_equal(tensor.codes, expected[0])
            assert (mean, std) == expected[1:]
        assert tensor.to_bytes() == piece


def test_sizes_of_all_released_checkpoints_are_those_of_our_entries():
    classes = defaultdict(set)
    for (method, hidden, task), nbytes in golden.released("bytes").items():
        adapter, _, binary = method.partition("-")
        head = int(nbytes) - size(adapter_entries(adapter, hidden))
        count = (head - 8) // 96 if binary else head // (4 * 769)  # the formulas of heads, solved for C
        assert size(head_entries(count, bool(binary))) == head, (method, hidden, task)
        classes[task].add(count)
    assert all(len(counts) == 1 for counts in classes.values())
    # Numbers of classes of VTAB (Zhai et al. 2019, table 3).
    assert classes["cifar"] == {100}
    assert classes["sun397"] == {397}
    assert classes["oxford_flowers102"] == {102}
