"""Families of backbones besides the four on which every method is tested (tests.tiny.FURTHER)."""

import copy
import dataclasses
from functools import cache

import pytest
import torch

from petl_bench.adapters import ADAPTERS
from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.types import BackboneSpec
from tests import tiny
from tests.agreeing import check_reload
from tests.conftest import LONG
from tests.test_backbones import SCALE, low_rank, some_images
from tests.test_checkpoints import CLASSES, source

every_further = pytest.mark.parametrize("family", tiny.FURTHER)
METHODS = list(ADAPTERS) if LONG else ["linear", "adaptformer", "lora", "bitfit", "full", "convpass", "ssf"]


@cache
def twin_of(family, folder):
    """timm's model as it is, with weights, biases and norms that no initialization gives, and its file."""
    twin = source(tiny.FURTHER[family], CLASSES)
    path = folder / f"{family}.pth"
    torch.save(twin.state_dict(), path)
    twin.reset_classifier(0)
    return twin, dataclasses.replace(tiny.FURTHER[family], weights=str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def blocks_of(twin):
    stages = getattr(twin, "layers", None)
    return list(twin.blocks) if stages is None else [block for stage in stages for block in stage.blocks]


@every_further
def test_the_backbone_is_that_of_timm(family, folder):
    twin, spec = twin_of(family, folder)
    with torch.no_grad():
        found, expected = families.build(spec)[0].eval()(some_images()), twin(some_images())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        random = families.build(tiny.FURTHER[family])[0].eval()(some_images())
    assert (found - random).abs().max() > 1e-2


@every_further
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.sampled(each=2)
def test_a_reloaded_model_gives_the_logits_of_the_trained_one(family, name):
    spec = tiny.model_spec(name, bits=ADAPTERS.get(name).unused.get("bits", 1), backbone=tiny.FURTHER[family])
    with tiny.skipped_where_refused():
        assemble(spec)
    check_reload(spec, epochs=1)


def moved(family, folder, adapter):
    """A backbone with an adapter whose second matrices are not zero, and the adapter's weights."""
    from petl_bench import adapters
    from petl_bench.adapters import Shape

    network, sites = families.build(twin_of(family, folder)[1])
    parts = adapters.attach(adapter, {}, sites, Shape(4, SCALE, False))
    with torch.no_grad():
        for name, matrix in parts.matrices.items():
            if name.endswith("up"):
                matrix.weight.normal_(std=0.1)
    return network.eval(), {name: matrix.weight.detach() for name, matrix in parts.matrices.items()}


@pytest.mark.parametrize("family", [family for family in tiny.FURTHER if family != "Swin-V2"])
def test_adaptformer_adds_to_the_branch_what_its_formula_says(family, folder):
    network, weights = moved(family, folder, "adaptformer")
    with torch.no_grad():
        found, handles = network(some_images()), []
        twin, _ = twin_of(family, folder)
        for i, block in enumerate(blocks_of(twin)):
            seen = {}
            handles.append(block.norm2.register_forward_pre_hook(lambda _, x, seen=seen: seen.update(x=x[0])))
            handles.append(
                block.drop_path2.register_forward_hook(
                    lambda _, x, y, i=i, seen=seen: y + low_rank(weights, i, seen["x"], torch.relu)
                )
            )
        expected = twin(some_images())
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", [family for family in tiny.FURTHER if "separate" not in family])
def test_lora_adds_to_queries_and_values_what_its_formula_says(family, folder):
    """timm applies the weight of qkv itself, so that the twin's weight gets the low-rank products."""
    network, weights = moved(family, folder, "lora")
    plain, _ = twin_of(family, folder)
    twin = copy.deepcopy(plain)
    with torch.no_grad():
        for i, block in enumerate(blocks_of(twin)):
            q, _, v = block.attn.qkv.weight.chunk(3)
            q += SCALE * weights[f"{i}.q.up"] @ weights[f"{i}.q.down"]
            v += SCALE * weights[f"{i}.v.up"] @ weights[f"{i}.v.down"]
        found, expected = network(some_images()), twin(some_images())
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
        assert (found - plain(some_images())).abs().max() > 1e-2


def test_the_head_of_a_distilled_deit_reads_the_mean_of_both_tokens(folder):
    model = assemble(tiny.model_spec("linear", bits=32, backbone=twin_of("DeiT distilled", folder)[1]))
    model.prepare()
    with torch.no_grad():
        network = model.network.eval()
        features = model.features(lambda net: [net(some_images())])
        torch.testing.assert_close(model.probe()(features), network(some_images()), rtol=0, atol=1e-5)
        tokens = network.forward_features(some_images())
        torch.testing.assert_close(features, tokens[:, :2].mean(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
@pytest.mark.parametrize("family", ["EVA-02", "DINOv3", "BEiT"])
def test_no_tokens_are_added_where_attention_knows_positions(name, family):
    with pytest.raises(UserError, match=r"adds tokens.*choose another adapter or backbone"):
        assemble(tiny.model_spec(name, backbone=tiny.FURTHER[family]))


@pytest.mark.parametrize("adapter", ["adaptformer", "convpass"])
def test_swin_v2_takes_methods_of_linears_only(adapter):
    with pytest.raises(UserError, match="whose blocks have no branches: choose another adapter or backbone"):
        assemble(tiny.model_spec(adapter, backbone=tiny.FURTHER["Swin-V2"]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_sapiens2", {"num_heads": 4, "num_kv_heads": 2, "embed_dim": 64, "depth": 1}),
        ("eva02_tiny_patch14_224", {"use_post_norm": True, "embed_dim": 48, "depth": 1, "num_heads": 3}),
    ],
)
def test_blocks_of_other_kinds_are_refused(name, options):
    with pytest.raises(UserError, match="backbone: "):
        families.build(BackboneSpec(name, "random", 224, options))
