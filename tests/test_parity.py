"""petl_bench against the independent plain-PyTorch reference of tests/reference."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from petl_bench.backbones.families import build
from petl_bench.train import Training, fit
from tests import tiny
from tests.reference.adapted import Reference
from tests.reference.training import cross_entropy, train

SCALE = 2.0
pairs = pytest.mark.parametrize("bits", [1, 2, 4, 8, 32])
heads = pytest.mark.parametrize("head", ["linear", "binary"])
adapters = pytest.mark.parametrize("adapter", ["adaptformer", "lora"])


def both(adapter, head, bits):
    """The adapted model and the reference with its initial weights copied in."""
    adapted = tiny.quantized_model(tiny.model_spec(adapter, head, bits, scale=SCALE), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in tiny.values(adapted).values():
            if not parameter.any():  # `up` at 32 bits: from zero, no gradient would reach `down`
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    latent = {name: value.clone().requires_grad_() for name, value in tiny.values(adapted).items()}
    state = copy.deepcopy(build(tiny.BACKBONE)[0].state_dict())
    heads = tiny.BACKBONE.options["num_heads"]
    return adapted, Reference(state, latent, heads, adapter, head, bits, SCALE)


def batch(count=8):
    data = tiny.split(count, seed=5)
    return data, torch.from_numpy(data.images).float() / 255, torch.from_numpy(data.labels)


@pairs
@heads
@adapters
@pytest.mark.sampled(8)
def test_logits_and_gradients_agree(adapter, head, bits):
    adapted, reference = both(adapter, head, bits)
    _, images, labels = batch()
    found, expected = adapted.network(images), reference.logits(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    F.cross_entropy(found, labels).backward()
    cross_entropy(expected, labels).backward()
    for name, gradient in tiny.gradients(adapted).items():
        twin = reference.trainable[name]
        distance = (gradient - twin.grad).norm() / twin.grad.norm()
        assert distance <= 1e-5, name


class InDouble(nn.Module):
    def __init__(self, adapted):
        super().__init__()
        tiny.in_double(adapted)
        self.network = adapted.network

    def forward(self, images):
        return self.network(images.double())


@pairs
@heads
@adapters
@pytest.mark.sampled(8)
def test_twenty_training_steps_agree(adapter, head, bits):
    """In float64: float32 rounding moves latents across thresholds within a few steps, by either code."""
    adapted, reference = both(adapter, head, bits)
    reference.state = {name: value.double() for name, value in reference.state.items()}
    reference.trainable = {
        name: latent.detach().double().requires_grad_() for name, latent in reference.trainable.items()
    }
    # 11 images in batches of 8: one step an epoch, so that fit's mean loss of an epoch is the loss of a step,
    # and the three images left out depend on the order.
    data, images, labels = batch(11)
    model = InDouble(adapted)
    losses = fit(Training(model, adapted.trainable, data, tiny.recipe(20, 8), tiny.pixels(), seed=6))
    expected = train(reference, images.double(), labels, epochs=20, batch_size=8, weight_decay=1e-4, seed=6)
    assert len(losses) == len(expected) == 20
    assert losses == pytest.approx(expected, rel=0, abs=1e-4)
    # The trajectory moves by much more than the tolerance, so its agreement means something.
    assert max(losses) - min(losses) > 1e-2
    for name, parameter in tiny.values(adapted).items():
        twin = reference.trainable[name]
        assert (parameter - twin).norm() / twin.norm() <= 1e-4, name


@pytest.mark.parametrize("bits", [1, 32])
@adapters
def test_data_order_over_several_batches_agrees(adapter, bits):
    adapted, reference = both(adapter, "linear", bits)
    data, images, labels = batch(20)
    losses = fit(Training(adapted.network, adapted.trainable, data, tiny.recipe(5, 6), tiny.pixels(), seed=7))
    steps = train(reference, images, labels, epochs=5, batch_size=6, weight_decay=1e-4, seed=7)
    assert len(steps) == 15  # 20 // 6 = 3 whole batches in each of 5 epochs
    expected = torch.tensor(steps).reshape(5, 3).mean(1).tolist()
    assert losses == pytest.approx(expected, rel=0, abs=1e-4)
