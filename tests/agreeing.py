"""A method with any settings against its plain reference, outputs and gradients, with all numbers stirred."""

import torch
import torch.nn.functional as F

from petl_bench.backbones import families
from tests.test_methods import model, reference, some_images, stirred


def check(name, **settings):
    """On tests.tiny.BACKBONE, dropout 0; the model, for more to be asked of it."""
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
