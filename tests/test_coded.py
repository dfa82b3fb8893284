"""Coded payloads: lossless, as small as promised, the same as the model in plain Python."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from petl_bench import initialization
from petl_bench.packing import AdapterFile, Entry, StoredTensor, dump, load, packed_size
from petl_bench.packing.coded import MAX_POSITIONS, MODES, decode, encode
from petl_bench.packing.pieces import MAX_UNITS, CodeMatrix
from petl_bench.packing.predict import RATES, probability
from petl_bench.packing.section import MODE_BITS, SectionFormat
from petl_bench.packing.tensors import round_statistic
from tests.conftest import error_of, pick, quickly
from tests.reference.predict import code_length, logistic
from tests.test_protocols import made


def matrices_of(names, shapes, bits, seed):
    return [
        CodeMatrix(shape, width, None if seed is None else initialization.words(seed, name, shape))
        for name, shape, width in zip(names, shapes, bits, strict=True)
    ]


@st.composite
def payloads(draw):
    """Some matrices of any shape and width, from random to constant; and a seed, or none."""
    count = draw(st.integers(1, 4))
    shapes = draw(
        st.lists(
            npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), min_size=count, max_size=count
        )
    )
    bits = draw(st.lists(st.integers(1, 8), min_size=count, max_size=count))
    codes = [
        draw(npst.arrays(np.uint8, shape, elements=st.integers(0, 2**b - 1), fill=st.integers(0, 2**b - 1)))
        for shape, b in zip(shapes, bits, strict=True)
    ]
    return shapes, bits, codes, draw(st.none() | st.integers(0, 9))


@given(payloads())
def test_the_stream_gives_back_all_that_was_put_into_it(case):
    shapes, bits, codes, seed = case
    matrices = matrices_of("abcd"[: len(shapes)], shapes, bits, seed)
    modes, stream, costs = encode(matrices, codes)
    found = decode(matrices, modes, stream)
    assert set(found) == {index for index, mode in enumerate(modes) if mode}
    for index, (values, cost) in found.items():
        np.testing.assert_array_equal(values, codes[index])
        assert values.dtype == np.uint8
        # What is in the stream is smaller than its packed codes, and both ends agree on how much it took.
        assert cost == pytest.approx(costs[index], abs=1e-6)
        assert cost < 8 * packed_size(values.size, bits[index])
    # A range coder's stream is as long as its content, but for the last word or two.
    assert 8 * len(stream) <= sum(costs) + 64


@given(payloads(), st.sampled_from([4, 3, 2]))
def test_a_section_is_never_longer_than_raw_and_reads_back(case, statistics):
    shapes, bits, codes, seed = case
    entries = [Entry(f"t{i}", shape, b) for i, (shape, b) in enumerate(zip(shapes, bits, strict=True))]
    entries.append(Entry("bias", (3,), 32))
    tensors = [
        StoredTensor(
            entry, codes=values, mean=round_statistic(0.1, statistics), std=round_statistic(0.7, statistics)
        )
        for entry, values in zip(entries, codes, strict=False)
    ]
    tensors.append(StoredTensor(entries[-1], values=np.array([1.5, -2.0, 3.25], np.float32)))
    layout = SectionFormat("adapter", seed, statistics)
    raw, section = layout.write(tensors, code=False), layout.write(tensors, code=True)
    assert (
        len(section.data)
        <= len(raw.data)
        == 12
        + sum(packed_size(values.size, b) + 2 * statistics for values, b in zip(codes, bits, strict=True))
    )
    assert sum(section.sizes) == len(section.data)
    found, again = layout.read(section.data, entries, section.coded)
    assert again == section
    for tensor, expected in zip(found, tensors, strict=True):
        assert tensor.entry == expected.entry
        assert (tensor.mean, tensor.std) == (expected.mean, expected.std)
        for one, other in ((tensor.codes, expected.codes), (tensor.values, expected.values)):
            np.testing.assert_array_equal(one, other)


def regular(shape, bits, seed=0):
    """Codes with what trained matrices have: units that depend on each other, and a bell of values."""
    generator = np.random.default_rng(seed)
    factors = generator.normal(size=(max(shape), 2)) @ generator.normal(size=(2, min(shape)))
    values = factors + 0.3 * generator.normal(size=factors.shape)
    edges = np.quantile(generator.normal(size=4000) * values.std(), np.arange(1, 2**bits) / 2**bits)
    codes = np.digitize(values, edges).astype(np.uint8)
    return codes if codes.shape == shape else codes.T


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_the_code_length_is_that_of_the_model_in_plain_python(shape, bits, seed):
    codes = regular(shape, bits)
    matrix = matrices_of(["m"], [shape], [bits], seed)[0]
    (mode,), _, (cost,) = encode([matrix], [codes])
    assert mode
    words = np.full(shape, 2**31, np.uint32) if matrix.words is None else matrix.words
    pieces = [
        array if shape[0] > shape[1] else array.T for array in (codes, words.astype(int) // 2**16 - 2**15)
    ]
    rate, used = RATES[(mode - 1) % len(RATES)], mode > len(RATES)
    start = pieces[1] if used else np.zeros_like(pieces[1])
    expected, _ = code_length(pieces[0].tolist(), bits, rate, start.tolist())
    assert cost == pytest.approx(expected, rel=1e-9)


def test_probabilities_are_the_rounded_logistic_function():
    logits = np.arange(-9 * 65536, 9 * 65536, 251)
    assert probability(logits).tolist() == [logistic(int(logit)) for logit in logits]


def test_the_seed_helps_where_codes_stayed_near_their_start():
    shape = (64, 16)
    words = initialization.words(5, "adapter.m", shape)
    codes = (words >> 31).astype(np.uint8)
    codes[np.random.default_rng(0).random(shape) < 0.1] ^= 1  # a tenth of the signs flipped
    known, unknown = SectionFormat("adapter", 5, 4), SectionFormat("adapter", None, 4)
    tensor = StoredTensor(Entry("m", shape, 1), codes=codes, mean=0.0, std=1.0)
    assert unknown.write([tensor], code=True).coded is False  # the words are random, and so are these codes
    section = known.write([tensor], code=True)
    # The entropy of a tenth is 0.469 bit; magnitudes say nothing here. 1,024 codes leave room for learning.
    assert 8 * len(section.data) < (0.469 + 0.15) * codes.size + 64
    other = SectionFormat("adapter", 6, 4)
    (found,), _ = known.read(section.data, [tensor.entry], coded=True)
    np.testing.assert_array_equal(found.codes, codes)
    (wrong,), _ = other.read(section.data, [tensor.entry], coded=True)
    assert (wrong.codes != codes).any()  # the seed is part of what decodes: a file states it


@pytest.mark.parametrize("units", [MAX_UNITS - 1, MAX_UNITS, MAX_UNITS + 1, 3 * MAX_UNITS + 5])
def test_wide_matrices_are_cut_into_pieces(units):
    codes = [regular((200, units), 1), regular((units, 200), 1, seed=1), regular((200, MAX_UNITS), 1, seed=2)]
    matrices = matrices_of("abc", [c.shape for c in codes], [1, 1, 1], None)
    modes, stream, _ = encode(matrices, codes)
    found = decode(matrices, modes, stream)
    assert all(modes)
    for index, values in enumerate(codes):
        np.testing.assert_array_equal(found[index][0], values)


def test_modes_fit_their_bits():
    assert MODES <= 1 << MODE_BITS


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A store of small 1-bit runs at scale 1, with exact and with short statistics."""
    folder = tmp_path_factory.mktemp("own")
    tree = made(folder, {"train": 96, "val": 32, "test": 16})
    changes = {"adapter": "adaptformer,lora", "hidden": 16, "scale": 1, "protocol": "fixed", "seed": 2}
    changes |= {"train.epochs": 3, "statistics": "exact,short"}
    done = quickly("sweep", "--store", folder / "store", *tree.settings(**changes))
    assert done.returncode == 0, done.stderr
    return folder / "store"


