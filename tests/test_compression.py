"""Compression of trained adapters: what the files hold, by plain references, and what a reload gives."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from petl_bench import packing
from petl_bench.config import options
from petl_bench.errors import UserError
from petl_bench.model import Adapted, assemble, restore
from petl_bench.model.compression import bitdelta, compeft, loraquant
from petl_bench.packing import AdapterFile
from petl_bench.quantizers import FakeQuantize
from petl_bench.run.compressing import Source
from petl_bench.types import COMPRESSIONS, ModelSpec, method
from tests import tiny

SEED = 3
WITH_START = ["lora", "adaptformer", "houlsby", "bitfit", "ssf", "dora", "vera", "lora_xs"]


def moved(adapted: Adapted) -> Adapted:
    """Move all parameters of the adapter a little, their mean as well."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (*compeft.all_of(adapted.adapter), *adapted.adapter.attached.unstored):
            noise = torch.randn(parameter.shape, generator=random)
            parameter.add_(0.02 * noise + 0.001)
    return adapted


def source(name: str, **settings: object) -> Source:
    """A trained adapter at 32 bits: its start, moved."""
    spec = tiny.model_spec(name, bits=32, **settings)
    spec = dataclasses.replace(spec, quantizer="none", bits=int(method(name).unused.get("bits", 32)))
    trained = moved(assemble(spec, SEED))
    trained.prepare()
    return Source(spec, trained.file({"seed": str(SEED)}), "here")


def compressed_model(held: Source, spec: ModelSpec, how: str, **settings: object) -> ModelSpec:
    unused = method(spec.adapter.name).unused
    fixed = {key: value for key, value in COMPRESSIONS[how].fixed.items() if key not in unused}
    return dataclasses.replace(spec, compress=how, **{"quantizer": "l1_median"} | settings | fixed)


def reloaded(held: Source, model: ModelSpec, tensors: list) -> Adapted:
    """The model that the bytes of a file give, its parameters not merged."""
    train = tiny.recipe(1, 8)
    metadata = packing.describe(tiny.run_spec(model, train, seed=SEED), "0" * 64)
    data = packing.dump(AdapterFile(metadata, tensors, held.file.head, code=False))
    file = packing.load(data, "here")
    stated = packing.interpret(file, lambda label: model.backbone, "here").model
    assert stated.compress == model.compress
    found = assemble(stated, SEED)
    found.adapter.restore(file.adapter, "here")
    restore(stated, file, "here")
    return found


def vectors(adapted: Adapted) -> NDArray[np.float64]:
    values = [p.detach().double().flatten() for p in compeft.all_of(adapted.adapter)]
    return torch.cat(values).numpy()


@pytest.mark.parametrize("quantizer", [name for name in options("quantizer") if name != "none"])
@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.sampled(each=1)
def test_ptq_is_the_rounding_of_the_codebook(quantizer: str, bits: int) -> None:
    held = source("lora")
    model = compressed_model(held, tiny.model_spec("lora"), "ptq", bits=bits, quantizer=quantizer)
    tensors = held.compressed(model, 0.0, 0.0)
    quantize = FakeQuantize(quantizer, bits)
    trained = held.trained.adapter.matrices
    assert [tensor.entry.name for tensor in tensors] == [*trained]
    for tensor in tensors:
        codes, mean, std = quantize.encode(trained[tensor.entry.name].weight)
        np.testing.assert_array_equal(tensor.codes, codes.numpy())
        assert (tensor.mean, tensor.std) == (mean.item(), std.item())


def test_ptq_rounds_floats_as_deviations_from_their_start() -> None:
    held = source("bitfit")
    model = compressed_model(held, tiny.model_spec("bitfit", bits=32), "ptq", float_bits=4)
    (tensor,) = held.compressed(model, 0.0, 0.0)
    deviations = torch.from_numpy(vectors(held.trained) - vectors(held.start)).float()
    codes, _, _ = FakeQuantize("l1_median", 4).encode(deviations[None])
    assert (tensor.codes != codes[0].numpy()).mean() < 0.01  # float32 differences may cross a threshold
    assert (np.abs(tensor.codes.astype(int) - codes[0].numpy()) <= 1).all()


