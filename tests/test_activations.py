"""What is kept for the backward pass: fewer bytes, the same outputs, and gradients as near as promised."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from petl_bench.backbones.activations import (
    LowBitGELU,
    OutputSavingLayerNorm,
    derivative_codes,
    pack_codes,
    unpack_codes,
)
from petl_bench.config import plan
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.run.metadata import recipe_hash
from petl_bench.types import BackboneSpec, run_id, spec_to_dict, stored_id
from tests import tiny
from tests.made import WEIGHTS

BATCH, TOKENS, DIM, DEPTH = 8, 17, 48, 3
BACKBONE = BackboneSpec(
    "vit_tiny_patch16_224", "random", 32, {"patch_size": 8, "embed_dim": DIM, "depth": DEPTH, "num_heads": 3}
)
IMAGES = torch.from_numpy(tiny.split(BATCH).images).float() / 255
KINDS = ("full", "exact", "4bit", "2bit")


def model(kind, adapter="lora", backbone=BACKBONE, precision="fp32", **settings):
    adapted = assemble(tiny.model_spec(adapter, bits=32, backbone=backbone, **settings), 3, 0.0, kind)
    with torch.no_grad():
        for name, value in adapted.network.named_parameters():
            if "norm" in name:  # an affine norm, as trained backbones have it
                value.copy_(torch.linspace(0.5, 1.5, len(value)) - float("bias" in name))
    adapted.prepare(precision)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in adapted.trainable:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    adapted.network.train()
    return adapted


def kept(adapted):
    """Bytes of all storages that a forward pass keeps for the backward pass, but for the model's own."""
    own = {p.untyped_storage().data_ptr() for p in adapted.network.parameters()}
    own |= {p.untyped_storage().data_ptr() for p in adapted.trainable}
    found = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = F.cross_entropy(adapted.network(IMAGES), torch.arange(BATCH) % tiny.CLASSES)
    total = sum(storage.nbytes() for storage in found.values())
    loss.backward()
    return total


def test_bytes_are_saved_where_the_formula_says():
    full, exact, four, two = (kept(model(kind)) for kind in KINDS)
    # Norms before qkv, whose input LoRA keeps: x and the mean of each token; the first block's input has no
    # gradient.
    assert full - exact == 4 * (DEPTH - 1) * BATCH * TOKENS * (DIM + 1)
    # Of GELU's input, 4 * DIM floats a token, half a byte or a quarter of one stay; the last block has one
    # token.
    values = BATCH * ((DEPTH - 1) * TOKENS + 1) * 4 * DIM
    assert exact - four == values * 7 // 2
    assert exact - two == values * 15 // 4


def test_norms_whose_output_nobody_keeps_stay_as_they_are():
    assert kept(model("exact", "adaptformer")) == kept(model("full", "adaptformer"))


@pytest.mark.parametrize(
    ("family", "kind"),
    # ConvNeXt has no norm before a linear that reads a stream.
    [(f, kind) for f in tiny.WITH_LINEARS for kind in KINDS[1:] if (f, kind) != ("ConvNeXt", "exact")],
)
def test_outputs_are_the_same(kind, family):
    backbone = tiny.FAMILIES[family]
    with torch.no_grad():
        full, other = (model(k, backbone=backbone).network(IMAGES) for k in ("full", kind))
    torch.testing.assert_close(other, full, rtol=0, atol=1e-6)


def gradients(adapted):
    F.cross_entropy(adapted.network(IMAGES), torch.arange(BATCH) % tiny.CLASSES).backward()
    return torch.cat([weight.grad.flatten() for weight in adapted.trainable])


