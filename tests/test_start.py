"""How matrices are trained: the start of pairs, and the learning rate of matrices beside that of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench import initialization
from petl_bench.adapters import ADAPTERS
from petl_bench.config import options, plan
from petl_bench.errors import UserError
from petl_bench.model import Adapted, assemble
from petl_bench.train import Training, fit
from petl_bench.types import RunSpec, method, run_id
from tests import tiny
from tests.conftest import error_of, json_lines, quickly

WEIGHTS = "0" * 64


def planned(*overrides: str) -> list[RunSpec]:
    return plan(["sweep=none", "task=digits", "scale=1", *overrides]).runs


@pytest.mark.parametrize("name", options("adapter"))
@pytest.mark.parametrize("bits", [1, 32])
@pytest.mark.sampled(each=2)
def test_a_start_draws_both_matrices_of_every_pair_and_no_other_weight(name: str, bits: int) -> None:
    """Expected by definition: bound * (2 p - 1), where p is the probability that a seeded word stands for."""
    (run,) = planned(f"adapter={name}", "start=0.5", f"bits={bits}")
    model = tiny.model_spec(name, bits=bits)
    if not run.start:  # the method has no use for it, and says so
        with pytest.raises(UserError, match=f"start=0.5: adapter {name} has no pair of matrices"):
            assemble(model, start=0.5)
        return
    found, released = (assemble(model, seed=3, start=start).adapter.matrices for start in (0.5, 0.0))
    drawn = 0
    for role, matrix in found.items():
        weight = matrix.weight.detach().numpy()
        words = initialization.words(3, f"adapter.{role}", weight.shape)
        expected = 0.5 * (2 * (words + 0.5) / 2**32 - 1)
        if np.allclose(weight, expected, rtol=0, atol=1e-6):
            drawn += 1
        else:
            assert torch.equal(matrix.weight, released[role].weight), role
    assert drawn >= 2
    assert drawn % 2 == 0


@pytest.mark.parametrize("name", ["lora", "fact_tk", "krona", "houlsby"])
def test_a_product_that_starts_at_zero_no_longer_does(name: str) -> None:
    model = tiny.model_spec(name, bits=32)
    images = torch.from_numpy(tiny.split(2).images).float() / 255
    frozen, adapted = (assemble(model, start=start).network.eval() for start in (0.0, 0.5))
    assert not torch.allclose(frozen(images), adapted(images), atol=1e-3)


@given(
    start=st.sampled_from([0.0, 0.02, 0.1]),
    rate=st.sampled_from([1.0, 0.3, 3.0]),
    bits=st.sampled_from([1, 32]),
)
@settings(max_examples=20, deadline=None)
def test_settings_of_training_are_identity_only_where_they_act(start: float, rate: float, bits: int) -> None:
    chosen = [f"start={start}", f"matrix_lr={rate}", f"bits={bits}"]
    for name in ("lora", "vpt_deep", "bitfit", "linear"):
        (run,), (plain,) = planned(f"adapter={name}", *chosen), planned(f"adapter={name}", f"bits={bits}")
        unused = method(name).unused
        acts = (start and "start" not in unused and "bits" not in unused) or (
            rate != 1 and "bits" not in unused
        )
        assert (run_id(run, WEIGHTS) != run_id(plain, WEIGHTS)) == bool(acts)


def one_step(adapted: Adapted, factor: float) -> list[torch.Tensor]:
    """The changes of all trainable parameters in one step of AdamW without weight decay."""
    before = [parameter.detach().clone() for parameter in adapted.trainable]
    recipe = tiny.recipe(1, 8, weight_decay=0.0, warmup_epochs=0, schedule_lag=0)
    factors = [factor] * len(adapted.adapter.stacks)
    fit(
        Training(
            adapted.network, adapted.trainable, tiny.split(8), recipe, tiny.pixels(), seed=0, factors=factors
        )
    )
    return [after.detach() - held for after, held in zip(adapted.trainable, before, strict=True)]


@pytest.mark.parametrize("factor", [0.1, 3.0])
@pytest.mark.parametrize("bits", [1, 32])
def test_the_first_step_of_matrices_is_longer_by_the_factor_and_that_of_the_rest_is_not(
    factor: float, bits: int
) -> None:
    """AdamW's first step is lr * g / (|g| + eps), so it is proportional to the learning rate."""
    model = tiny.model_spec("bottleneck", bits=bits, bias=True)
    plain, scaled = (one_step(tiny.quantized_model(model), value) for value in (1.0, factor))
    matrices = len(tiny.quantized_model(model).adapter.stacks)
    assert 0 < matrices < len(plain)
    for number, (one, other) in enumerate(zip(plain, scaled, strict=True)):
        expected = one * factor if number < matrices else one
        torch.testing.assert_close(other, expected, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("value", ["-0.1", "2", "nan"])
def test_a_start_out_of_range_is_refused(value: str) -> None:
    assert "start" in error_of(quickly("sweep", "--dry-run", f"start={value}"))


def test_a_run_with_a_start_is_stored_evaluated_and_reported(tmp_path: Path, few_images: list[str]) -> None:
    one = [*few_images, "adapter=lora", "hidden=2", "scale=10", "train.epochs=2"]
    done = quickly(
        "sweep", "--store", tmp_path, *one, "start=0,0.02", "matrix_lr=1,3", "launcher=local", "--json"
    )
    rows = json_lines(done.stdout)
    assert {(row["start"], row["matrix_lr"]) for row in rows} == {(s, r) for s in (0, 0.02) for r in (1, 3)}
    assert len({row["predictions"] for row in rows}) == 4, "each setting makes a difference"
    assert quickly("eval", "--all", "--store", tmp_path).returncode == 0
    report = quickly("report", "--store", tmp_path).stdout
    assert "start" in report
    assert "matrix_lr" in report


def test_the_stacks_of_matrices_come_first_among_the_trainable_parameters() -> None:
    """On this order `factors` of a training rely."""
    for name in ADAPTERS:
        adapted = tiny.quantized_model(tiny.model_spec(name))
        stacks = [stack.latent for stack in adapted.adapter.stacks]
        assert all(one is other for one, other in zip(stacks, adapted.trainable, strict=False))
