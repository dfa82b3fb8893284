"""Means and stds that several matrices share: in training, in files of both containers, and in runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from petl_bench import packing
from petl_bench.errors import UserError
from petl_bench.model import Adapted, assemble, restore
from petl_bench.packing import AdapterFile, Entry, StoredTensor, role_of
from petl_bench.train import Training, fit
from tests import tiny
from tests.conftest import error_of, json_lines, quickly

METHODS = ["lora", "adaptformer", "dylora", "fact_tk", "krona", "corda", "lt_sft", "convpass"]


def prepared(name: str, statistics_of: str, bits: int = 1) -> Adapted:
    adapted = assemble(tiny.model_spec(name, bits=bits), seed=9, statistics_of=statistics_of)
    adapted.prepare()
    return adapted


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("statistics_of", ["role", "adapter"])
@pytest.mark.sampled(each=2)
def test_a_reloaded_model_gives_the_logits_of_the_trained_one(name: str, statistics_of: str) -> None:
    adapted = prepared(name, statistics_of, bits=2)
    recipe = tiny.recipe(2, 8, warmup_epochs=0, lr=1e-2)
    fit(Training(adapted.network, adapted.trainable, tiny.split(16), recipe, tiny.pixels(), seed=0))
    spec = tiny.model_spec(name, bits=2)
    metadata = packing.describe(tiny.run_spec(spec, recipe, seed=9), "0" * 64)
    images = torch.from_numpy(tiny.split(4).images).float() / 255
    with torch.no_grad():
        expected = adapted.network.eval()(images)
        for short in (False, True):
            file = packing.load(packing.dump(adapted.file(metadata, True, short)), "here")
            found = restore(spec, file, "here").eval()(images)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_weights_of_a_role_are_levels_of_one_mean_and_std() -> None:
    """At 1 bit the levels are the quartiles of the normal distribution, by arXiv 2307.16867."""
    for statistics_of, groups in (("role", 4), ("adapter", 1)):
        adapted = prepared("lora", statistics_of)
        adapted.materialize()
        held: dict[str, list[str]] = {}
        for name in adapted.adapter.matrices:
            held.setdefault(name.partition(".")[2] if statistics_of == "role" else "", []).append(name)
        assert len(held) == groups
        for names in held.values():
            latents = [adapted.adapter.latents[name].double().numpy() for name in names]
            every = np.concatenate([latent.ravel() for latent in latents])
            mean, std = every.mean(), every.std(ddof=1)
            for name, latent in zip(names, latents, strict=True):
                expected = np.where(latent > mean, norm.ppf(0.75), norm.ppf(0.25)) * std + mean
                found = adapted.adapter.matrices[name].weight.detach().numpy()
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_shared_mean_and_std_is_stored_once_and_a_bit_per_matrix_says_so() -> None:
    """LoRA on two blocks has 8 matrices of 4 roles: 8 bytes for each, or for each role, or once."""
    stored = {kind: prepared("lora", kind).file({}) for kind in ("matrix", "role", "adapter")}
    codes = 8 * 48 * 4 // 8
    sizes = {kind: file.bytes_adapter for kind, file in stored.items()}
    assert sizes == {"matrix": codes + 8 * 8, "role": codes + 1 + 4 * 8, "adapter": codes + 1 + 8}
    for file in stored.values():
        assert sum(file.sections[0].sizes) == file.bytes_adapter
        again = packing.load(packing.dump(file), "here")
        assert sum(again.sections[0].sizes) == file.bytes_adapter
    form = [packing.dump(file).partition(b"format=")[2][:1] for file in stored.values()]
    assert form == [b"2", b"4", b"4"]


NAMES = st.sampled_from(["0.down", "1.down", "0.up", "1.up", "x", "0.q.down.3"])
STATISTICS = st.sampled_from([(0.0, 1.0), (0.5, 2.0), (-1.0, 0.25)])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), code=st.booleans(), short=st.booleans(), size=st.sampled_from([2, 3, 4]))
def test_any_statistics_come_back_whoever_shares_them(
    data: st.DataObject, code: bool, short: bool, size: int
) -> None:
    tensors = []
    for name in data.draw(st.lists(NAMES, unique=True, min_size=1)):
        mean, std = data.draw(STATISTICS)
        shape = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
        codes = np.random.default_rng(len(tensors)).integers(0, 2, shape, dtype=np.uint8)
        tensors.append(StoredTensor(Entry(name, shape, 1), codes=codes, mean=mean, std=std))
        if data.draw(st.booleans()):
            values = np.arange(3, dtype=np.float32)
            tensors.append(StoredTensor(Entry(f"{name}.floats", (3,), 32), values=values))
    head = [StoredTensor(Entry("weight", (2, 3), 32), values=np.ones((2, 3), np.float32))]
    file = AdapterFile({"seed": "3"}, tensors, head, code, size, short, shared=True)
    found = packing.load(packing.dump(file), "here")
    assert found.shared
    for one, other in zip([*tensors, *head], [*found.adapter, *found.head], strict=True):
        assert (one.entry, one.mean, one.std, one.body()) == (
            other.entry,
            other.mean,
            other.std,
            other.body(),
        )


def test_roles_are_names_without_numbers() -> None:
    assert [role_of(name) for name in ("0.q.down", "11.q.down.3", "biases", "width48.up")] == [
        *("q.down", "q.down", "biases", "width48.up"),
    ]


def test_the_rate_regularizer_takes_matrices_one_by_one() -> None:
    said = error_of(quickly("sweep", "--dry-run", "rate_weight=0.1", "statistics_of=role", "train.epochs=4"))
    assert "rate_weight=0.1" in said
    assert "statistics_of=role" in said
    run = tiny.run_spec(tiny.model_spec("lora"), tiny.recipe(20))
    with pytest.raises(UserError, match="it takes matrices one by one"):
        dataclasses.replace(run, rate_weight=0.1, statistics_of="adapter")


def test_runs_are_stored_evaluated_and_reported(tmp_path: Path, few_images: list[str]) -> None:
    one = [
        *few_images,
        "adapter=lora",
        "hidden=2",
        "scale=10",
        "train.epochs=2",
        "start=0.02",
    ]
    done = quickly(
        "sweep", "--store", tmp_path, *one, "statistics_of=matrix,role,adapter", "launcher=local", "--json"
    )
    rows = {row["statistics_of"]: row for row in json_lines(done.stdout)}
    assert rows["matrix"]["bytes_adapter"] > rows["role"]["bytes_adapter"] > rows["adapter"]["bytes_adapter"]
    assert quickly("eval", "--all", "--store", tmp_path).returncode == 0
    assert "statistics_of" in quickly("report", "--store", tmp_path).stdout
