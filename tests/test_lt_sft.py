"""Sparse deltas: which weights are chosen, what a choice costs, and that it comes back from the file."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from petl_bench import packing
from petl_bench.adapters.lt_sft import drawn, greatest
from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.packing import dump, load
from petl_bench.types import BackboneSpec
from tests import tiny

WEIGHTS = 2 * 12 * 48 * 48  # of the linears of tests.tiny.BACKBONE
IMAGES = torch.from_numpy(tiny.split(8).images).float() / 255


class Training:
    """A calibration that trains by plain gradient descent and remembers what it saw."""

    def __init__(self, network):
        self.network = network
        self.moved = None

    def fit(self, parameters, epochs):
        self.epochs = epochs
        self.trained = [parameter.requires_grad for parameter in parameters]
        begin = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            self.logits = self.network.eval()(IMAGES)
        for _ in range(2):
            F.cross_entropy(self.network(IMAGES), torch.arange(8) % tiny.CLASSES).backward()
            with torch.no_grad():
                for parameter in parameters:
                    parameter.sub_(parameter.grad, alpha=0.1)
                    parameter.grad = None
        pairs = zip(parameters, begin, strict=True)
        self.moved = torch.cat([(now - start).abs().flatten() for now, start in pairs]).detach()


def calibrated(bits=32, seed=3, **settings):
    spec = tiny.model_spec("lt_sft", bits=bits, **{"density": 0.01} | settings)
    adapted = assemble(spec, seed)
    adapted.prepare()
    training = Training(adapted.network)
    adapted.adapter.attached.calibrate(training)
    return spec, adapted, training


def changed_positions(adapted):
    """Of all weights of all linears, one after another, those that have a change."""
    found, first = [], 0
    for block in adapted.network.blocks:
        proj = getattr(block.attn.proj, "module", block.attn.proj)  # the last block keeps one token
        for linear in (block.attn.qkv, proj, block.mlp.fc1, block.mlp.fc2):
            found.append(first + linear.delta.positions)
            first += linear.linear.weight.numel()
    assert first == WEIGHTS
    return torch.cat(found)


def test_the_weights_that_moved_most_are_chosen_over_all_linears():
    _, adapted, training = calibrated(epochs=7)
    assert training.epochs == 7
    assert training.trained == [True] * 8
    expected = sorted(np.argsort(-training.moved.numpy(), kind="stable")[: 64 * 9])  # 1 % of 55,296, by 64
    assert changed_positions(adapted).tolist() == expected


@pytest.mark.parametrize("bits", [1, 32])
def test_a_calibration_leaves_the_backbone_as_it_was(bits):
    spec, adapted, training = calibrated(bits)
    fresh = families.build(spec.backbone)[0].state_dict()
    for name, value in adapted.network.named_parameters():
        plain = name.replace("linear.", "").replace("module.", "")
        if plain in fresh:
            assert torch.equal(value, fresh[plain]), name
            assert not value.requires_grad
    # Phase (a) begins at the backbone, though quantized changes begin near zero only.
    frozen = families.build(spec.backbone)[0].eval()
    with torch.no_grad():
        expected = frozen(IMAGES) @ adapted.head.latents["weight"].T + adapted.head.floats["bias"][0]
    torch.testing.assert_close(training.logits, expected, rtol=0, atol=1e-6)


def reloaded(spec, adapted, seed):
    run = tiny.run_spec(spec, tiny.recipe(), seed=seed)
    file = load(dump(adapted.file(packing.describe(run, "0" * 64), code=True)), "here")
    return restore(spec, file, "here").eval()


@pytest.mark.parametrize("selection", ["moved", "random"])
def test_the_choice_comes_back_from_the_file(selection):
    if selection == "moved":
        spec, adapted, _ = calibrated()
    else:
        spec = tiny.model_spec("lt_sft", bits=32, density=0.01, selection="random")
        adapted = assemble(spec, 3)
        adapted.prepare()
        assert adapted.adapter.attached.calibrate is None
        assert not adapted.adapter.attached.codes
    with torch.no_grad():
        adapted.trainable[0].normal_(generator=torch.Generator().manual_seed(0))
        expected = adapted.network.eval()(IMAGES)
        torch.testing.assert_close(reloaded(spec, adapted, 3)(IMAGES), expected, rtol=1e-4, atol=1e-4)
        if selection == "random":
            assert (reloaded(spec, adapted, 4)(IMAGES) - expected).abs().max() > 1e-2


def test_a_choice_costs_little_more_than_its_entropy():
    backbone = BackboneSpec("vit_tiny_patch16_224", "random", 32, {"patch_size": 8})
    adapted = assemble(tiny.model_spec("lt_sft", bits=1, density=0.001, backbone=backbone))
    adapted.prepare()
    file = load(dump(adapted.file({"seed": "0"}, code=True)), "here")
    sizes = zip(file.adapter, file.sections[0].sizes, strict=True)
    found = sum(size for tensor, size in sizes if tensor.entry.name.startswith("gaps"))
    weights = 12 * 12 * 192**2
    chosen = 64 * round(0.001 * weights / 64)
    p = chosen / weights
    entropy = weights * -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) / 8
    assert entropy <= found <= 1.08 * entropy + 3 * 8  # planes have unused statistics


def test_of_equal_values_the_first_are_the_greatest():
    values = torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0, 0.0])
    assert greatest(values, 3).tolist() == [0, 1, 3]
    assert greatest(values, 4).tolist() == [0, 1, 2, 3]
    assert greatest(torch.zeros(5), 2).tolist() == [0, 1]


@pytest.mark.parametrize("count", [100, 5000, 9999])
def test_draws_are_distinct_and_even(count):
    found = drawn(5, count, 10_000)
    assert len(set(found.tolist())) == count
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] < found[-1] < 10_000
    # The mean of numbers drawn without putting back has this deviation around 4999.5.
    std = math.sqrt((10_000**2 - 1) / 12 / count * (10_000 - count) / 9_999)
    assert abs(found.mean() - 4999.5) < 4 * std
    assert drawn(6, count, 10_000).tolist() != found.tolist()


@pytest.mark.parametrize(
    "settings", [{"density": 0.0}, {"density": 0.6}, {"selection": "most"}, {"epochs": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        assemble(tiny.model_spec("lt_sft", **settings))
