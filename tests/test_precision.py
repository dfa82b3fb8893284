"""Precisions of the frozen backbone; what is done once instead of again: stacks, merged updates, features."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from petl_bench.adapters import ADAPTERS
from petl_bench.adapters.delta import DeltaLinear
from petl_bench.backbones.precision import Int8Linear, lower
from petl_bench.backbones.sites import FirstToken, Sites
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.quantizers import FakeQuantize
from petl_bench.train import Compiled, Pixels, Training, fit, outputs
from tests import tiny
from tests.conftest import long

CPU = torch.device("cpu")
TRAINING_THE_BACKBONE = ("bitfit", "full", "ln_tune")
LOWER = {"bf16": 0.02, "int8": 0.06}  # relative distance of logits from float32; 2**-8 and 1/127 a product
PAIRS = [(a, p) for a in ADAPTERS for p in LOWER if p != "int8" or a not in TRAINING_THE_BACKBONE]
# Every method on ViT; the other families with one of branches and one of linears.
CELLS = [
    (adapter, precision, family)
    for adapter, precision in PAIRS
    for family in tiny.FAMILIES
    if family == "VisionTransformer" or adapter in ("linear", "adaptformer", "lora", "bitfit", "full", "ssf")
]


def images(count=16):
    return torch.from_numpy(tiny.split(count, seed=5).images).float() / 255


def trained(spec, precision="fp32", epochs=2):
    adapted = assemble(spec, seed=3)
    adapted.prepare(precision)
    recipe = tiny.recipe(epochs, 8, warmup_epochs=0)
    fit(Training(adapted.network, adapted.trainable, tiny.split(24), recipe, tiny.pixels(), seed=0))
    return adapted


@pytest.mark.parametrize(("adapter", "precision", "family"), CELLS)
@pytest.mark.sampled(each=2)
def test_logits_and_gradients_of_lower_precisions_are_near_those_of_float32(adapter, family, precision):
    spec = tiny.model_spec(adapter, bits=2, backbone=tiny.FAMILIES[family])
    labels = torch.from_numpy(tiny.split(16, seed=5).labels)
    found = {}
    for name in ("fp32", precision):
        with tiny.skipped_where_refused():
            adapted = assemble(spec, seed=3)
        adapted.prepare(name)
        logits = adapted.network.eval()(images())
        assert logits.dtype is torch.float32
        F.cross_entropy(logits, labels).backward()
        found[name] = logits.detach(), torch.cat([p.grad.flatten() for p in adapted.trainable])
        assert all(p.dtype is p.grad.dtype is torch.float32 for p in adapted.trainable)
    for exact, near in zip(found["fp32"], found[precision], strict=True):
        assert not torch.equal(exact, near)
        assert (exact - near).norm() <= 3 * LOWER[precision] * exact.norm()


def nudged(name, precision, reloaded):
    """A network whose trained numbers have moved by a thousandth."""
    spec = tiny.model_spec(name, bits=32, scale=1.0)
    adapted = assemble(spec, seed=3)
    adapted.prepare(precision)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapted.adapter.trainable:
            weight.mul_(1 + 1e-3 * torch.randn(weight.shape, generator=generator))
    adapted.materialize()
    return restore(spec, adapted.file({}), "here", precision) if reloaded else adapted.network


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("name", ["pissa", "soka", "corda"])
def test_in_bfloat16_a_small_move_from_a_start_is_no_rounding(name, reloaded):
    """A thousandth is less than half a step of bfloat16: rounded before the subtraction it is lost."""
    exact, network = nudged(name, "fp32", False), nudged(name, "bf16", reloaded)
    pairs = [
        (found, expected)
        for found, expected in zip(network.modules(), exact.modules(), strict=True)
        if isinstance(found, DeltaLinear)
    ]
    assert len(pairs) == 8  # two blocks of qkv, proj, fc1 and fc2
    for found, expected in pairs:
        x = torch.randn(64, expected.linear.in_features, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            update = expected.delta(torch.zeros(1), x)
            near = found.delta(torch.zeros(1, dtype=torch.bfloat16), x.bfloat16())
        assert near.dtype is torch.bfloat16
        assert 0 < (near - update).norm() <= 0.01 * update.norm()


@pytest.mark.parametrize("precision", list(LOWER))
def test_the_frozen_backbone_is_stored_in_the_compute_precision(precision):
    adapted = trained(tiny.model_spec("lora", bits=1), precision)
    frozen = dict(adapted.network.named_parameters())
    assert frozen
    assert {p.dtype for p in frozen.values()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in frozen.values())
    linears = [m for m in adapted.network.modules() if isinstance(m, Int8Linear)]
    # Two blocks of qkv, proj, fc1 and fc2; adapter and head are never among them.
    assert len(linears) == (8 if precision == "int8" else 0)
    assert all(linear.codes.dtype is linear.codes_transposed.dtype is torch.int8 for linear in linears)


@pytest.mark.parametrize("adapter", TRAINING_THE_BACKBONE)
def test_int8_is_refused_where_the_backbone_is_trained(adapter):
    with pytest.raises(UserError, match="precision=int8 needs a frozen backbone"):
        assemble(tiny.model_spec(adapter)).prepare("int8")


@pytest.mark.parametrize("rows", [1, 31, 100])
def test_an_int8_linear_is_the_linear_of_rounded_rows(rows):
    """Against the same arithmetic in float64: codes of both factors, one scale a row, multiplied out."""
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 24), torch.randn(rows, 40)
    x[0] *= 1e-3  # a small row has its own scale
    found_input, gradient = x.clone().requires_grad_(), torch.randn(rows, 24)
    found = Int8Linear(linear)(found_input)
    found.backward(gradient)

    def rounded(matrix):
        scale = (matrix.abs().amax(1, keepdim=True) / 127).bfloat16().double()
        return (matrix.double() / scale).round().clamp(-127, 127) * scale

    weight = linear.weight.detach()
    expected = rounded(x) @ rounded(weight).T + linear.bias.detach().double()
    torch.testing.assert_close(found.detach().double(), expected, rtol=0, atol=1e-5)
    back = rounded(gradient) @ rounded(weight.T).T
    torch.testing.assert_close(found_input.grad.double(), back, rtol=0, atol=1e-5)
    assert (expected - (x @ weight.T + linear.bias)).norm() <= 0.02 * expected.norm()


def test_rows_of_zeros_stay_zeros_in_int8():
    linear = Int8Linear(nn.Linear(8, 8, bias=False))
    assert torch.equal(linear(torch.zeros(2, 8)), torch.zeros(2, 8))


@pytest.mark.parametrize("precision", ["fp32", *LOWER])
@pytest.mark.parametrize("adapter", ["adaptformer", "lora"])
def test_a_reloaded_model_has_the_logits_of_the_trained_one(adapter, precision):
    spec = tiny.model_spec(adapter, bits=1, scale=2.0)
    adapted = trained(spec, precision)
    network = restore(spec, adapted.file({}), "here", precision)
    with torch.no_grad():
        expected, found = adapted.network.eval()(images()), network.eval()(images())
    tolerance = 1e-5 if precision == "fp32" else 1e-2  # what one weight rounded the other way would change
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", tiny.WITH_LINEARS)
@pytest.mark.parametrize("share", [1, 0])
def test_linear_updates_are_merged_for_evaluation(family, share):
    spec = tiny.model_spec("lora", bits=1, scale=2.0, share=share, backbone=tiny.FAMILIES[family])
    adapted = trained(spec)
    network = restore(spec, adapted.file({}), "here")
    plain = assemble(tiny.model_spec("linear", backbone=tiny.FAMILIES[family])).network
    assert [name for name, _ in network.named_modules()] == [name for name, _ in plain.named_modules()]
    with torch.no_grad():
        expected, found = adapted.network.eval()(images()), network.eval()(images())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@pytest.mark.sampled(3)
def test_training_the_head_on_features_is_training_it_through_the_backbone(family, precision):
    spec = tiny.model_spec("linear", head="binary", backbone=tiny.FAMILIES[family])
    data, recipe, pixels = tiny.split(24), tiny.recipe(6, 8, warmup_epochs=0), tiny.pixels()
    losses = []
    for alone in (False, True):
        adapted = assemble(spec, seed=3)
        adapted.prepare(precision)
        model, features = adapted.network, None
        if alone:
            model = adapted.probe()
            features = adapted.features(lambda network: outputs(network, data, pixels))
            assert features.shape[0] == 24
        losses.append(
            fit(Training(model, adapted.trainable, data, recipe, pixels, seed=0, features=features))
        )
        assert adapted.network(images(1)).shape == (1, tiny.CLASSES)  # the head is in its place again
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-4 if precision == "fp32" else 2e-2)
    assert max(losses[0]) - min(losses[0]) > 1e-3


@pytest.mark.parametrize("name", ["adaptformer", "lora", "full"])
@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, True),
        ({"reg_tokens": 2}, True),
        ({"no_embed_class": True}, True),
        ({"global_pool": "avg"}, False),
    ],
)
def test_the_last_block_leaves_out_what_the_head_does_not_read(name, options, first, monkeypatch):
    backbone = replace(tiny.BACKBONE, options=tiny.BACKBONE.options | options)
    spec = tiny.model_spec(name, bits=2, scale=2.0, backbone=backbone)
    labels = torch.from_numpy(tiny.split(16, seed=5).labels)
    found = []
    for spared in (True, False):
        with monkeypatch.context() as patch:
            if not spared:
                patch.setattr(Sites, "drop_unread", lambda self: None)
            adapted = assemble(spec, seed=3)
        assert any(isinstance(m, FirstToken) for m in adapted.network.modules()) == (spared and first)
        adapted.prepare()
        logits = adapted.network(images())
        F.cross_entropy(logits, labels).backward()
        found.append((logits.detach(), torch.cat([p.grad.flatten() for p in adapted.trainable])))
    for spared, whole in zip(*found, strict=True):
        torch.testing.assert_close(spared, whole, rtol=1e-4, atol=1e-6)


def test_grey_pixels_can_be_written_to():
    """As random erasing and mixup do."""
    pixels = Pixels("none", 8, CPU)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    pixels[:, 0] = 1.0
    assert pixels[:, 1:].sum() == 0


def test_a_matrix_of_several_blocks_is_quantized_once_a_pass(monkeypatch):
    adapted = assemble(tiny.model_spec("lora", bits=1, share=0))
    adapted.prepare()
    calls = []
    original = FakeQuantize.forward
    monkeypatch.setattr(
        FakeQuantize, "forward", lambda self, weight: calls.append(weight.shape) or original(self, weight)
    )
    adapted.network(images(2))
    # q.down and v.down in one operation, q.up and v.up in another.
    assert [shape[0] for shape in calls] == [2, 2]


def test_lowering_leaves_the_inputs_and_outputs_in_float32():
    network = nn.Sequential(nn.Linear(4, 3))
    twin = copy.deepcopy(network)
    lower(network, "bf16", CPU)
    x = torch.randn(2, 4)
    assert network(x).dtype is torch.float32
    torch.testing.assert_close(network(x), twin(x), rtol=0, atol=0.05)


@long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler for the CPU")
def test_compiled_training_is_the_same_training(monkeypatch):
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # more are processes that import torch
    one_block = replace(tiny.BACKBONE, options=tiny.BACKBONE.options | {"depth": 1})
    spec = tiny.model_spec("lora", bits=1, scale=2.0, backbone=one_block)
    data, recipe = tiny.split(24), tiny.recipe(3, 8, warmup_epochs=0)
    losses = []
    for mode in ("none", "default"):
        adapted = assemble(spec, seed=3)
        adapted.prepare()
        model = adapted.network if mode == "none" else Compiled(adapted.network, mode)
        losses.append(fit(Training(model, adapted.trainable, data, recipe, tiny.pixels(), seed=0)))
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-4)
