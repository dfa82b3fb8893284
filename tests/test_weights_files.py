"""Weights files as trainings leave them: wrapped, prefixed, of another architecture, damaged."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from petl_bench.backbones import families, misfit, pretrained, weights
from petl_bench.errors import UserError
from petl_bench.types import BackboneSpec
from tests import tiny
from tests.test_checkpoints import CLASSES, DINOV2, VIT, flax, source

WIDTH = 48


def vit(**options):
    return dataclasses.replace(VIT, options=VIT.options | options)


ARCHITECTURES = {
    "vit": VIT,
    "deeper": vit(depth=3),
    "layer scale": vit(init_values=0.5),
    "larger patches": vit(patch_size=16),
    "registers": vit(reg_tokens=4),
    "more registers": vit(reg_tokens=5),
    "norm before the blocks": vit(pre_norm=True),
    "average pooling": vit(global_pool="avg"),
    "wider MLP": vit(mlp_ratio=3),
    "norms of queries and keys": vit(qk_norm=True),
    "dinov2": DINOV2,
    "swin": BackboneSpec(
        "swin_tiny_patch4_window7_224",
        "random",
        32,
        {"embed_dim": WIDTH, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    ),
    "convnext": BackboneSpec(
        "convnext_atto", "random", 32, {"depths": [1, 1, 1, 1], "dims": [WIDTH] * 4, "conv_mlp": False}
    ),
    "lowformer": tiny.FAMILIES["LowFormer"],
    **tiny.FURTHER,
}
"""Architectures of one width that share the names of many tensors."""


@cache
def state_of(name):
    return source(ARCHITECTURES[name], CLASSES).state_dict()


@cache
def model_of(name):
    return families.create(ARCHITECTURES[name], 0.0)


def loaded(spec, path):
    """The tensors of the backbone with the weights of a file, and the remarks about them."""
    spec = dataclasses.replace(spec, weights=str(path))
    return families.build(spec)[0].state_dict(), families.remarks(spec)


def refused(spec, path):
    with pytest.raises(UserError) as caught:
        loaded(spec, path)
    message = str(caught.value)
    assert message.startswith(f"backbone weights {path}")
    assert "\n" not in message
    assert len(message) < 2000
    return message


@pytest.mark.parametrize("given", ARCHITECTURES)
@pytest.mark.sampled(8)
def test_weights_fit_their_own_architecture_and_no_other(given, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(state_of(given), path)
    for wanted in ARCHITECTURES:
        model = model_of(wanted)
        if wanted == given:
            assert pretrained.load(model, path) == []
            assert all(
                torch.equal(value, state_of(given)[name]) for name, value in model.state_dict().items()
            )
        else:
            with pytest.raises(UserError, match="do not fit the architecture"):
                pretrained.load(model, path)


ENTRIES = ["", "state_dict", "model", "model_ema", "module", "teacher", "net.weights", "optimizer"]
PREFIXES = [
    "",
    "module.",
    "model.",
    "backbone.",
    "encoder.",
    "module.base_encoder.",
    "_orig_mod.module.",
    "1.",
    "my.own.",
]


PLACES = [
    *zip(ENTRIES, PREFIXES, strict=False),
    *zip(ENTRIES[::-1], PREFIXES, strict=False),
    ("", PREFIXES[-1]),
]
"""Every entry and every prefix, in several pairs."""


@pytest.mark.parametrize(("entry", "prefix"), PLACES)
def test_a_state_dict_is_found_below_any_entry_and_prefix(entry, prefix, tmp_path):
    content = {prefix + name: value for name, value in state_of("vit").items()}
    content |= {f"{prefix}head.2.weight": torch.zeros(3, 3)}
    for key in reversed(entry.split(".") if entry else []):
        content = {key: content, "epoch": 3, "lr": torch.zeros(2)}
    torch.save(content, tmp_path / "w.ckpt")
    state, remarks = loaded(VIT, tmp_path / "w.ckpt")
    assert all(torch.equal(state[name], state_of("vit")[name]) for name in state)
    place = (f"{entry}." if entry else "") + prefix
    expected = f"backbone weights {tmp_path / 'w.ckpt'}: the tensors under {place!r} are taken"
    assert remarks == ([] if place in ("", "state_dict.", "model.") else [expected])


@pytest.mark.parametrize(
    ("places", "taken"),
    [
        (("student.module.backbone.", "teacher.backbone."), 1),
        (("model.", "model_ema."), 1),
        (("state_dict_ema.", "state_dict."), 0),
        (("state_dict.module.base_encoder.", "state_dict.module.momentum_encoder."), 0),
        (("encoder.", "target_encoder."), 1),
    ],
)
def test_of_several_state_dicts_one_is_taken_and_the_others_are_named(places, taken, tmp_path):
    content: dict = {}
    for number, place in enumerate(places):
        entry, _, prefix = place.partition(".")
        content.setdefault(entry, {}).update(
            {prefix + name: value + (number != taken) for name, value in state_of("vit").items()}
        )
    torch.save(content, tmp_path / "w.pth")
    state, (remark,) = loaded(VIT, tmp_path / "w.pth")
    assert torch.equal(state["norm.bias"], state_of("vit")["norm.bias"])
    assert f"under {places[taken]!r} are taken (those under {places[1 - taken]!r} would fit too)" in remark


@pytest.mark.parametrize("suffix", [".pth.tar", ".ckpt", ".PTH", ".Pt", ".BIN", ".SafeTensors", ".NPZ"])
def test_suffixes(suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    state = state_of("vit")
    if suffix == ".NPZ":
        with path.open("wb") as file:
            np.savez(file, **flax(state))
    else:
        (save_file if suffix == ".SafeTensors" else torch.save)(state, path)
    assert weights.find(str(path)) == path
    assert torch.equal(loaded(VIT, path)[0]["norm.bias"], state["norm.bias"])


CLASSIFIER = ["head.weight", "fc.bias", "head.mlp.0.weight"]
PRETRAINING = [
    *("mask_token", "decoder_blocks.0.attn.qkv.weight", "decoder_pos_embed", "lm_head.bias", "logit_scale"),
    *("predictor.0.weight", "projector.2.bias", "pre_logits.fc.weight"),
]
"""Tensors that pretrainings have besides the backbone: MAE, BEiT, CLIP, MoCo, early ImageNet-21k models."""


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize("name", PRETRAINING)
def test_what_a_pretraining_left_in_the_file_is_told(name, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    if suffix == ".npz":
        if not name.startswith("pre_logits"):
            pytest.skip("an array without a place in the backbone is refused in this format")
        np.savez(path, **flax(state_of("vit")), **{"pre_logits/kernel": np.zeros((2, 2), np.float32)})
    else:
        state = {key: value.clone() for key, value in state_of("vit").items()}
        (save_file if suffix == ".safetensors" else torch.save)(state | {name: torch.zeros(2, 2)}, path)
    (remark,) = loaded(VIT, path)[1]
    assert remark.startswith(f"backbone weights {path}: not used: ")
    shown = "pre_logits/kernel" if suffix == ".npz" else name
    assert remark.endswith(f"(1 tensor, the first is {shown})")


@pytest.mark.parametrize(
    "name", ["blocks.0.ls1.gamma", "blocks.2.norm1.weight", "norm_pre.bias", "attn_pool.q.weight", "extra"]
)
def test_every_tensor_has_a_place_or_is_known_to_be_harmless(name, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(state_of("vit") | {known: torch.zeros(2, 2) for known in [*CLASSIFIER, *PRETRAINING]}, path)
    (remark,) = loaded(VIT, path)[1]
    assert "head of a pretraining (5 tensors, the first is decoder_blocks.0.attn.qkv.weight)" in remark
    torch.save(state_of("vit") | {known: torch.zeros(2, 2) for known in CLASSIFIER}, path)
    assert loaded(VIT, path)[1] == []
    torch.save(state_of("vit") | {name: torch.zeros(2, 2)}, path)
    assert f"1 without a place in it [{name!r}]" in refused(VIT, path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("deeper", "the file has 3 blocks; the architecture has 2 blocks"),
        ("layer scale", "the file has layer scale; the architecture has no layer scale"),
        (
            "larger patches",
            "the file has patches of 16 x 16 pixels; the architecture has patches of 8 x 8 pixels",
        ),
        ("registers", "the file has 4 register tokens; the architecture has no register tokens"),
    ],
)
def test_the_difference_is_told_in_words(given, said, tmp_path):
    torch.save(state_of(given), tmp_path / "w.pth")
    assert said in refused(VIT, tmp_path / "w.pth")


def test_names_of_both_sides_are_given_where_none_agrees(tmp_path):
    torch.save({f"layer{i}.conv": torch.zeros(3, 3) for i in range(40)}, tmp_path / "w.pth")
    message = refused(VIT, tmp_path / "w.pth")
    assert "tensors missing ['cls_token'" in message
    assert "the file has ['layer0.conv', 'layer1.conv', 'layer2.conv']" in message


def test_architectures_that_fit_are_named(monkeypatch, tmp_path):
    names = ["vit_tiny_patch16_224", "vit_tiny_patch16_dinov2", "vit_tiny_patch14_224"]
    monkeypatch.setattr(
        misfit.timm, "list_models", lambda module: names if module == "vision_transformer" else []
    )
    shallow = BackboneSpec("vit_tiny_patch16_224", "random", 32, {"embed_dim": 192})
    torch.save(families.build(shallow)[0].state_dict(), tmp_path / "w.pth")
    other = BackboneSpec("vit_small_patch16_224", "random", 32, {"depth": 1})
    assert refused(other, tmp_path / "w.pth").endswith("these fit: backbone.name=vit_tiny_patch16_224")
