import dataclasses
from itertools import chain

import pytest
import torch

from petl_bench import adapters
from petl_bench.adapters import ADAPTERS, Shape
from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.model.heads import HEADS
from petl_bench.types import AdapterSpec
from tests import tiny
from tests.agreeing import check_reload
from tests.test_methods import reference

DIM, DEPTH = 48, 2  # of tests.tiny.BACKBONE
every_adapter = pytest.mark.parametrize("name", list(ADAPTERS))
LOW_RANK = ["adaptformer", "lora"]


def attached(name, hidden=4, scale=1.0, quantized=True, settings=None):
    network, sites = families.build(tiny.BACKBONE)
    torch.manual_seed(0)
    parts = adapters.attach(name, settings or {}, sites, Shape(hidden, scale, quantized))
    return network.eval(), parts


def some_images(count=4):
    return torch.from_numpy(tiny.split(count).images).float() / 255


@every_adapter
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.sampled(each=2)
def test_attaching_leaves_the_backbone_as_it_was(name, quantized):
    network, sites = families.build(tiny.BACKBONE)
    originals = {id(p): (p, p.detach().clone()) for p in network.parameters()}
    parts = adapters.attach(name, {}, sites, Shape(4, 1.0, quantized))
    after = {id(p): p for p in network.parameters()}
    for key, (parameter, value) in originals.items():
        assert after[key] is parameter
        assert torch.equal(parameter, value)
    if parts.replacement is not None:
        assert originals.keys() == after.keys()
        after = {id(p): p for p in parts.replacement.network.parameters()}
        originals = {}
    declared = [*(matrix.weight for matrix in parts.matrices.values()), *chain(*parts.floats.values())]
    assert originals.keys() <= after.keys()
    fixed = [matrix.weight for matrix in parts.fixed.values()]
    assert after.keys() - originals.keys() <= {id(parameter) for parameter in [*declared, *fixed]}
    assert {id(p) for p in after.values() if p.requires_grad} == {id(parameter) for parameter in declared}
    assert all(matrix.bias is None for matrix in parts.matrices.values())


@pytest.mark.parametrize("name", [name for name in ADAPTERS if getattr(reference(name), "IDENTITY", True)])
def test_unquantized_adapter_starts_as_the_frozen_backbone(name):
    # `up` is zero at 32 bits, so that the scale does not matter.
    images = some_images()
    frozen, _ = families.build(tiny.BACKBONE)
    with torch.no_grad():
        expected = frozen.eval()(images)
        found = attached(name, scale=100.0, quantized=False)[0](images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOW_RANK)
def test_a_trained_adapter_changes_the_features(name):
    images = some_images()
    network, parts = attached(name, quantized=False)
    with torch.no_grad():
        before = network(images)
        for role, matrix in parts.matrices.items():
            if role.endswith("up"):
                # Not a constant: layer norm takes away what all dimensions share.
                matrix.weight.normal_(std=0.1)
        assert (network(images) - before).abs().max() > 1e-2


@pytest.mark.parametrize("name", LOW_RANK)
def test_scale_multiplies_what_the_adapter_adds(name):
    # By the formulas of AdaptFormer and LoRA, s * up(...) with s = 0.5 equals 1 * (0.5 up)(...).
    images = some_images()
    small, parts = attached(name, scale=0.5)
    large, twins = attached(name, scale=1.0)
    with torch.no_grad():
        for role, matrix in parts.matrices.items():
            matrix.weight.mul_(100)
            factor = 0.5 if role.endswith("up") else 1.0
            twins.matrices[role].weight.copy_(factor * matrix.weight)
        torch.testing.assert_close(small(images), large(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LOW_RANK)
def test_initialization(name):
    # Released code of arXiv 2307.16867: a quantized up is normal of std 1e-3, cut off at 2e-3, and at 32 bits
    # it is zero; down is that of torch.nn.Linear, uniform within 1 / sqrt(inputs).
    _, parts = attached(name, hidden=32, quantized=True)
    ups = torch.cat([m.weight.flatten() for role, m in parts.matrices.items() if role.endswith("up")])
    downs = torch.cat([m.weight.flatten() for role, m in parts.matrices.items() if role.endswith("down")])
    assert ups.abs().max() <= 2e-3
    # Truncated at 2, a standard normal has variance 1 - 4 * pdf(2) / (2 * cdf(2) - 1) = 0.7737, std 0.8796.
    # With 3,000 draws or more, 5 standard errors are about 5 %.
    assert ups.std().item() == pytest.approx(0.8796e-3, rel=0.05)
    bound = DIM**-0.5
    assert downs.abs().max() <= bound
    assert downs.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)  # std of a uniform
    _, parts = attached(name, hidden=32, quantized=False)
    assert not any(m.weight.any() for role, m in parts.matrices.items() if role.endswith("up"))


