"""Sizes of adapter files: published formulas, and released checkpoints reproduced byte for byte."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from petl_bench import packing
from petl_bench.config import group_config
from petl_bench.model import assemble
from petl_bench.packing import (
    MAX_OVERHEAD,
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
from tests.test_adapter_file import LONGEST, assert_same

# ViT-B/16: 12 blocks of 768 dimensions (Dosovitskiy et al. 2021, table 1).
DIM, DEPTH = 768, 12


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
