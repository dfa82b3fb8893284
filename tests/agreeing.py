"""Checks that hold for every method: agreement with its reference, initial state, packing and reloading."""

import pytest
import torch
import torch.nn.functional as F

from petl_bench import packing
from petl_bench.backbones import families
from petl_bench.model import restore
from petl_bench.packing import dump, load
from petl_bench.train import Training, fit
from tests import tiny
from tests.test_methods import model, reference, some_images, stirred


def check(name, **settings):
    """Compare outputs and gradients with the plain reference on tests.tiny.BACKBONE; return the model."""
    spec, adapted = model(name, **settings)
    stirred(adapted)
    adapter, head = adapted.adapter, adapted.head
    held = {key: value.clone().requires_grad_() for key, value in adapter.latents.items()}
    held |= {
        key: [p.detach().clone().requires_grad_() for p in group] for key, group in adapter.floats.items()
    }
    state = families.build(spec.backbone)[0].state_dict()
    ends = head.latents["weight"], head.floats["bias"][0].detach()
    heads = spec.backbone.options["num_heads"]
    plain = reference(name).Model(state, held, heads, spec.adapter.settings, spec.scale, spec.hidden, ends)
    images = some_images()
    found, expected = adapted.network.eval()(images), plain.logits(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    labels = torch.arange(len(images)) % spec.classes
    F.cross_entropy(found, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for key, group in adapter.floats.items():
        for parameter, twin in zip(group, held[key], strict=True):
            assert (parameter.grad - twin.grad).norm() <= 1e-4 * twin.grad.norm() + 1e-9, key
    return adapted


def check_initial(spec, adapted):
    """Check that a new model computes the features of the frozen backbone."""
    frozen, _ = families.build(spec.backbone)
    images = some_images()
    with torch.no_grad():
        expected = frozen.eval()(images)
        found = adapted.features(lambda network: [network.eval()(images)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def check_reload(spec, epochs):
    """Train a model, pack it, load the bytes into a fresh model, and compare the logits of both."""
    adapted = tiny.quantized_model(spec, seed=9)
    recipe, images = tiny.recipe(epochs, 8, warmup_epochs=0, lr=1e-2), some_images()
    with torch.no_grad():
        fresh = adapted.network.eval()(images)
    fit(Training(adapted.network, adapted.trainable, tiny.split(16), recipe, tiny.pixels(), seed=0))
    run = tiny.run_spec(spec, recipe, seed=9)
    file = load(dump(adapted.file(packing.describe(run, "0" * 64))), "here")
    facts = packing.interpret(file, lambda label: pytest.fail("the backbone is not a bundled one"), "here")
    assert facts.model == spec
    with torch.no_grad():
        trained = adapted.network.eval()(images)
        reloaded = restore(facts.model, file, "here").eval()(images)
    torch.testing.assert_close(reloaded, trained, rtol=0, atol=1e-5)
    assert (trained - fresh).abs().max() > 1e-2  # a file of the fresh model would not pass
