"""Float parameters stored as quantized deviations from their initial values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from petl_bench.config import options, plan
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.model.floats import vector
from petl_bench.types import ModelSpec, method
from tests import tiny
from tests.agreeing import check_reload
from tests.conftest import json_lines, quickly

SETTINGS = {"bottleneck": {"bias": True, "gate": "middle_y"}, "earth": {"bias": True}}
"""Settings with which a method has floats, where it has none by default."""
WITH_FLOATS = [name for name in options("adapter") if "float_bits" not in method(name).unused]


def spec_of(name: str, float_bits: int, bits: int = 1) -> ModelSpec:
    unused = method(name).unused
    model = tiny.model_spec(name, bits=unused.get("bits", bits), dropout=0.1, **SETTINGS.get(name, {}))
    return dataclasses.replace(model, float_bits=float_bits)


@pytest.mark.parametrize("name", options("adapter"))
def test_a_method_declares_whether_it_has_floats(name: str) -> None:
    """Methods that have none with any settings say so; the others have some with the settings above."""
    assert bool(assemble(spec_of(name, 32)).adapter.floats) == (name in WITH_FLOATS)


@pytest.mark.parametrize("name", WITH_FLOATS)
@pytest.mark.parametrize("float_bits", [1, 4])
@pytest.mark.sampled(each=2)
def test_a_reloaded_model_gives_the_logits_of_the_trained_one(name: str, float_bits: int) -> None:
    check_reload(spec_of(name, float_bits), epochs=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["bitfit", "ssf", "adapter_plus"])
def test_what_modules_use_is_the_initial_value_plus_a_level_of_the_deviation(
    name: str, precision: str
) -> None:
    """At 1 bit the levels are the quartiles of the normal distribution, by arXiv 2307.16867."""
    initial = {k: vector(g).detach().clone() for k, g in assemble(spec_of(name, 1)).adapter.floats.items()}
    adapted = assemble(spec_of(name, 1))
    adapted.prepare(precision)
    generator = torch.Generator().manual_seed(1)
    for held in adapted.adapter.deviations.values():
        held.latent.data.normal_(0.1, 0.3, generator=generator)
    adapted.materialize()
    stored = {tensor.entry.name: tensor for tensor in adapted.adapter.store()}
    for role, held in adapted.adapter.deviations.items():
        latent = held.latent.detach().numpy()[0].astype(np.float64)
        level = np.where(latent > latent.mean(), norm.ppf(0.75), norm.ppf(0.25))
        deviation = level * latent.std(ddof=1) + latent.mean()
        used = {id(p.parameter): getattr(p.module(), p.name).detach() for p in held.places}
        found = torch.cat([used[id(parameter)].flatten() for parameter in held.parameters]).double()
        tolerance = 1e-6 if precision == "fp32" else 2**-8
        np.testing.assert_allclose(found, initial[role].double() + deviation, rtol=tolerance, atol=1e-6)
        assert stored[role].entry.bits == 1
        assert stored[role].entry.shape == latent.shape
        np.testing.assert_array_equal(stored[role].codes, latent > latent.mean())


def test_gradients_reach_every_deviation_as_those_of_one_matrix_do() -> None:
    adapted = tiny.quantized_model(spec_of("bitfit", 2))
    adapted.network(torch.from_numpy(tiny.split(4).images).float() / 255).square().sum().backward()
    (held,) = adapted.adapter.deviations.values()
    assert held.latent.grad is not None
    assert held.latent.grad.count_nonzero() > 0.9 * held.latent.numel()
    assert [*adapted.adapter.trainable] == [held.latent]


def test_floats_that_are_not_there_are_refused() -> None:
    done = quickly("sweep", "sweep=none", "task=digits", "adapter=bottleneck", "float_bits=2")
    assert done.returncode == 2
    said = "error: float_bits=2: adapter bottleneck with these settings has no float parameters to quantize"
    assert said in done.stderr


def test_two_numbers_stay_in_float32_where_they_are_shorter() -> None:
    """Two numbers at 1 bit take a byte of codes, a mean and a std: 9 bytes, in float32 they take 8."""
    scalar = tiny.model_spec("adapter_plus", learned_scale="scalar", bias=True)
    spec = dataclasses.replace(scalar, float_bits=1)
    entries = {entry.name: (entry.shape, entry.bits) for entry in assemble(spec).adapter.entries}
    assert entries["scales"] == ((2,), 32)  # one for each of the two blocks
    assert entries["biases"][1] == 1
    check_reload(spec, epochs=1)
    with pytest.raises(UserError, match="no float parameters to quantize"):
        assemble(
            dataclasses.replace(
                tiny.model_spec("adapter_plus", bias=False, learned_scale="scalar"), float_bits=1
            )
        )


def test_float_bits_are_identity_of_methods_with_floats_alone() -> None:
    overrides = ["sweep=none", "task=digits", "scale=1", "bits=1", "float_bits=1,32"]
    for name in ("lora", "vpt_deep", "linear"):
        assert len(plan([*overrides, f"adapter={name}"]).runs) == 1
    for name in ("bitfit", "ssf", "adapter_plus", "full"):
        assert len(plan([*overrides, f"adapter={name}"]).runs) == 2


def test_runs_are_stored_evaluated_and_reported(tmp_path: Path, few_images: list[str]) -> None:
    one = [*few_images, "adapter=bitfit,adapter_plus", "hidden=2", "train.epochs=2"]
    done = quickly("sweep", "--store", tmp_path, *one, "float_bits=1,32", "launcher=local", "--json")
    rows = {(row["adapter"], row["float_bits"]): row for row in json_lines(done.stdout)}
    assert len(rows) == 4
    for name in ("bitfit", "adapter_plus"):
        assert rows[name, 1]["bytes_adapter"] < rows[name, 32]["bytes_adapter"] / 2
        assert rows[name, 1]["params_trainable"] == rows[name, 32]["params_trainable"]
    # One code of one bit per bias, a mean and a std: a coded file is never longer than that.
    biases = rows["bitfit", 32]["bytes_adapter"] // 4
    assert rows["bitfit", 1]["bytes_adapter"] <= -(-biases // 8) + 8
    assert quickly("eval", "--all", "--store", tmp_path).returncode == 0
    assert "float_bits" in quickly("report", "--store", tmp_path).stdout
