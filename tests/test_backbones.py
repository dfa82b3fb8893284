"""Every family of backbones with every adapter; and conf/backbone against timm."""

import dataclasses
from itertools import chain

import pytest
import timm
import torch
from timm.layers import DropPath

from petl_bench import adapters
from petl_bench.adapters import ADAPTERS, Shape
from petl_bench.backbones import families
from petl_bench.config import group_config, options
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.train import Training, fit
from petl_bench.types import NORMALIZATIONS, BackboneSpec, run_id
from tests import tiny
from tests.agreeing import check_reload

SCALE = 3.0
every_family = pytest.mark.parametrize("family", list(tiny.FAMILIES))
CLASSIC = ["linear", "adaptformer", "lora", "bitfit", "full"]
"""All others are tested in tests/test_methods.py, and further families in tests/test_families.py."""
every_pair = pytest.mark.parametrize(
    ("family", "adapter"),
    [
        (family, adapter)
        for family in tiny.FAMILIES
        for adapter in CLASSIC
        if (family, adapter) != ("LowFormer", "lora")
    ],
)


def some_images(count=4):
    return torch.from_numpy(tiny.split(count).images).float() / 255


def attached(family, adapter):
    network, sites = families.build(tiny.FAMILIES[family])
    torch.manual_seed(0)
    parts = adapters.attach(adapter, {}, sites, Shape(4, SCALE, False))
    return network.eval(), sites, parts


@every_pair
@pytest.mark.parametrize("bits", [1, 32])
@pytest.mark.sampled(each=2)
def test_a_reloaded_model_gives_the_logits_of_the_trained_one(family, adapter, bits):
    backbone = tiny.FAMILIES[family]
    check_reload(tiny.model_spec(adapter, bits=bits, scale=SCALE, dropout=0.1, backbone=backbone), epochs=2)


def retrained(adapter, name):
    """Whether an adapter trains this parameter of the backbone."""
    return adapter == "full" or (adapter == "bitfit" and name.split(".")[-1] == "bias")


@every_pair
def test_training_leaves_the_frozen_parameters_bit_for_bit(family, adapter):
    network, sites, parts = attached(family, adapter)
    before = {name: parameter.detach().clone() for name, parameter in sites.parameters.items()}
    head = torch.nn.Linear(sites.features, tiny.CLASSES)
    sites.head.set(head)
    declared = [*(m.weight for m in parts.matrices.values()), *chain(*parts.floats.values())]
    recipe = tiny.recipe(2, 8, warmup_epochs=0, lr=1e-2)
    fit(Training(network, [*declared, *head.parameters()], tiny.split(16), recipe, tiny.pixels(), seed=0))
    for name, parameter in sites.parameters.items():
        assert torch.equal(parameter, before[name]) != retrained(adapter, name), name
    trained = sum(parameter.numel() for name, parameter in before.items() if retrained(adapter, name))
    own = {id(parameter) for parameter in sites.parameters.values()}
    assert sum(p.numel() for p in chain(*parts.floats.values()) if id(p) in own) == trained


@every_pair
def test_unquantized_adapter_starts_as_the_frozen_backbone_exactly(family, adapter):
    frozen, sites = families.build(tiny.FAMILIES[family])
    if ADAPTERS.get(adapter).tokenwise:
        sites.drop_unread()  # products of fewer tokens are summed in another order on some processors
    with torch.no_grad():
        expected = frozen.eval()(some_images())
        assert torch.equal(attached(family, adapter)[0](some_images()), expected)


def plain_twin(family):
    """The same weights in timm's model as it is, and its blocks."""
    spec = tiny.FAMILIES[family]
    size = {"img_size": spec.image_size} if family in ("VisionTransformer", "SwinTransformer") else {}
    twin = timm.create_model(spec.name, num_classes=0, **size, **spec.options).eval()
    twin.load_state_dict(families.build(spec)[0].state_dict())
    if family == "LowFormer":
        return twin, [
            stage[1] for stage in twin.stages if len(stage)
        ]  # the first of a stage halves the image
    blocks = twin.blocks if family == "VisionTransformer" else None
    stages = twin.layers if family == "SwinTransformer" else getattr(twin, "stages", None)
    return twin, list(blocks) if blocks is not None else [block for stage in stages for block in stage.blocks]


