"""What every adapter method must do, without a line of its own but the reference of its formulas."""

import dataclasses
import importlib
import math
from contextlib import nullcontext
from functools import cache
from itertools import chain

import pytest
import torch
import torch.nn.functional as F

from petl_bench import adapters, packing
from petl_bench.adapters import ADAPTERS, Shape
from petl_bench.backbones import families
from petl_bench.backbones.sharing import Resident
from petl_bench.model import assemble, restore
from petl_bench.packing import dump, load
from petl_bench.types import BackboneSpec, method
from tests import tiny
from tests.test_adapter_sizes import LONGEST, overhead_of_the_longest_metadata

DIM, DEPTH = 48, 2  # of tests.tiny.BACKBONE
every_method = pytest.mark.parametrize("name", list(ADAPTERS))
every_family = pytest.mark.parametrize("family", list(tiny.FAMILIES))


@cache
def vit_b16():
    """The backbone without values, to be copied."""
    meta = torch.device("meta")
    with meta:
        return Resident(BackboneSpec("vit_base_patch16_224", "random", 224), "fp32", meta)


def reference(name):
    return importlib.import_module(f"tests.reference.methods.{name}")


FORMS = [(name, form) for name in ADAPTERS for form in ({}, *getattr(reference(name), "OPTIONS", ()))]
every_form = pytest.mark.parametrize(("name", "settings"), FORMS)


def some_images(count=4):
    return torch.from_numpy(tiny.split(count).images).float() / 255


def stirred(adapted, seed=4):
    """Every trained number moved away from its start, as training moves it, so that none hides another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapted.trainable:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return adapted


def model(name, bits=32, family="VisionTransformer", scale=0.5, **settings):
    """A prepared model, or a skip where the method has no use for the family's sites."""
    spec = tiny.model_spec(name, bits=bits, scale=scale, backbone=tiny.FAMILIES[family], **settings)
    with nullcontext() if family == "VisionTransformer" else tiny.skipped_where_refused():
        adapted = assemble(spec, seed=3)
    adapted.prepare()
    return spec, adapted


def bits_of(name, bits):
    """What the method runs at where `bits` are asked for."""
    return method(name).unused.get("bits", bits)


