"""The benchmark's reference does the work of petl_bench: same numbers from the same weights and files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from petl_bench import data, packing
from petl_bench.config import plan
from petl_bench.dev.bench import photos, reference, reference_loop, steps
from petl_bench.dev.bench.case import CLASSES, HIDDEN, Setting
from petl_bench.dev.bench.ours import model_spec
from petl_bench.dev.bench.reference import Reference
from petl_bench.model import assemble
from petl_bench.quantizers import CODEBOOKS, FakeQuantize
from petl_bench.run.identity import resolve_tasks
from petl_bench.train import Pixels, evaluate
from petl_bench.types import TRAINVAL
from tests import tiny

adapters = pytest.mark.parametrize("adapter", ["adaptformer", "lora"])


def both(adapter, bits):
    """The adapted model, and the reference with its weights; no `up` is zero, so that all have gradients."""
    spec = tiny.model_spec(adapter, bits=bits, scale=2.0)
    adapted, plain = assemble(spec, seed=3), Reference(spec)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        weights = [linear.weight for linear in adapted.adapter.matrices.values()]
        weights += [adapted.head.matrices["weight"].weight, *adapted.head.floats["bias"]]
        for weight, twin in zip(weights, plain.trainable, strict=True):
            if not weight.any():
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
            twin.copy_(weight)
    adapted.prepare()
    return adapted, plain


@pytest.mark.parametrize("bits", [1, 8, 32])
@adapters
def test_logits_and_gradients_agree(adapter, bits):
    adapted, plain = both(adapter, bits)
    split = tiny.split(8, seed=5)
    images, labels = torch.from_numpy(split.images).float() / 255, torch.from_numpy(split.labels)
    found, expected = adapted.network(images), plain(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    F.cross_entropy(found, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for gradient, twin in zip(tiny.gradients(adapted).values(), plain.trainable, strict=True):
        assert twin.grad.norm() > 0
        assert (gradient - twin.grad).norm() / twin.grad.norm() <= 1e-5


def test_the_backbone_is_frozen_before_the_first_forward():
    plain = Reference(tiny.model_spec("lora"))
    frozen = [name for name, parameter in plain.named_parameters() if not parameter.requires_grad]
    assert {"cls_token", "pos_embed", "blocks.0.frozen.attn.qkv.weight", "norm.weight"} <= set(frozen)
    assert len(plain.trainable) == 2 * 4 + 2  # q and v, down and up, of 2 blocks; weight and bias of the head


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_quantizer_agrees(bits):
    generator = torch.Generator().manual_seed(bits)
    weight = 0.3 + 0.1 * torch.randn(24, 40, generator=generator)
    upstream = torch.randn(24, 40, generator=generator)
    levels = torch.tensor(CODEBOOKS.get("l1_median").levels(bits), dtype=torch.float32)
    results = []
    for quantize in (FakeQuantize("l1_median", bits), lambda w: reference.quantize(w, levels)):
        latent = weight.clone().requires_grad_()
        quantized = quantize(latent)
        quantized.backward(upstream)
        results.append((quantized.detach(), latent.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert len(results[1][0].unique()) <= 2**bits


@pytest.mark.parametrize("count", [0, 1, 8, 37])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_packed_bytes_agree(bits, count):
    codes = np.random.default_rng(count).integers(0, 2**bits, count, dtype=np.uint8)
    packed = reference.pack(codes, bits)
    assert packed == packing.pack(codes, bits)
    assert np.array_equal(reference.unpack(packed, bits, count), codes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photos") / "data"
    photos.write_task(root, training=5, test=7, classes=3)
    return root


@pytest.mark.parametrize(("part", "split"), [("train800val200", TRAINVAL), ("test", "test")])
def test_the_loop_reads_the_images_that_we_train_on(folder, tmp_path, part, split):
    settings = ["sweep=none", "task=folder", f"data.root='{folder}'", f"data.cache='{tmp_path}'"]
    planned = plan([*settings, "protocol=fixed", "scale=1", "train.batch_size=2"])
    (spec,) = resolve_tasks(planned.runs, planned.cache)
    expected = data.load(spec.task, split, 32, planned.cache)
    found = reference_loop.Files(folder, part, 32)
    assert len(found) == len(expected) == (5 if split == TRAINVAL else 7)
    images, labels = zip(*(found[index] for index in range(len(found))), strict=True)
    # division by 255 is exact to half a unit in the last place on both sides
    assert np.array_equal((torch.stack(images) * 255).round().numpy(), expected.images)
    assert list(labels) == expected.labels.tolist()


def test_the_loop_counts_what_our_evaluation_counts(folder):
    adapted, plain = both("lora", 1)
    batches = DataLoader(reference_loop.Files(folder, "test", 32), 3)
    images = torch.cat([batch for batch, _ in batches])
    split = data.Split((images * 255).round().byte().numpy(), np.array(batches.dataset.labels))
    pixels = Pixels("none", 32, torch.device("cpu"))
    assert reference_loop.accuracy(plain, batches, "cpu") == evaluate(adapted.network, split, pixels)


def test_training_learns_and_looks_ten_times(folder, monkeypatch):
    looks = []
    monkeypatch.setattr(reference_loop, "accuracy", lambda *arguments: looks.append(len(looks)) or 0.5)
    plain = Reference(tiny.model_spec(bits=1))
    before = [parameter.detach().clone() for parameter in plain.trainable]
    assert reference_loop.train(plain, folder, 32, epochs=20, evaluations=10, batch=5, device="cpu") == 0.5
    assert len(looks) == 10
    assert all(not torch.equal(a, b) for a, b in zip(before, plain.trainable, strict=True))


def test_operations_of_a_step_are_those_of_its_products():
    """By hand, for a tiny ViT of 2 blocks; a product of (m, k) and (k, n) takes 2 m k n operations."""
    setting = Setting(quick=True)
    batch, tokens, dim, mlp, patch = setting.batch, 17, 48, 4 * 48, 3 * 8 * 8
    rows = batch * tokens
    qkv, proj, attention = 2 * rows * dim * 3 * dim, 2 * rows * dim * dim, 2 * batch * tokens**2 * dim
    linear, narrow, head = 2 * rows * dim * mlp, 2 * rows * dim * HIDDEN, 2 * batch * dim * CLASSES
    rest = proj + 2 * linear  # and the adapter: in the last block of one token an image
    forward = 2 * (qkv + 2 * attention) + (rest + 2 * narrow) * (tokens + 1) // tokens
    # Nothing trainable lies before the adapter of the first block: there are gradients of its weights alone.
    first = 3 * narrow
    # Fused attention computes its weights again for the gradient: five products, not four.
    second = (4 * narrow + rest) // tokens + 5 * attention + qkv
    embedding = 2 * batch * (tokens - 1) * patch * dim
    expected = embedding + forward + first + second + 3 * head
    assert steps.step_flops(model_spec(setting), setting) == expected