def with_random_ups(family, adapter):
    network, _, parts = attached(family, adapter)
    with torch.no_grad():
        for name, matrix in parts.matrices.items():
            if name.endswith("up"):
                matrix.weight.normal_(std=0.1)
    return network, {name: matrix.weight.detach() for name, matrix in parts.matrices.items()}


def low_rank(weights, name, x, activation=lambda z: z):
    """s * up(activation(down(x))), the formula of AdaptFormer."""
    return SCALE * activation(x @ weights[f"{name}.down"].T) @ weights[f"{name}.up"].T


def after(module, change):
    """Add change(the module's input) to what the module gives."""
    module.register_forward_hook(lambda _, inputs, output: output + change(inputs[0]))


@every_family
def test_adaptformer_adds_to_the_branch_what_its_formula_says(family):
    network, weights = with_random_ups(family, "adaptformer")
    twin, blocks = plain_twin(family)
    for index, block in enumerate(blocks):

        def update(x, index=index):
            return low_rank(weights, index, x, torch.relu)

        if family == "ConvNeXt":  # block(x) + s * adapter(x), x the block's input
            after(block, lambda x, update=update: update(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
            continue
        seen = {}
        if (
            family == "LowFormer"
        ):  # x is what goes into the MLP's residual block, in (batch, dim, height, width)
            block.mlp.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.update(x=inputs[0]))
            after(
                block.mlp.drop_path,
                lambda _, seen=seen, update=update: update(seen["x"].permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            )
            continue
        # x is what goes into norm2; the branch ends with drop_path2.
        block.norm2.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.update(x=inputs[0]))
        after(block.drop_path2, lambda _, seen=seen, update=update: update(seen["x"]))
    with torch.no_grad():
        plain = families.build(tiny.FAMILIES[family])[0].eval()(some_images())
        expected = twin(some_images())
        torch.testing.assert_close(network(some_images()), expected, rtol=0, atol=1e-5)
    assert (expected - plain).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["VisionTransformer", "SwinTransformer", "ConvNeXt"])
def test_lora_adds_to_the_linears_what_its_formula_says(family):
    network, weights = with_random_ups(family, "lora")
    twin, blocks = plain_twin(family)
    for i, block in enumerate(blocks):
        if family == "ConvNeXt":
            after(block.mlp.fc1, lambda x, i=i: low_rank(weights, f"{i}.fc1", x))
            after(block.mlp.fc2, lambda x, i=i: low_rank(weights, f"{i}.fc2", x))
            continue

        def update(x, i=i):  # q before k before v
            q, v = low_rank(weights, f"{i}.q", x), low_rank(weights, f"{i}.v", x)
            return torch.cat([q, torch.zeros_like(x), v], dim=-1)

        after(block.attn.qkv, update)
    with torch.no_grad():
        plain = families.build(tiny.FAMILIES[family])[0].eval()(some_images())
        expected = twin(some_images())
        torch.testing.assert_close(network(some_images()), expected, rtol=0, atol=1e-5)
    assert (expected - plain).abs().max() > 1e-2


# timm: linear from 0 at the first block, both branches of a block alike; in ConvNeXt a stage at a time.
RATES = {
    "VisionTransformer": [0.3, 0.3],
    "SwinTransformer": [0.3, 0.3],
    "ConvNeXt": [0.1, 0.2, 0.3],
    "LowFormer": [0.3, 0.3, 0.3],  # attention, MLP and convolution of the second of two blocks
}


@every_pair
def test_drop_path_reaches_the_blocks(family, adapter):
    model = tiny.model_spec(adapter, backbone=tiny.FAMILIES[family])

    def rates(drop_path):
        network = assemble(model, drop_path=drop_path).network
        return sorted(m.drop_prob for m in network.modules() if isinstance(m, DropPath) and m.drop_prob)

    assert rates(0.3) == pytest.approx(RATES[family])
    assert rates(0.0) == []


