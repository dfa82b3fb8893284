"""Heads of few bits per weight: what they store, how many bytes that takes, and that runs with them agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from petl_bench.quantizers import FakeQuantize
from tests import tiny
from tests.conftest import json_lines, quickly

BITS = {"binary": 1, "bits2": 2, "bits3": 3, "bits4": 4, "bits8": 8}


@pytest.mark.parametrize("head", BITS)
def test_a_head_is_one_matrix_of_codes_of_its_latent_weight(head: str) -> None:
    bits = BITS[head]
    adapted = tiny.quantized_model(tiny.model_spec("linear", head, 32))
    (stored,) = adapted.head.store()
    assert (stored.entry.name, stored.entry.shape, stored.entry.bits) == ("weight", (tiny.CLASSES, 48), bits)
    assert stored.entry.nbytes == -(-tiny.CLASSES * 48 * bits // 8) + 8
    weight = adapted.head.latents["weight"].numpy().astype(np.float64)
    thresholds = FakeQuantize("l1_median", bits).thresholds.numpy()
    z = (weight - weight.mean()) / (weight.std(ddof=1) + 1e-5)
    near = np.abs(z[..., None] - thresholds).min(-1) < 1e-4  # the cell of these is a matter of rounding
    np.testing.assert_array_equal(stored.codes[~near], (z[..., None] > thresholds).sum(-1)[~near])
    features = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    expected = features @ FakeQuantize("l1_median", bits).rounded(adapted.head.latents["weight"]).T
    torch.testing.assert_close(adapted.probe()(features), expected)


def test_runs_of_few_bits_are_stored_and_evaluated(tmp_path: Path, few_images: list[str]) -> None:
    one = [*few_images, "adapter=linear", "train.epochs=3", "head=linear,bits2,bits4"]
    done = quickly("sweep", "--store", tmp_path, *one, "launcher=local", "--json")
    rows = {row["head"]: row for row in json_lines(done.stdout)}
    weights = 64 * 10  # the bundled backbone has 64 features, the task has 10 classes
    assert rows["linear"]["bytes_head"] == 4 * (weights + 10)
    assert rows["bits4"]["bytes_head"] <= weights * 4 / 8 + 8
    assert rows["bits2"]["bytes_head"] <= weights * 2 / 8 + 8
    assert quickly("eval", "--all", "--store", tmp_path).returncode == 0
