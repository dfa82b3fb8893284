"""Memory that runs need on a GPU: estimated on shapes alone, and counted in real trainings on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from petl_bench.adapters import ADAPTERS
from petl_bench.errors import UserError
from petl_bench.launch import memory
from petl_bench.launch.memory import bytes_of
from petl_bench.model import assemble
from petl_bench.train import Allocations
from petl_bench.types import RunSpec
from tests import on_cuda
from tests.test_pretended_cuda import on_gpu, scene, settings
from tests.test_protocols import Tree, made

BATCH = 16
INT8 = ["launcher.device=cuda:1", "launcher.compile=default", "--dry-run"]
WITHOUT_QUANTIZER = {"pissa", "soka"}
"""Methods that are built at 32 bits for the estimate."""


@pytest.mark.parametrize("inference", [False, True])
def test_the_living_bytes_of_tensors_are_counted(inference: bool) -> None:
    """By hand: 1,000 numbers take 4,000 bytes, a view takes none, and what nothing refers to takes none."""
    outside = torch.ones(1000)
    with torch.inference_mode(inference), Allocations() as counted:
        doubled = outside * 2
        assert (counted.now, counted.peak) == (4000, 4000)
        view = doubled[:10].view(2, 5)
        doubled.add_(1)
        assert counted.now == 4000
        both = torch.cat([doubled, outside])
        assert (counted.now, counted.peak) == (12000, 12000)
        del both
        assert (counted.now, counted.peak) == (4000, 12000)
        del doubled
        assert counted.now == 4000  # the view has the memory still
        del view
        assert counted.now == 0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return made(tmp_path_factory.mktemp("tree"), on_cuda.SIZES)


def spec_of(tree: Tree, name: str, precision: str) -> RunSpec:
    spec = on_cuda.spec_of(tree, name, "VisionTransformer", precision)
    return replace(spec, train=replace(spec.train, batch_size=BATCH, drop_path=0.0))


def measured(spec: RunSpec) -> int:
    """The most bytes of tensors in the second step of a training on the CPU, with fused attention."""
    adapted = assemble(spec.model)
    adapted.prepare(spec.precision)
    network = adapted.network.train()
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    held = bytes_of([*network.parameters(), *network.buffers(), *adapted.trainable])
    optimizer = torch.optim.AdamW(adapted.trainable, fused=True)
    size, passes = spec.backbone.image_size, 2 if adapted.adapter.attached.consistency else 1
    with Allocations() as counted:
        for _ in range(2):
            images, labels = torch.rand(BATCH, 3, size, size), torch.zeros(BATCH, dtype=torch.int64)
            optimizer.zero_grad(set_to_none=True)
            counted.peak = counted.now
            loss = sum(functional.cross_entropy(network(images), labels) for _ in range(passes))
            loss.backward()
            optimizer.step()
            del loss
    images_of_the_task = spec.task.training_images * 3 * size**2
    return held + counted.peak + images_of_the_task


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.sampled(8)
def test_the_estimate_is_what_a_training_takes(name: str, precision: str, tree: Tree) -> None:
    spec = spec_of(tree, name, precision)
    if precision == "int8" and assemble(spec.model).trains_backbone:
        with pytest.raises(UserError, match="needs a frozen backbone"):
            memory.needed(spec)
        return
    estimate = memory.needed(spec)
    # Fourier transforms take more on `meta`; a method without its quantizer takes less.
    least, most = 0.93 if name in WITHOUT_QUANTIZER else 0.99, 1.35 if name == "c3a" else 1.06
    assert least <= estimate / measured(spec) <= most


def test_a_larger_batch_needs_more_and_less_kept_activations_need_less(tree: Tree) -> None:
    spec = spec_of(tree, "lora", "fp32")
    deep = replace(spec.backbone, options=dict(spec.backbone.options) | {"depth": 8})
    spec = replace(spec, backbone=deep)
    larger = replace(spec, train=replace(spec.train, batch_size=2 * BATCH))
    fewer = replace(spec, train=replace(spec.train, activations="2bit"))
    images = 3 * spec.backbone.image_size**2 * 4  # bytes of one, in float32
    assert memory.needed(larger) - memory.needed(spec) > BATCH * images
    assert memory.needed(fewer) < memory.needed(spec)


def test_runs_that_lack_memory_are_named_once_a_kind(tree: Tree) -> None:
    specs = [replace(spec_of(tree, name, "fp32"), seed=seed) for name in ("lora", "full") for seed in (0, 1)]
    lora, full = (count for _, count in memory.needs(specs))
    assert lora < full
    factor, constant = memory.SPARE
    enough = full * factor + constant
    assert not [*memory.lacking(specs, enough, 1, "cuda:0")]
    (said,) = memory.lacking(specs, enough - 1, 1, "cuda:0")
    assert said.startswith("cuda:0: 0.3 GB are free, and full on ")
    assert f"train.batch_size={BATCH} in fp32 needs about 0.0 GB" in said
    assert len([*memory.lacking(specs, enough, 2, "cuda:0")]) == 2  # two runs at a time have half of it each


def test_a_plan_goes_on_where_nothing_is_known_of_the_memory(tree: Tree) -> None:
    """A model that cannot be built is refused by the sweep, and its plan is that of a CPU."""
    planned = on_gpu({}, *settings(tree, tree.cache, adapter="full", precision="int8", bits=32), *INT8)
    assert planned.returncode == 0, planned.stderr
    assert "device: cuda:1 (Pretended GPU), precision int8\n" in planned.stdout
    assert "memory:" not in planned.stdout


def test_an_evaluation_halves_batches_that_do_not_fit(tmp_path: Path) -> None:
    """At first one image, then all others; halved to 9 where 10 fit; an error where one does not."""
    assert scene("evaluated", tmp_path) == {"batches": [[1, 39], [1, 9, 9, 9, 9, 3]], "same": True}


def test_the_batch_of_an_evaluation_follows_the_free_memory(tmp_path: Path) -> None:
    """A batch takes at most half of it, twice as many images would take more, and one is the least."""
    found = scene("chosen", tmp_path)["found"]
    largest = []
    for one in found:
        assert sum(one["batches"]) == 40
        assert one["batches"][0] == 1
        largest.append(max(one["batches"]))
        peak = max(one["peaks"][1:])
        assert largest[-1] == 1 or peak <= one["free"] / 2
        assert largest[-1] == 39 or 2 * one["peaks"][0] * largest[-1] > one["free"] / 2
    assert largest[0] == 39
    assert largest[-1] == 1
    assert largest == sorted(set(largest), reverse=True)


def test_what_is_observed_counts_once(tmp_path: Path) -> None:
    """A method that sums up inputs would count those again that a batch without memory brought."""
    assert scene("observed", tmp_path) == {"seen": 40, "refused": [1, 39]}


def test_predictions_take_the_batch_that_fits_and_refuse_one_that_does_not(tmp_path: Path) -> None:
    found = scene("predicted", tmp_path)
    assert found["same"]
    assert found["refused"] == (
        "batch_size=40: these images do not fit into the memory of cuda:1; choose fewer, or leave it out to "
        "have them chosen"
    )