@every_form
def test_forward_and_gradients_agree_with_the_plain_reference(name, settings):
    spec, adapted = model(name, **settings)
    stirred(adapted)
    held = {key: value.clone().requires_grad_() for key, value in adapted.adapter.latents.items()}
    held |= {
        key: [p.detach().clone().requires_grad_() for p in group]
        for key, group in adapted.adapter.floats.items()
    }
    adapted.adapter.attached.encode()
    held |= adapted.adapter.attached.codes
    state = families.build(spec.backbone)[0].state_dict()
    head = adapted.head.latents["weight"], adapted.head.floats["bias"][0].detach()
    heads = spec.backbone.options["num_heads"]
    plain = reference(name).Model(state, held, heads, spec.adapter.settings, spec.scale, spec.hidden, head)
    images = some_images()
    adapted.network.eval()
    found, expected = adapted.network(images), plain.logits(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    labels = torch.arange(len(images)) % spec.classes
    F.cross_entropy(found, labels).backward()
    if expected.requires_grad:
        F.cross_entropy(expected, labels).backward()
    for key, gradient in tiny.gradients(adapted).items():
        if key in held and key not in adapted.adapter.attached.fixed:
            twin = held[key][0].grad if isinstance(held[key], list) else held[key].grad
            assert (gradient - twin).norm() <= 1e-4 * twin.norm(), key


@every_method
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.sampled(each=2)
def test_frozen_weights_stay_untouched(name, quantized):
    spec = tiny.model_spec(name, bits=bits_of(name, 1) if quantized else 32)
    before = {key: value.clone() for key, value in families.build(spec.backbone)[0].state_dict().items()}
    _, sites = families.build(spec.backbone)
    own = dict(sites.parameters)
    parts = adapters.attach(name, spec.adapter.settings, sites, Shape(4, 1.0, quantized))
    tuned = {id(parameter) for parameter in chain(*parts.floats.values())}
    for key, parameter in own.items():
        assert parameter.requires_grad == (id(parameter) in tuned), key
        if id(parameter) not in tuned and parameter.shape == before[key].shape:
            torch.testing.assert_close(parameter.data, before[key], rtol=0, atol=0)


@every_method
def test_starts_at_the_frozen_backbone_where_its_source_says_so(name):
    spec, adapted = model(name, scale=1.0)
    frozen, _ = families.build(spec.backbone)
    images = some_images()
    with torch.no_grad():
        expected = frozen.eval()(images)
        found = adapted.features(lambda network: [network.eval()(images)])
    if getattr(reference(name), "IDENTITY", True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    else:
        assert found.shape != expected.shape or (found - expected).abs().max() > 1e-6


@every_method
@pytest.mark.parametrize(
    ("family", "bits"),
    [("VisionTransformer", bits) for bits in (1, 3, 8, 32)]
    + [(family, bits) for family in tiny.FAMILIES if family != "VisionTransformer" for bits in (1, 32)],
)
@pytest.mark.sampled(each=2)
def test_packed_and_reloaded_it_gives_the_same_logits(name, bits, family):
    spec, adapted = model(name, bits_of(name, bits), family)
    stirred(adapted)
    run = tiny.run_spec(spec, tiny.recipe(), seed=3)
    file = load(dump(adapted.file(packing.describe(run, "0" * 64), code=True)), "here")
    assert packing.interpret(file, lambda label: pytest.fail("not a bundled one"), "here").model == spec
    images = some_images()
    with torch.no_grad():
        expected = adapted.network.eval()(images)
        merged = restore(spec, file, "here").eval()(images)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)


@every_method
def test_a_reloaded_model_computes_in_bfloat16(name):
    spec, adapted = model(name, bits_of(name, 1))
    file = adapted.file({"seed": "3"})
    images = some_images()
    with torch.no_grad():
        expected, found = (
            restore(spec, file, "here", precision).eval()(images) for precision in ("fp32", "bf16")
        )
    # A number in bfloat16 has 8 significant bits.
    assert 0 < (found - expected).norm() <= 0.05 * expected.norm()


@every_form
def test_a_reloaded_model_depends_on_no_random_numbers_of_torch(name, settings, monkeypatch):
    """Frozen random parts, which files do not hold, must not change with the release of torch."""
    spec, adapted = model(name, bits_of(name, 1), **settings)
    file = adapted.file({"seed": "3"})
    images = some_images()
    with torch.no_grad():
        expected = restore(spec, file, "here").eval()(images)
        seed_torch = torch.manual_seed
        # Seed 0 is that of the random weights of this test's backbone.
        monkeypatch.setattr(torch, "manual_seed", lambda seed: seed_torch(seed and seed + 12345))
        found = restore(spec, file, "here").eval()(images)
        _, again = model(name, bits_of(name, 1), **settings)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    first, second = (dump(packing.AdapterFile({}, held.adapter.store(), [])) for held in (adapted, again))
    assert first == second


@every_method
def test_little_more_than_the_payload_is_in_a_file(name):
    spec, adapted = model(name, bits_of(name, 1))
    labelled = dataclasses.replace(
        spec, backbone=dataclasses.replace(spec.backbone, label="convnext_b_in22k")
    )
    file = adapted.file(packing.describe(tiny.run_spec(labelled, tiny.recipe(), 42, LONGEST), "0" * 64))
    assert overhead_of_the_longest_metadata(file) <= packing.MAX_OVERHEAD


@every_method
@every_family
@pytest.mark.sampled(each=2)
def test_gradients_reach_every_trained_tensor(name, family):
    # From a start at zero a factor gets its gradient once the other has moved: two steps.
    _, adapted = model(name, bits_of(name, 1), family)
    optimizer = torch.optim.AdamW(adapted.trainable, lr=1e-3)
    adapted.network.train()
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(adapted.network(some_images(8)), torch.arange(8) % tiny.CLASSES).backward()
        optimizer.step()
    for tensor in adapted.trainable:
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


@every_method
def test_parameters_and_bytes_are_those_of_the_formula(name):
    bits = bits_of(name, 1)
    spec, adapted = model(name, bits)
    matrices, floats = reference(name).counts(DIM, DEPTH, spec.hidden, spec.adapter.settings)
    stored = adapted.adapter.store()
    assert sum(t.entry.count for t in stored if t.codes is not None and t.entry.bits == bits) == matrices
    assert sum(t.entry.count for t in stored if t.values is not None) == floats
    file = adapted.file({})
    codes = sum(math.ceil(t.entry.count * t.entry.bits / 8) + 8 for t in stored if t.codes is not None)
    assert file.bytes_adapter == codes + 4 * floats


@every_method
def test_parameters_on_vit_b16_are_those_its_source_states(name):
    for hidden, chosen, stated, where in reference(name).STATED:
        settings = dataclasses.asdict(ADAPTERS.get(name).config()) | chosen
        sites = vit_b16().copy().sites
        parts = adapters.declare(name, settings, sites, Shape(hidden, 1.0, True))
        found = sum(m.weight.numel() for m in parts.matrices.values())
        found += sum(p.numel() for p in chain(*parts.floats.values()))
        least, most = stated if isinstance(stated, tuple) else (stated, stated)
        assert least <= found <= most, where