@pytest.mark.parametrize("adapter", ["adaptformer", "lora"])
def test_own_adapters_are_coded_and_their_seed_makes_them_smaller(own, adapter):
    row = pick(own, adapter=adapter, statistics="exact")
    file = load((own / row["run_id"] / "adapter.safetensors").read_bytes(), "here")
    assert row["packing"] == file.packing == "coded"
    assert row["bytes_adapter"] == file.bytes_adapter < row["bytes_adapter_raw"] == file.bytes_adapter_raw
    # Raw: 4 blocks of 64 dimensions with hidden 16 at 1 bit, and 8 bytes of statistics per matrix.
    assert row["bytes_adapter_raw"] == {"adaptformer": 1, "lora": 2}[adapter] * 4 * 2 * (64 * 16 // 8 + 8)
    assert file.metadata["seed"] == "2"
    unknown = {key: value for key, value in file.metadata.items() if key != "seed"}
    assert AdapterFile(unknown, file.adapter, file.head, code=True).bytes_adapter > file.bytes_adapter


@pytest.mark.parametrize("adapter", ["adaptformer", "lora"])
def test_short_statistics_leave_every_training_image_in_its_class(own, adapter):
    from petl_bench import data
    from petl_bench.model import restore
    from petl_bench.run.execute import read_metadata
    from petl_bench.run.packed import with_statistics
    from petl_bench.store import Store
    from petl_bench.train import Pixels, predict
    from petl_bench.types import Cache, Runtime

    def predicted(file):
        network = restore(read_metadata(file, "here").model, file, "here")
        return predict(network, images, Pixels("none", 32, torch.device("cpu")))

    classes, sizes = [], []
    for statistics in ("exact", "short"):
        row = pick(own, adapter=adapter, statistics=statistics)
        file = load((own / row["run_id"] / "adapter.safetensors").read_bytes(), "here")
        assert (file.statistic_size < 4) == (statistics == "short")
        assert row["bytes_adapter"] == file.bytes_adapter
        spec = Store(own).spec(row["run_id"])
        images = data.load(spec.task, "trainval", 32, Cache())
        classes.append(predicted(file))
        sizes.append(row["bytes_adapter"])
        if statistics == "exact":  # in bits, of the same trained model
            in_bits = with_statistics(
                file, replace(spec, statistics="shortest"), Runtime(store="", threads=1)
            )
    np.testing.assert_array_equal(*classes)
    assert sizes[1] < sizes[0]
    assert in_bits.mantissa is not None
    assert in_bits.bytes_adapter < sizes[1]
    np.testing.assert_array_equal(predicted(load(dump(in_bits), "here")), classes[0])


def test_a_packing_that_is_none_is_refused():
    for wrong in ("packing=zip", "statistics=double"):
        assert wrong.split("=")[0] in error_of(quickly("sweep", "--dry-run", wrong))


@pytest.mark.parametrize(("positions", "coded"), [(MAX_POSITIONS, True), (MAX_POSITIONS + 1, False)])
def test_small_files_do_not_stand_for_much_work(positions, coded):
    """A byte of a stream stands for at most 1,600 bits of codes, in matrices of at most 16,384 positions."""
    codes = np.ones((positions, 4), np.uint8)
    layout = SectionFormat("adapter", None, 4)
    tensor = StoredTensor(Entry("m", codes.shape, 1), codes=codes, mean=0.0, std=1.0)
    section = layout.write([tensor], code=True)
    assert section.coded == coded
    assert len(section.data) >= codes.size / 1600
    (found,), _ = layout.read(section.data, [tensor.entry], section.coded)
    np.testing.assert_array_equal(found.codes, codes)


def test_very_regular_codes_cost_next_to_nothing():
    codes = np.ones((1500, MAX_UNITS), np.uint8)
    codes[::50] = 0
    layout = SectionFormat("adapter", None, 4)
    tensor = StoredTensor(Entry("m", codes.shape, 1), codes=codes, mean=0.0, std=1.0)
    section = layout.write([tensor], code=True)
    assert len(section.data) < codes.size / 8 / 20
    (found,), _ = layout.read(section.data, [tensor.entry], coded=True)
    np.testing.assert_array_equal(found.codes, codes)