@pytest.mark.parametrize("adapter", ["lora", "ssf", "bitfit", "full", "sketch"])
def test_exact_gradients_are_those_of_torch(adapter):
    expected, found = (gradients(model(kind, adapter)) for kind in ("full", "exact"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("kind", ["4bit", "2bit"])
def test_a_step_against_an_approximate_gradient_goes_down(kind):
    expected, found = (gradients(model(k)) for k in ("full", kind))
    assert 0 < F.cosine_similarity(found, expected, dim=0) < 1 - 1e-9


def test_norms_are_left_alone_where_the_division_would_lose_digits():
    adapted = assemble(tiny.model_spec("lora", bits=32, backbone=BACKBONE), 3, 0.0, "exact")
    norms = [module for module in adapted.network.modules() if isinstance(module, OutputSavingLayerNorm)]
    before_qkv, before_fc1 = norms[0], norms[1]
    assert (before_qkv.from_output, before_fc1.from_output) == (True, False)  # fc1 is not adapted
    with torch.no_grad():
        before_qkv.bias[3] = 101 * before_qkv.weight[3]
        assert not before_qkv.invertible()
        before_qkv.bias[3] = before_qkv.weight[3] = 0
        assert not before_qkv.invertible()


def test_in_bfloat16_norms_keep_their_input():
    found, expected = (gradients(model(kind, precision="bf16")) for kind in ("exact", "full"))
    assert torch.equal(found, expected)


def slope(module, x):
    x = x.clone().requires_grad_()
    module(x).sum().backward()
    return x.grad


def test_the_error_of_a_4_bit_derivative_is_half_a_level():
    x = torch.linspace(-9, 9, 10_001)
    error = slope(LowBitGELU(4), x) - slope(nn.GELU(), x)
    # 16 levels over [-0.129, 1.129]
    half = (1.129 + 0.129) / 15 / 2
    assert half * 0.99 < error.abs().max() < half * 1.001
    assert derivative_codes(x, 4).unique().tolist() == list(range(16))


def test_the_2_bit_derivative_is_that_of_its_source():
    x = torch.tensor([-4.0, -3.1, -0.1, 0.0, 3.1, 3.2])
    expected = [0.0, -0.0492226, -0.0492226, 1.0487406, 1.0487406, 1.0]  # LowMemoryBP, ReGELU2
    torch.testing.assert_close(slope(LowBitGELU(2), x), torch.tensor(expected), rtol=0, atol=1e-6)


def test_the_forward_pass_is_gelu_and_the_gradient_goes_through():
    x = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for bits in (2, 4):
        assert torch.equal(LowBitGELU(bits)(x), F.gelu(x))
        assert slope(LowBitGELU(bits), x).shape == x.shape


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 4096])
def test_codes_survive_packing(bits, count):
    values = torch.randint(1 << bits, (count,), generator=torch.Generator().manual_seed(1)).byte()
    held = pack_codes(values, bits)
    assert held.dtype == torch.uint8
    assert len(held) == math.ceil(count * bits / 8)
    assert torch.equal(unpack_codes(held, bits)[:count], values)


def test_off_it_is_the_run_that_it_was():
    common = ["sweep=none", "task=digits", "scale=1"]
    (spec,), (other,) = (plan([*common, *more]).runs for more in ([], ["train.activations=2bit"]))
    old = spec_to_dict(spec)
    del old["train"]["activations"]
    assert stored_id(old, WEIGHTS) == run_id(spec, WEIGHTS) != run_id(other, WEIGHTS)
    assert recipe_hash(spec) != recipe_hash(other)
    with pytest.raises(UserError, match="full, exact, 4bit, 2bit"):
        plan([*common, "train.activations=3bit"])


def test_timms_gelu_is_replaced_too():
    network = assemble(
        tiny.model_spec("adaptformer", backbone=tiny.FAMILIES["ConvNeXt"]), activations="4bit"
    ).network
    assert sum(isinstance(module, LowBitGELU) for module in network.modules()) == 4  # one a block


def test_a_backbone_without_anything_to_replace_is_refused():
    backbone = tiny.FAMILIES["ConvNeXt"]
    with pytest.raises(UserError, match=r"train.activations=exact finds nothing to replace"):
        assemble(tiny.model_spec("adaptformer", backbone=backbone), activations="exact")


def test_without_gradients_no_derivative_is_computed(monkeypatch):
    monkeypatch.setattr(
        "petl_bench.backbones.activations.derivative_codes", lambda *given: pytest.fail("nobody will ask")
    )
    with torch.no_grad():
        assert torch.equal(LowBitGELU(4)(torch.ones(3)), F.gelu(torch.ones(3)))
