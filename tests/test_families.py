"""Families of backbones besides the four on which every method is tested (tests.tiny.FURTHER)."""

import copy
import dataclasses
from functools import cache

import pytest
import torch

from petl_bench import plugins
from petl_bench.adapters import ADAPTERS
from petl_bench.backbones import families, inferred
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.types import BackboneSpec
from tests import tiny
from tests.agreeing import check_reload
from tests.conftest import LONG
from tests.test_backbones import SCALE, low_rank, some_images
from tests.test_checkpoints import CLASSES, source
from tests.test_floors import PLUGIN

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


def described(model, sites):
    """All facts of the sites of a model, with paths in place of modules."""
    paths = {module: path for path, module in model.named_modules()}

    def path(slot):
        return paths[slot.parent], slot.name, getattr(slot, "twin", "")

    return {
        "blocks": [(path(block.whole), block.dim) for block in sites.blocks],
        "linears": [{role: path(slot) for role, slot in block.linears.items()} for block in sites.blocks],
        "branches": [
            {role: (path(b.first), path(b.last), b.channels_first) for role, b in block.branches.items()}
            for block in sites.blocks
        ],
        "operations": [(path(o.slot), o.channels, o.channels_first) for o in sites.operations],
        "parameters": list(sites.parameters),
        "head": (path(sites.head), sites.features),
        "tokens": (sites.arrangement, sites.first_token, sites.fixed_tokens),
    }


PLAIN = ["EVA-02", "EVA-02 with separate projections", "DINOv3", "BEiT", "DeiT distilled", "Swin-V2"]


@pytest.mark.parametrize("family", ["VisionTransformer", "SwinTransformer", *PLAIN])
@pytest.mark.parametrize("pooling", ["", "avg"])
def test_inferred_sites_are_those_of_the_table(family, pooling, monkeypatch):
    """Swin's table has a patch merging as one operation; Swin-V2's blocks are seen to be no plain ones."""
    monkeypatch.setattr(inferred, "_known", {})
    spec = (tiny.FAMILIES | tiny.FURTHER)[family]
    if pooling and family in ("DeiT distilled", "SwinTransformer", "Swin-V2"):
        pytest.skip("its pooling is fixed")
    options = spec.options | ({"global_pool": pooling} if pooling else {})
    spec = dataclasses.replace(spec, options=options)
    model, sites = families.build(spec)
    table = described(model, sites)
    copied = copy.deepcopy(model)
    found = described(copied, inferred.sites(copied, spec))
    if family == "SwinTransformer":
        extra = [held for held in found["operations"] if held not in table["operations"]]
        assert [path[1] for path, *_ in extra] == ["reduction"]
    for key in [key for key in table if not (key == "operations" and family.startswith("Swin"))]:
        assert found[key] == table[key], key


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cait_xxs24_224", "its modules of type LayerScaleBlock lack drop_path1, drop_path2; its modules"),
        ("tiny_vit_5m_224", "its modules of type TinyVitBlock lack norm1, norm2; supported"),
        ("levit_128s", "type LevitBlock lack norm1, norm2, a linear attn.qkv, a linear attn.proj; supported"),
        ("resnet18", "none of its modules has attention `attn` and an MLP `mlp`; supported"),
    ],
)
def test_models_that_are_no_plain_transformers_are_refused_with_what_they_lack(name, why):
    with pytest.raises(UserError, match="unknown backbone family .* no plain transformer .*" + why):
        families.build(BackboneSpec(name, "random", 224))


@pytest.mark.parametrize("name", ["mobilevit_xxs", "gcvit_xxtiny", "swinv2_cr_tiny_ns_224"])
def test_parts_of_other_models_take_the_methods_for_which_they_have_sites(name):
    backbone = BackboneSpec(name, "random", 224 if name == "gcvit_xxtiny" else 64)
    model = assemble(tiny.model_spec("lora", backbone=backbone))
    assert model.network(torch.rand(1, 3, backbone.image_size, backbone.image_size)).shape == (1, 5)
    (said,) = families.remarks(backbone)
    assert said.startswith(
        f"warning: backbone {name}: no known family has this model; its sites are inferred"
    )
    if name == "gcvit_xxtiny":
        assert "no sites in GlobalContextVitBlock (lack queries, keys and values in attn.qkv)" in said
    if name == "swinv2_cr_tiny_ns_224":
        assert "no attention (norm1 is not fed by the stream)" in said
        with pytest.raises(UserError, match="choose another adapter or backbone"):
            assemble(tiny.model_spec("adaptformer", backbone=backbone))
    if name == "mobilevit_xxs":
        assert "no known place of tokens in the image" in said
        with pytest.raises(UserError, match="the place of each token in the image"):
            assemble(tiny.model_spec("convpass", backbone=backbone))


def test_a_table_of_a_plugin_is_a_family():
    spec = BackboneSpec(
        "cait_xxs24_224", "random", 32, {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    )
    plugins.use([PLUGIN])
    try:
        model = assemble(tiny.model_spec("lora", backbone=spec))
        assert len(model.adapter.matrices) == 2 * 4
        with pytest.raises(UserError, match="whose blocks have no branches"):
            assemble(tiny.model_spec("adaptformer", backbone=spec))
    finally:
        plugins.use(())
    with pytest.raises(UserError, match="unknown backbone family 'Cait'"):
        families.build(spec)