@pytest.mark.parametrize("name", [n for n in options("adapter") if "bits" not in method(n).unused])
@pytest.mark.sampled(6)
def test_ptq_at_eight_bits_is_near_the_model_of_32_bits(name: str) -> None:
    """Methods whose start depends on the bits start as they did at 32 bits, where they were trained."""
    with tiny.skipped_where_refused():
        held = source(name)
        spec = tiny.model_spec(name, bits=32)
        model = compressed_model(held, spec, "ptq", bits=8)
        found = reloaded(held, model, held.compressed(model, 0.0, 0.0))
    images = torch.from_numpy(tiny.split(8).images).float() / 255
    with torch.no_grad():
        logits = [network.network.eval()(images) for network in (held.start, held.trained, found)]
    change, error = (float((logits[1] - other).abs().mean()) for other in (logits[0], logits[2]))
    assert error < 0.15 * change, (error, change)


def test_ptq_keeps_codes_that_training_decided() -> None:
    """The codes of vb_lora follow from logits, which no file holds."""
    held = source("vb_lora")
    trained = {tensor.entry.name: tensor.codes for tensor in held.file.adapter if tensor.codes is not None}
    begun = assemble(tiny.model_spec("vb_lora", bits=32), SEED)
    begun.adapter.attached.encode()
    at_start = {name: codes.numpy() for name, codes in begun.adapter.attached.codes.items()}
    model = compressed_model(held, tiny.model_spec("vb_lora", bits=32), "ptq", bits=4)
    found = {tensor.entry.name: tensor.codes for tensor in held.compressed(model, 0.0, 0.0)}
    for name, codes in trained.items():
        assert (codes != at_start[name]).any(), "else this test says nothing"
        assert (found[name] == codes).all()


@pytest.mark.parametrize("name", WITH_START)
@pytest.mark.parametrize(("kept", "strength"), [(0.1, 2.0), (0.3, 1.5)])
@pytest.mark.sampled(each=1)
def test_compeft_keeps_the_signs_of_the_largest_deviations(name: str, kept: float, strength: float) -> None:
    """The formula of arXiv 2311.13171, section 2, on the whole adapter as one vector."""
    held = source(name)
    model = compressed_model(held, tiny.model_spec(name, bits=held_bits(name)), "compeft")
    start = vectors(held.start)
    tau = vectors(held.trained) - start
    size = strength * tau.std(ddof=1)
    threshold = np.sort(np.abs(tau))[-round(kept * tau.size)]
    expected = np.where(np.abs(tau) >= threshold, np.sign(tau), 0.0)
    found = reloaded(held, model, held.compressed(model, kept, strength))
    got = vectors(found) - start
    exact = (found_parameters := vectors(found)) == start
    np.testing.assert_array_equal(exact, expected == 0)  # the level of zero changes no bit of the start
    np.testing.assert_allclose(got[expected != 0], (size * expected)[expected != 0], rtol=0.02, atol=2e-6)
    assert found_parameters.size == tau.size


def held_bits(name: str) -> int:
    return int(method(name).unused.get("bits", 2))


@pytest.mark.parametrize("kept", [0.1])
def test_the_coded_length_of_compeft_is_near_its_entropy(kept: float) -> None:
    """H2(k) bits for positions and k for signs, per weight; within 6 % and the 8 bytes of the size."""
    tau = np.random.default_rng(0).standard_normal(8_000)
    tensors = compeft.compress(tau, kept, 1.0)
    file = AdapterFile({"seed": "0"}, tensors, [], code=True)
    entropy = -kept * math.log2(kept) - (1 - kept) * math.log2(1 - kept)
    bits = 8 * (file.bytes_adapter - 8) / tau.size
    assert entropy + kept <= bits * 1.01
    assert bits <= 1.06 * (entropy + kept)


@pytest.mark.parametrize("name", ["lora", "hira", "dora"])
def test_loraquant_rounds_singular_components_at_two_precisions(name: str) -> None:
    """By numpy's SVD of the product: components of 3 bits up to a share of .6 of the energy, then 1 bit."""
    held = source(name)
    model = compressed_model(held, tiny.model_spec(name), "loraquant", bits=3)
    tensors = held.compressed(model, 0.6, 0.0)
    by_name = {tensor.entry.name: tensor for tensor in tensors}
    found = reloaded(held, model, tensors)
    trained = held.trained.adapter.matrices
    for pair in {stem.rpartition(".")[0] for stem in trained}:
        down, up = (trained[f"{pair}.{side}"].weight.detach().double().numpy() for side in ("down", "up"))
        u, s, v = np.linalg.svd(up @ down, full_matrices=False)
        rank = down.shape[0]
        energy = np.cumsum(s**2) / (s**2).sum()
        first = next(h for h in range(1, rank + 1) if energy[h - 1] >= 0.6)
        rounded = np.zeros_like(up @ down)
        for i in range(rank):
            bits = 3 if i < first else 1
            assert by_name[f"{pair}.down.{i}"].entry.bits == by_name[f"{pair}.up.{i}"].entry.bits == bits
            column, row = (by_reference(np.sqrt(s[i]) * w, bits) for w in (u[:, i], v[i]))
            other = [by_reference(-np.sqrt(s[i]) * w, bits) for w in (u[:, i], v[i])]
            products = [np.outer(column, row), np.outer(*other)]  # signs of a decomposition are arbitrary
            matrices = found.adapter.matrices
            got = np.outer(
                matrices[f"{pair}.up"].weight.detach().numpy()[:, i],
                matrices[f"{pair}.down"].weight.detach().numpy()[i],
            )
            assert min(np.abs(got - product).max() for product in products) < 1e-4 * np.abs(got).max()
            rounded += got
        assert np.linalg.norm(rounded - up @ down) < np.linalg.norm(up @ down)
    assert [t.values is None for t in tensors].count(False) == len(held.trained.adapter.floats)


