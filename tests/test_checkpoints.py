"""Weights files: written here from random models in the formats of their releases, and loaded back."""

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from petl_bench.backbones import families, weights
from petl_bench.backbones.families import FAMILIES, build
from petl_bench.errors import UserError
from petl_bench.run.identity import backbone_sha256
from petl_bench.types import BackboneSpec
from tests import tiny

DIM, HEADS, CLASSES = 48, 3, 7
VIT = tiny.BACKBONE
DINOV2 = BackboneSpec(
    "vit_small_patch14_dinov2", "random", 28, {"embed_dim": DIM, "depth": 2, "num_heads": HEADS}
)
CLIP = BackboneSpec(
    "vit_base_patch16_clip_quickgelu_224",
    "random",
    32,
    {"patch_size": 8, "embed_dim": DIM, "depth": 2, "num_heads": HEADS},
)
SWIN, CONVNEXT = tiny.FAMILIES["SwinTransformer"], tiny.FAMILIES["ConvNeXt"]


def source(spec, classes=0, size=None):
    """A model with weights that `random` does not give, biases and norms included."""
    sized = {} if spec.name.startswith(("convnext", "lowformer")) else {"img_size": size or spec.image_size}
    model = timm.create_model(spec.name, num_classes=classes, **sized, **spec.options).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def flax(state, prefix=""):
    """A ViT's state as the original ViT-B_16.npz has it (repository google-research/vision_transformer)."""
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(2):
        block, name = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = f"{name}MultiHeadDotProductAttention_1/"
        for part, weight, bias in zip(
            ("query", "key", "value"),
            state[f"{block}attn.qkv.weight"].chunk(3),
            state[f"{block}attn.qkv.bias"].chunk(3),
            strict=True,
        ):
            arrays[f"{attention}{part}/kernel"] = weight.T.reshape(DIM, HEADS, -1)
            arrays[f"{attention}{part}/bias"] = bias.reshape(HEADS, -1)
        arrays[f"{attention}out/kernel"] = state[f"{block}attn.proj.weight"].T.reshape(HEADS, -1, DIM)
        arrays[f"{attention}out/bias"] = state[f"{block}attn.proj.bias"]
        for number, norm in ((0, "norm1"), (2, "norm2")):
            arrays[f"{name}LayerNorm_{number}/scale"] = state[f"{block}{norm}.weight"]
            arrays[f"{name}LayerNorm_{number}/bias"] = state[f"{block}{norm}.bias"]
        for number, linear in ((0, "fc1"), (1, "fc2")):
            arrays[f"{name}MlpBlock_3/Dense_{number}/kernel"] = state[f"{block}mlp.{linear}.weight"].T
            arrays[f"{name}MlpBlock_3/Dense_{number}/bias"] = state[f"{block}mlp.{linear}.bias"]
    return {prefix + name: value.contiguous().numpy() for name, value in arrays.items()}


def renamed(state, *pairs):
    """The state with parts of its names replaced, one pair after another."""
    for ours, theirs in pairs:
        state = {name.replace(ours, theirs): value for name, value in state.items()}
    return state


def original_dinov2(state):
    return state | {"mask_token": torch.zeros(1, DIM)}