@pytest.mark.parametrize("name", LOW_RANK)
def test_dropout_is_a_tenth_by_default_and_may_be_set(name):
    def rates(settings):
        network, _ = attached(name, settings=settings)
        return {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} - {0.0}

    assert rates({}) == {0.1}  # both adapters in the released code of arXiv 2307.16867
    assert rates({"dropout": 0.25}) == {0.25}
    assert rates({"dropout": 0.0}) == set()


# Order of tensors in the released files (tests/reference/released.py): in each block AdaptFormer down, up;
# LoRA q.down, q.up, v.down, v.up.
ORDER = {
    "linear": [],
    "adaptformer": ["0.down", "0.up", "1.down", "1.up"],
    "lora": [f"{i}.{role}.{part}" for i in (0, 1) for role in ("q", "v") for part in ("down", "up")],
}


@pytest.mark.parametrize("name", list(ORDER))
def test_matrices_are_in_the_order_of_the_released_files(name):
    _, parts = attached(name, hidden=3)
    assert list(parts.matrices) == ORDER[name]
    assert parts.floats == {}
    shapes = {"down": (3, DIM), "up": (DIM, 3)}  # codes are row-major (out, in)
    for role, matrix in parts.matrices.items():
        assert tuple(matrix.weight.shape) == shapes[role.split(".")[-1]]


@every_adapter
def test_stored_tensors_follow_the_order_of_the_matrices(name):
    adapted = tiny.quantized_model(tiny.model_spec(name, bits=2))
    entries = [tensor.entry for tensor in adapted.file({}).adapter]
    adapter = adapted.adapter
    expected = [*adapter.matrices, *adapter.attached.codes, *adapter.floats]
    assert [entry.name for entry in entries] == expected
    assert all(entry.bits == 2 for entry in entries[: len(adapted.adapter.matrices)])


@every_adapter
def test_trainable_parameters_are_all_that_require_gradients(name):
    adapted = tiny.quantized_model(tiny.model_spec(name))
    needing = {id(p) for p in adapted.network.parameters() if p.requires_grad}
    needing |= {id(p) for p in adapted.adapter.attached.unstored}
    stacked = {id(stack.latent) for stack in (*adapted.adapter.stacks, *adapted.head.stacks)}
    assert needing | stacked == {id(p) for p in adapted.trainable}
    assert len(adapted.trainable) == len(needing | stacked)
    assert all(p.requires_grad for p in adapted.trainable)


@every_adapter
def test_foreign_setting_is_refused(name):
    with pytest.raises(UserError, match=f"{name} has no setting 'droput'"):
        attached(name, settings={"droput": 0.1})


@every_adapter
def test_misspelt_adapter_offers_the_right_one(name):
    with pytest.raises(UserError, match=f"did you mean.*'{name}'"):
        attached(name[:-1])


def test_unknown_adapter_of_a_model_is_refused():
    spec = dataclasses.replace(tiny.model_spec(), adapter=AdapterSpec("adaptformre"))
    with pytest.raises(UserError, match="did you mean 'adaptformer'"):
        assemble(spec)


@pytest.mark.parametrize("hidden", [0, -1])
@pytest.mark.parametrize("name", LOW_RANK)
def test_no_hidden_units_are_refused(name, hidden):
    with pytest.raises(UserError, match=f"hidden={hidden}"):
        attached(name, hidden=hidden)


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
@pytest.mark.parametrize("name", LOW_RANK)
def test_impossible_dropout_is_refused(name, dropout):
    with pytest.raises(UserError, match=str(dropout)):
        attached(name, settings={"dropout": dropout})


@pytest.mark.parametrize("bits", [1, 3, 32])
@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("name", ["linear", "bitfit", *LOW_RANK])
@pytest.mark.sampled(each=2)
def test_a_reloaded_model_gives_the_logits_of_the_trained_one(name, head, bits):
    # At 32 bits the released code of arXiv 2307.16867 saves only the head, which breaks a reloaded run.
    check_reload(tiny.model_spec(name, head, bits, scale=3.0, dropout=0.1), epochs=4)


def test_a_file_of_another_shape_is_refused():
    file = tiny.quantized_model(tiny.model_spec(hidden=4)).file({})
    for other in (
        tiny.model_spec(hidden=5),
        tiny.model_spec(bits=2),
        tiny.model_spec("lora"),
        tiny.model_spec("linear"),
        tiny.model_spec(head="binary"),
    ):
        with pytest.raises(UserError, match=r"here: holds"):
            restore(other, file, "here")


def test_a_network_from_scratch_reduces_images_and_never_enlarges_them() -> None:
    images = some_images()
    logits = {}
    for side in (16, 32, 64):  # the images have 32 x 32 pixels
        spec = tiny.model_spec("scratch", bits=32, side=side)
        logits[side] = assemble(spec, seed=3).network.eval()(images)
    torch.testing.assert_close(logits[64], logits[32], rtol=0, atol=0)
    assert (logits[16] - logits[32]).abs().max() > 1e-3