def test_convolutions_in_place_of_linears_take_adaptformer_but_no_lora():
    spec = tiny.FAMILIES["ConvNeXt"]
    spec = dataclasses.replace(spec, options=spec.options | {"conv_mlp": True})
    assert assemble(tiny.model_spec("adaptformer", backbone=spec)).network(some_images()).shape[0] == 4
    with pytest.raises(UserError, match=r"needs a linear 'fc1'.*no linears"):
        assemble(tiny.model_spec("lora", backbone=spec))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "unknown backbone family 'ResNet', and no plain transformer"),
        ("resnet18", "supported are ViT .*EVA-02, DINOv3, BEiT, Swin, Swin-V2, ConvNeXt and LowFormer"),
        ("vit_tiny_patch61_224", "timm has no such model"),
        ("vit_tiny_patch16_224.nonsense", "nonsense"),
        ("vit_small_patch16_18x2_224", "blocks of type ParallelThingsBlock are not plain"),
    ],
)
def test_what_cannot_be_built_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        families.build(BackboneSpec(name, "random", 64))


def test_any_tag_of_timm_builds():
    spec = dataclasses.replace(tiny.BACKBONE, name="vit_tiny_patch16_224.augreg_in21k")
    state, plain = families.build(spec)[0].state_dict(), families.build(tiny.BACKBONE)[0].state_dict()
    assert all(torch.equal(state[name], plain[name]) for name in plain)


PRETRAINED = {
    "vit_b16_in21k": 224,
    "vit_b16_augreg_in21k": 224,
    "vit_s14_dinov2": 518,
    "vit_b16_clip": 224,
    "swin_b_in22k": 224,
    "convnext_b_in22k": 224,
    "lowformer_b1_in1k": 224,
}
"""conf/backbone files of timm's pretrained weights, with the image size of the pretraining."""


def test_the_pretrained_backbones():
    found = {
        name for name in options("backbone") if group_config("backbone", name)["weights"] == "pretrained"
    }
    assert found - {"timm"} == set(PRETRAINED)
    published = {name for name in found if group_config("backbone", name).get("published")}
    assert published == {"vit_b16_in21k"}  # arXiv 2307.16867 uses the original ViT-B_16.npz, not augreg


@pytest.mark.parametrize("label", PRETRAINED)
def test_conf_says_what_timm_says(label):
    spec = BackboneSpec(**group_config("backbone", label))
    facts = timm.get_pretrained_cfg(spec.name, allow_unregistered=False)
    assert spec.label == label
    assert facts.tag
    assert f"{facts.architecture}.{facts.tag}" == spec.name
    assert facts.hf_hub_id or facts.url
    assert facts.input_size == (3, PRETRAINED[label], PRETRAINED[label])
    assert spec.image_size == 224  # of all published tables; DINOv2's embeddings are resized
    assert NORMALIZATIONS[spec.normalization] == (facts.mean, facts.std)


def test_openai_weights_run_with_their_own_activation():
    facts = timm.get_pretrained_cfg("vit_base_patch16_clip_224.openai")
    assert any("QuickGELU" in note for note in facts.notes)
    name = group_config("backbone", "vit_b16_clip")["name"]
    blocks = timm.create_model(name, depth=1, embed_dim=48, num_heads=3).blocks
    assert type(blocks[0].mlp.act).__name__ == "QuickGELU"


def test_normalization_and_publication_are_no_identity():
    spec = tiny.run_spec(tiny.model_spec(), tiny.recipe(1))
    other = dataclasses.replace(spec.backbone, normalization="half", published=True)
    assert run_id(dataclasses.replace(spec, backbone=other), "0" * 64) == run_id(spec, "0" * 64)


def test_statistics_of_batch_norms_stay_those_of_the_pretraining():
    network, _ = families.build(tiny.FAMILIES["LowFormer"])
    held = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    assert held
    with torch.no_grad():
        alone, together = network.train()(some_images(1)), network(some_images(4))
    torch.testing.assert_close(alone[0], together[0], rtol=0, atol=1e-5)  # no statistics of the batch
    state = network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in held.items())