def original_clip(state):
    pairs = [
        ("norm_pre", "ln_pre"),
        ("blocks.", "transformer.resblocks."),
        (".norm", ".ln_"),
        ("norm.", "ln_post."),
    ]
    pairs += [("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), ("patch_embed.proj", "conv1")]
    pairs += [("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("pos_embed", "positional_embedding")]
    found = {f"visual.{name}": value for name, value in renamed(state, *pairs).items() if "head" not in name}
    found["visual.class_embedding"] = found.pop("visual.cls_token").flatten()
    found["visual.positional_embedding"] = found["visual.positional_embedding"][0]
    return found | {"visual.proj": state["head.weight"].T, "logit_scale": torch.zeros(())}


def original_swin(state):
    """Downsampling at the end of a stage, a flat head, buffers in the file, all under `model`."""
    found = renamed(state, ("layers.1.downsample", "layers.0.downsample"), ("head.fc.", "head."))
    return {"model": found | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16)}}


def original_convnext(state):
    pairs = [
        ("stem.", "downsample_layers.0."),
        (".blocks.", "."),
        ("conv_dw", "dwconv"),
        ("mlp.fc", "pwconv"),
    ]
    pairs += [("head.norm.", "norm."), ("head.fc.", "head.")]
    pairs += [(f"stages.{i}.downsample.", f"downsample_layers.{i}.") for i in (1, 2, 3)]
    found = renamed(state, *pairs)
    return {"model": found}


def same(state):
    return state


ORIGINALS = {
    "vit": (VIT, same, ".pth"),
    "vit of a parallel training": (VIT, lambda state: {f"module.{k}": v for k, v in state.items()}, ".pt"),
    "vit with optimizer": (VIT, lambda state: {"state_dict": state, "epoch": 3}, ".bin"),
    "dinov2": (DINOV2, original_dinov2, ".pth"),
    "clip": (CLIP, original_clip, ".pt"),
    "swin": (SWIN, original_swin, ".pth"),
    "convnext": (CONVNEXT, original_convnext, ".pth"),
}


def images(size=32):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def assert_loads(spec, path, model):
    loaded, _ = build(dataclasses.replace(spec, weights=str(path)))
    model.reset_classifier(0)
    with torch.no_grad():
        expected = model(images(spec.image_size))
        torch.testing.assert_close(loaded.eval()(images(spec.image_size)), expected, rtol=0, atol=1e-6)
        fresh = build(spec)[0].eval()(images(spec.image_size))
    assert (expected - fresh).abs().max() > 1e-2


@pytest.mark.parametrize("spec", tiny.FAMILIES.values(), ids=tiny.FAMILIES)
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_safetensors(spec, classes, tmp_path):
    model = source(spec, classes)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert_loads(spec, tmp_path / "w.safetensors", model)


@pytest.mark.parametrize(("spec", "layout", "suffix"), ORIGINALS.values(), ids=ORIGINALS)
def test_pytorch_files_in_their_original_layouts(spec, layout, suffix, tmp_path):
    model = source(spec, CLASSES)
    path = (tmp_path / "w").with_suffix(suffix)
    torch.save(layout(model.state_dict()), path)
    assert_loads(spec, path, model)


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_npz(prefix, tmp_path):
    model = source(VIT, CLASSES)
    np.savez(tmp_path / "w.npz", **flax(model.state_dict(), prefix))
    assert_loads(VIT, tmp_path / "w.npz", model)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
def test_position_embeddings_of_another_image_size_are_resized(suffix, tmp_path):
    model = source(VIT, CLASSES, size=64)
    path = (tmp_path / "w").with_suffix(suffix)
    if suffix == ".npz":
        np.savez(path, **flax(model.state_dict()))
    else:
        {".pth": torch.save, ".safetensors": save_file}[suffix](model.state_dict(), path)
    state = build(dataclasses.replace(VIT, weights=str(path)))[0].state_dict()
    wanted = model.state_dict()
    assert torch.equal(state["blocks.1.mlp.fc2.weight"], wanted["blocks.1.mlp.fc2.weight"])
    # The class token's embedding stays; the 8 x 8 grid becomes 4 x 4, which keeps its mean but for the edges.
    assert torch.equal(state["pos_embed"][:, 0], wanted["pos_embed"][:, 0])
    assert state["pos_embed"].shape == (1, 17, DIM)
    found, grid = state["pos_embed"][:, 1:].mean(1), wanted["pos_embed"][:, 1:].mean(1)
    assert (found - grid).abs().max() < 0.1 * wanted["pos_embed"].abs().max()


def refused(spec, path):
    """The one message of a refused file, which must name it."""
    with pytest.raises(UserError) as caught:
        build(dataclasses.replace(spec, weights=str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_missing_and_misshapen_tensors_are_named(suffix, tmp_path):
    save = {".pth": torch.save, ".safetensors": save_file}[suffix]
    path = (tmp_path / "w").with_suffix(suffix)
    state = source(VIT).state_dict()
    save({name: value for name, value in state.items() if name != "blocks.1.norm2.bias"}, path)
    assert "1 tensor missing ['blocks.1.norm2.bias'], 0 of" in refused(VIT, path)
    save(state | {"norm.weight": torch.zeros(DIM + 1)}, path)
    assert "0 tensors missing [], 1 of another shape ['norm.weight']" in refused(VIT, path)


def test_missing_and_misshapen_tensors_of_an_npz_are_named(tmp_path):
    arrays, path = flax(source(VIT, CLASSES).state_dict()), tmp_path / "w.npz"
    name = "Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"
    np.savez(path, **{key: value for key, value in arrays.items() if key != name})
    assert name in refused(VIT, path)
    np.savez(path, **arrays | {name: np.zeros((DIM + 1, DIM), np.float32)})
    assert "not loaded: ['blocks.1.mlp.fc1.weight'" in refused(VIT, path)


def test_what_the_npz_loader_leaves_out_is_missing(tmp_path):
    # Layer scale has no place in the format: timm's loader says nothing and leaves it as it is.
    np.savez(tmp_path / "w.npz", **flax(source(VIT, CLASSES).state_dict()))
    spec = dataclasses.replace(VIT, options=VIT.options | {"init_values": 0.5})
    missing = "4 tensors missing ['blocks.0.ls1.gamma', 'blocks.0.ls2.gamma', 'blocks.1.ls1.gamma']"
    assert missing in refused(spec, tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused(suffix, keep, tmp_path):
    path, state = (tmp_path / "w").with_suffix(suffix), source(VIT, CLASSES).state_dict()
    if suffix == ".npz":
        np.savez(path, **flax(state))
    else:
        {".pth": torch.save, ".safetensors": save_file}[suffix](state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    refused(VIT, path)


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps([1, 2], protocol=2)])
def test_foreign_files_are_refused(suffix, content, tmp_path):
    path = (tmp_path / "w").with_suffix(suffix)
    path.write_bytes(content)
    refused(VIT, path)


@pytest.mark.parametrize("spec", [SWIN, CONVNEXT], ids=["swin", "convnext"])
def test_other_families_have_no_npz_and_no_weights_of_a_vit(spec, tmp_path):
    model = source(VIT, CLASSES)
    np.savez(tmp_path / "w.npz", **flax(model.state_dict()))
    assert "original vision transformers" in refused(spec, tmp_path / "w.npz")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    refused(spec, tmp_path / "w.pth")


class Trap:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_no_code_of_a_file_is_run(tmp_path):
    state = source(VIT, CLASSES).state_dict()
    torch.save(state | {"trap": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    refused(VIT, tmp_path / "w.pth")
    cls = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "w.npz", **flax(state) | {"cls": cls})
    refused(VIT, tmp_path / "w.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_file_of_no_known_format_is_refused_at_planning(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"unknown file format.*safetensors"):
        weights.find(str(tmp_path / "w.h5"))
    with pytest.raises(UserError, match="no such file"):
        weights.find(str(tmp_path / "w.npz"))


def test_the_same_weights_are_one_identity_in_any_file(tmp_path):
    model = source(VIT, CLASSES)
    state = model.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    save_file(state, tmp_path / "b.safetensors", metadata={"format": "pt"})
    torch.save({"model": state}, tmp_path / "c.pth")
    np.savez(tmp_path / "d.npz", **flax(state))
    specs = [dataclasses.replace(VIT, weights=str(path)) for path in sorted(tmp_path.iterdir())]
    assert len(specs) == 4
    assert len({backbone_sha256(spec) for spec in specs}) == 1
    state["norm.bias"][0] += 1e-3
    save_file(state, tmp_path / "e.safetensors")
    other = dataclasses.replace(VIT, weights=str(tmp_path / "e.safetensors"))
    assert len({backbone_sha256(spec) for spec in (VIT, other, specs[0])}) == 3


def test_state_checksum_is_over_names_and_values():
    digest = hashlib.sha256()
    state = families.create(VIT, 0.0).state_dict()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().astype("<f4").tobytes())
    assert backbone_sha256(VIT) == digest.hexdigest()


def test_bundled_weights_are_known_by_their_file():
    spec = BackboneSpec("vit_tiny_patch16_224", "bundled:pocket.safetensors", 32)
    content = (weights.ASSETS / "pocket.safetensors").read_bytes()
    assert backbone_sha256(spec) == hashlib.sha256(content).hexdigest()


def test_every_family_has_a_small_backbone():
    models = [families.create(spec, 0.0) for spec in (*tiny.FAMILIES.values(), *tiny.FURTHER.values())]
    assert set(FAMILIES) <= {type(model).__name__ for model in models}
