"""Weights files from outside, in every layout: what they state is compared, what is resized is told."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.types import BackboneSpec
from tests import tiny
from tests.conftest import error_of, quickly
from tests.test_checkpoints import (
    CLASSES,
    CLIP,
    CONVNEXT,
    DIM,
    DINOV2,
    VIT,
    flax,
    original_clip,
    original_convnext,
    original_dinov2,
    original_swin,
    renamed,
    same,
    source,
)
from tests.test_weights_files import loaded, refused


def with_heads(arrays, heads):
    """The arrays of an .npz, whose attention is divided into another number of heads."""
    found = dict(arrays)
    for name, array in arrays.items():
        if "MultiHead" in name:
            size = array.size // (DIM if name.endswith("kernel") else 1) // heads
            shape = (heads, size, DIM) if "/out/" in name else (DIM, heads, size)
            shape = shape if name.endswith("kernel") else (heads, size)
            found[name] = array if name.endswith("out/bias") else array.reshape(shape)
    return found


def newer(arrays):
    """The names of the repository google-research/big_vision."""
    pairs = [
        ("Transformer/posembed_input/", ""),
        ("LayerNorm_2", "LayerNorm_1"),
        ("Attention_1", "Attention_0"),
    ]
    return {f"params/img/{k}": v for k, v in renamed(arrays, *pairs, ("MlpBlock_3", "MlpBlock_0")).items()}


def stacked(arrays):
    """The names of the same repository where one array holds all blocks."""
    found = newer(arrays)
    for name in [name for name in found if "encoderblock_0" in name]:
        both = [found.pop(name.replace("_0/", f"_{i}/", 1)) for i in range(2)]
        found[name.replace("encoderblock_0", "encoderblock")] = np.stack(both)
    return found


NPZ = {"original": dict, "big_vision": newer, "stacked": stacked}


@pytest.mark.parametrize("layout", NPZ.values(), ids=NPZ)
def test_an_npz_states_its_heads(layout, tmp_path):
    path, state = tmp_path / "w.npz", source(VIT, CLASSES).state_dict()
    for heads in (1, 2, 3, 6):
        np.savez(path, **layout(with_heads(flax(state), heads)))
        if heads == VIT.options["num_heads"]:
            found, remarks = loaded(VIT, path)
            assert all(torch.equal(value, state[name]) for name, value in found.items())
            assert remarks == []
        else:
            said = f"the file has {heads} head{'s' * (heads > 1)}; the architecture has 3 heads"
            assert said in refused(VIT, path)


BLOCK = "Transformer/encoderblock_0/"
FURTHER = [
    f"{BLOCK}LayerScale_0/scale",
    f"{BLOCK}LayerNorm_1/bias",
    f"{BLOCK}MultiHeadDotProductAttention_1/query/scale",
    f"{BLOCK}MlpBlock_3/Dense_2/kernel",
    "Transformer/encoderblock_2/LayerNorm_0/scale",
    "Transformer/encoder_norm_1/scale",
    "MAPHead_0/probe",
    "registers",
]


@pytest.mark.parametrize("name", FURTHER)
def test_every_array_of_an_npz_has_a_place(name, tmp_path):
    arrays = flax(source(VIT, CLASSES).state_dict()) | {"pre_logits/kernel": np.ones((DIM, DIM), np.float32)}
    np.savez(tmp_path / "w.npz", **arrays | {name: np.ones((2, DIM), np.float32)})
    assert f"1 without a place in it [{name!r}]" in refused(VIT, tmp_path / "w.npz")


def test_a_class_token_has_no_place_in_a_model_without_one(tmp_path):
    options = VIT.options | {"class_token": False, "global_pool": "avg", "fc_norm": False}
    arrays = flax(source(VIT, CLASSES).state_dict())
    arrays["Transformer/posembed_input/pos_embedding"] = np.ones((1, 16, DIM), np.float32)
    np.savez(tmp_path / "w.npz", **arrays)
    assert "['cls']" in refused(dataclasses.replace(VIT, options=options), tmp_path / "w.npz")


SWIN = BackboneSpec(
    "swin_tiny_patch4_window7_224",
    "random",
    32,
    {"embed_dim": 16, "depths": [1, 1, 1], "num_heads": [1, 2, 4], "window_size": 4},
)


def deep_swin(state):
    """The original layout of three stages: each downsampling stands at the end of the stage before."""
    return {"model": renamed(original_swin(state)["model"], ("layers.2.downsample", "layers.1.downsample"))}


POSITIONS = "Transformer/posembed_input/pos_embedding"
LAYOUTS = {
    "timm": (VIT, same, "pos_embed"),
    "npz": (VIT, flax, POSITIONS),
    "big_vision": (VIT, lambda state: newer(flax(state)), "pos_embedding"),
    "stacked": (VIT, lambda state: stacked(flax(state)), "pos_embedding"),
    "dinov2": (DINOV2, original_dinov2, "pos_embed"),
    "clip": (CLIP, original_clip, "visual.positional_embedding"),
    "openclip": (
        CLIP,
        lambda state: {f"visual.trunk.{k}": v for k, v in state.items() if "head" not in k},
        "pos_embed",
    ),
    "swin": (SWIN, deep_swin, "relative_position_bias_table"),
    "beit": (tiny.FURTHER["BEiT"], same, "relative_position_bias_table"),
    "convnext": (CONVNEXT, original_convnext, ""),
}


@pytest.mark.parametrize(("spec", "layout", "table"), LAYOUTS.values(), ids=LAYOUTS)
def test_what_is_resized_is_told_and_nothing_else(spec, layout, table, tmp_path):
    larger = dataclasses.replace(spec, image_size=2 * spec.image_size)
    if "window_size" in spec.options:
        larger = dataclasses.replace(larger, options=spec.options | {"window_size": 8})
    for given in (spec, larger):
        content = layout(source(given, CLASSES).state_dict())
        path = tmp_path / ("w.npz" if "pos_embedding" in table else "w.pth")
        np.savez(path, **content) if path.suffix == ".npz" else torch.save(content, path)
        with warnings.catch_warnings(action="error"):
            remarks = [remark for remark in loaded(spec, path)[1] if " is resized from " in remark]
        if given is spec or not table:
            assert remarks == []
        else:
            assert len(remarks) == 1
            assert f"{table} is resized from (" in remarks[0]


KINDS = {
    "meta": (lambda value: value.to("meta"), "has no values"),
    "sparse": (torch.Tensor.to_sparse, "is not dense (torch.sparse_coo)"),
    "csr": (torch.Tensor.to_sparse_csr, "is not dense (torch.sparse_csr)"),
    "complex": (lambda value: value.to(torch.complex64), "has values of torch.complex64"),
    "int8": (lambda value: value.to(torch.int8), "has values of torch.int8"),
    "int64": (lambda value: value.long(), "has values of torch.int64"),
    "bool": (lambda value: value.bool(), "has values of torch.bool"),
    "quantized": (
        lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        "has values of torch.qint8",
    ),
}
"""Tensors that cannot be weights."""


@pytest.mark.filterwarnings("ignore")  # of torch, as it makes and saves such tensors
@pytest.mark.parametrize(("change", "said"), KINDS.values(), ids=KINDS)
def test_tensors_that_cannot_be_weights_are_refused_by_name(change, said, tmp_path):
    path, name = tmp_path / "w.pth", "blocks.0.attn.qkv.weight"
    state = source(VIT).state_dict()
    bad = state | {name: change(state[name])}
    torch.save(bad, path)
    assert f"hold 1 tensor that cannot be weights: {name!r} {said}" in refused(VIT, path)
    torch.save({"model": state, "model_ema": bad}, path)  # of two parts, the good one
    assert torch.equal(loaded(VIT, path)[0][name], state[name])


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.complex64, np.bool_])
def test_arrays_that_cannot_be_weights_are_refused_by_name(kind, tmp_path):
    arrays = flax(source(VIT, CLASSES).state_dict())
    np.savez(tmp_path / "w.npz", **arrays | {"cls": arrays["cls"].astype(kind)})
    assert f"'cls' has values of {np.dtype(kind)}" in refused(VIT, tmp_path / "w.npz")


@pytest.mark.parametrize("value", [1e39, -1e300])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_numbers_beyond_float32_are_refused(value, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    state = {name: tensor.double() for name, tensor in source(VIT, CLASSES).state_dict().items()}
    state["norm.weight"][3] = value
    if suffix == ".npz":
        np.savez(path, **flax(state))
    else:
        (save_file if suffix == ".safetensors" else torch.save)(state, path)
    with warnings.catch_warnings(action="error"):
        assert "beyond the range of float32, 3.4e+38" in refused(VIT, path)


@pytest.mark.parametrize("tower", ["", "text."])
def test_blocks_of_a_text_tower_are_not_counted(tower, tmp_path):
    text = {f"{tower}transformer.resblocks.{i}.ln_1.weight": torch.ones(8) for i in range(3)}
    torch.save(original_clip(source(CLIP, CLASSES).state_dict()) | text, tmp_path / "w.pt")
    shallow = dataclasses.replace(CLIP, options=CLIP.options | {"depth": 1})
    assert "the file has 2 blocks; the architecture has 1 block" in refused(shallow, tmp_path / "w.pt")


NO_BLOCKS = {
    "VisionTransformer": {"depth": 0},
    "SwinTransformer": {"depths": [0, 0]},
    "ConvNeXt": {"depths": [0, 0, 0, 0]},
}


@pytest.mark.parametrize(("family", "options"), NO_BLOCKS.items())
def test_a_backbone_without_blocks_is_refused(family, options):
    spec = tiny.FAMILIES[family]
    with pytest.raises(UserError, match=r"backbone .*(no blocks|cannot build)"):
        families.build(dataclasses.replace(spec, options=spec.options | options))


TIMM = ["backbone=timm", "backbone.name=vit_tiny_patch16_224", "backbone.image_size=32"]
POCKET = ["backbone=pocket"]
MISTAKES = {
    "unknown": [*POCKET, "backbone.options.foo.bar=1"],
    "blocks of the bundled weights": [*POCKET, "backbone.options.depth=1"],
    "a bundled input": [*POCKET, "backbone.image_size=36"],
    "no blocks": [*TIMM, "backbone.weights=random", "backbone.options.depth=0"],
    "unknown with random weights": [*TIMM, "backbone.weights=random", "backbone.options.foo=1"],
    "place of downloads": [*POCKET, "backbone.options.cache_dir=/x"],
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_plan_refuses_the_backbones_that_a_sweep_refuses(mistake, tmp_path):
    command = ["sweep=none", "task=digits", "scale=1", "adapter=linear", "launcher=local", *mistake]
    messages = {error_of(quickly("sweep", *command, *dry, cwd=tmp_path)) for dry in ([], ["--dry-run"])}
    assert len(messages) == 1
    assert messages.pop().startswith("backbone")
    assert not (tmp_path / "results").exists()