def by_reference(vector: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Round to evenly spaced levels between least and greatest; at 1 bit to the mean magnitude with signs."""
    if bits == 1:
        return two_bytes(np.abs(vector).mean()) * np.where(vector > 0, 1, -1)
    least = two_bytes(vector.min())
    step = two_bytes(vector.max() - least) / (2**bits - 1)
    return least + np.clip(np.rint((vector - least) / step), 0, 2**bits - 1) * step


def two_bytes(value: float) -> float:
    """Round to the upper two bytes of a float32, which is torch's bfloat16."""
    return float(torch.tensor(value, dtype=torch.float32).bfloat16())


def test_scales_of_loraquant_take_two_bytes_each_and_are_part_of_the_file() -> None:
    held = source("lora")
    model = compressed_model(held, tiny.model_spec("lora"), "loraquant", bits=2)
    tensors = held.compressed(model, 0.8, 0.0)
    file = AdapterFile({"seed": "0"}, tensors, []).with_statistic_size(2)
    codes = sum(tensor.entry.body_size for tensor in tensors)
    assert file.bytes_adapter == codes + 4 * len(tensors)
    assert len(tensors) == 8 * 4  # 8 matrices of rank 4


def test_coefficients_of_bitdelta_have_the_least_squared_error() -> None:
    """arXiv 2402.10193, equation 3: the mean magnitude of the difference."""
    held = source("full")
    moves = bitdelta.differences(held.start.adapter, held.trained.adapter)
    sizes = bitdelta.coefficients(moves)
    for move, size in zip(moves, sizes, strict=True):
        errors = [float((move - a * move.sign()).square().sum()) for a in (size, 0.99 * size, 1.01 * size)]
        assert errors[0] < min(errors[1:])
    model = compressed_model(held, tiny.model_spec("full", bits=32), "bitdelta")
    found = reloaded(held, model, held.compressed(model, 0.0, 0.0))
    parameters = zip(
        *(part.adapter.floats["parameters"] for part in (held.start, held.trained, found)), strict=True
    )
    left = iter(sizes)
    for start, trained, got in parameters:
        if bitdelta.is_matrix(start):
            expected = start + next(left) * torch.where(trained - start > 0, 1.0, -1.0)
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)
        else:
            torch.testing.assert_close(got, trained, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("how", "name", "said"),
    [
        ("loraquant", "adaptformer", "needs an adapter of low-rank updates"),
        ("loraquant", "moslora", "needs an adapter of low-rank updates"),
        ("compeft", "corda", "does not follow from seed"),
        ("compeft", "lt_sft", "does not follow from seed"),
        ("bitdelta", "lora", "needs adapter=full"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_when_they_are_built(how: str, name: str, said: str) -> None:
    model = dataclasses.replace(tiny.model_spec(name), compress=how)
    with pytest.raises(UserError, match=said):
        assemble(model, SEED)


def test_a_file_of_another_form_is_refused() -> None:
    held = source("lora")
    model = compressed_model(held, tiny.model_spec("lora"), "compeft")
    tensors = held.compressed(model, 0.1, 1.0)
    plain = assemble(dataclasses.replace(model, compress="none"), SEED)
    with pytest.raises(UserError, match="where the model has"):
        plain.adapter.restore(tensors, "here")
    other = assemble(compressed_model(held, tiny.model_spec("lora", hidden=8), "compeft"), SEED)
    with pytest.raises(UserError, match="where the model has"):
        other.adapter.restore(tensors, "here")


def test_leading_components_are_the_fewest_that_hold_the_share() -> None:
    values = np.array([2.0, 1.0, 1.0, 0.0])
    assert [loraquant.leading(values, share) for share in (0.1, 4 / 6, 0.7, 5 / 6, 1.0)] == [1, 1, 2, 2, 3]
