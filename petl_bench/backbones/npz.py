"""Loading of the .npz of the original vision transformers by timm's loader, with checks of what it skips."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petl_bench.backbones.comparison import REPRESENTATION, Fit, left_out_remarks, patch_size
from petl_bench.backbones.misfit import explain, unreadable
from petl_bench.backbones.state_dicts import refuse_numbers
from petl_bench.errors import UserError

_PLACES = ("opt/target/", "params/", "params/img/", "")
"""Beginnings of the names of an image model's arrays, in the order in which timm's loader looks for them."""
_BLOCK = re.compile(r"Transformer/encoderblock(?:_(?P<number>\d+))?/(?P<part>.+)")
_HEAD = r"head/"
_LAYER = r"pre_logits/"
"""Arrays of a classifier and of its representation layer, which a backbone does not need."""


@torch.no_grad()
def load(model: nn.Module, path: Path) -> list[str]:
    """Fill a model from an .npz by timm's loader, which may skip tensors of the model and arrays of the file.

    Returns:
        Remarks about what was taken from the file.

    Raises:
        UserError: see `petl_bench.backbones.pretrained.load`.
    """
    loader = getattr(model, "load_pretrained", None)
    if loader is None:
        raise UserError(
            f"backbone weights {path}: .npz is the format of the original vision transformers; "
            f"a {type(model).__name__} loads .safetensors, .pth, .pt, .ckpt or .bin"
        )
    try:
        arrays = _arrays(path)
    except Exception as error:  # numpy may raise anything on a foreign file
        raise unreadable(path, model, error) from error
    unlike = {
        name: f"has values of {array.dtype}" for name, array in arrays.items() if array.dtype.kind != "f"
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if name not in unlike}
    if unlike:
        fit = Fit("", tensors, {}, [], [], [], unlike=unlike)
        raise UserError(f"backbone weights {path} {explain(model, fit)}")
    layer = [name for name in tensors if re.match(_LAYER, name)]
    tensors = {name: tensor for name, tensor in tensors.items() if name not in layer}
    refuse_numbers(path, tensors)
    for parameter in model.parameters():
        parameter.fill_(torch.nan)
    try:
        loader(str(path))
    except Exception as error:  # as for np.load
        unset = [name for name, parameter in model.named_parameters() if parameter.isnan().any()]
        raise unreadable(path, model, error, f"; not loaded: {unset[:3]}") from error
    state = model.state_dict()
    missing = [name for name, value in state.items() if value.isnan().any()]
    misshapen = [*_other_patches(state, tensors), *_other_heads(model, tensors)]
    fit = Fit("", tensors, {}, missing, misshapen, _unused(model, tensors))
    if fit.count:
        raise UserError(f"backbone weights {path} {explain(model, fit)}")
    left_out = {REPRESENTATION: layer} if layer else {}
    return [*left_out_remarks(path, left_out), *_resizes(path, state, tensors)]


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of the image model in an .npz, without the beginning of their names.

    The files of SigLIP hold a text model too.
    """
    with np.load(path, allow_pickle=False) as file:
        names = file.files
        place = next((place for place in _PLACES if f"{place}embedding/kernel" in names), "")
        inside = [name for name in names if name.startswith(place)]
        found = {name.removeprefix(place): np.atleast_1d(file[name]) for name in inside}
    return {name: array for name, array in found.items() if not re.match(_HEAD, name)}


def _other_patches(state: Mapping[str, Tensor], arrays: Mapping[str, Tensor]) -> list[str]:
    """Return the kernels of a model whose patches are of another size than those of the file."""
    kernel = arrays.get("embedding/kernel")
    patch = patch_size(kernel.permute(3, 2, 0, 1)) if kernel is not None and kernel.ndim == 4 else None
    return [name for name, value in state.items() if patch and patch_size(value) not in (None, patch)]


def _other_heads(model: Any, arrays: Mapping[str, Tensor]) -> Iterator[str]:
    """Return the attention arrays that state another number of heads than the model has."""
    attentions = [block.attn for block in model.blocks]
    pool = getattr(model, "attn_pool", None)
    for name, array in arrays.items():
        if re.search(r"/(query|key|value)/kernel$", name) and array.ndim > 2:
            block = _BLOCK.match(name)
            number = int(block["number"] or 0) if block else 0
            found = (attentions if block else [pool] if pool else [])[number : number + 1]
            if found and array.shape[-2] != found[0].num_heads:
                yield name


def _unused(model: Any, arrays: Mapping[str, Tensor]) -> list[str]:
    """Return the arrays of an .npz that timm's loader passes over."""
    return [name for name in arrays if not _has_place(name, model, arrays)]


def _has_place(name: str, model: Any, arrays: Mapping[str, Tensor]) -> bool:
    """Return whether timm's loader (`_load_weights` of its vision_transformer.py) reads an array."""
    stacked = "Transformer/encoderblock/LayerNorm_0/scale" in arrays
    newer = stacked or "pos_embedding" in arrays  # repository google-research/big_vision
    if block := _BLOCK.match(name):
        attention, mlp, norm = (0, 0, 1) if newer else (1, 3, 2)
        known = (
            rf"LayerNorm_(0|{norm})/(scale|bias)|MlpBlock_{mlp}/Dense_[01]/(kernel|bias)"
            rf"|MultiHeadDotProductAttention_{attention}/(query|key|value|out)/(kernel|bias)"
        )
        number = block["number"]
        there = len(arrays[name]) == len(model.blocks) if number is None else int(number) < len(model.blocks)
        return there and stacked == (number is None) and re.fullmatch(known, block["part"]) is not None
    positions = "pos_embedding" if newer else "Transformer/posembed_input/pos_embedding"
    known = rf"embedding/(kernel|bias)|Transformer/encoder_norm/(scale|bias)|{positions}"
    if model.cls_token is not None:
        known += "|cls"
    if getattr(model, "attn_pool", None) is not None:
        known += (
            r"|MAPHead_0/(probe|LayerNorm_0/(scale|bias)|MlpBlock_0/Dense_[01]/(kernel|bias)"
            r"|MultiHeadDotProductAttention_0/(query|key|value|out)/(kernel|bias))"
        )
    if hasattr(model.patch_embed, "backbone"):  # convolutions before the transformer
        known += r"|conv_root/kernel|gn_root/(scale|bias)"
        known += r"|block\d+/unit\d+/(conv(\d|_proj)/kernel|gn(\d|_proj)/(scale|bias))"
    return re.fullmatch(known, name) is not None


def _resizes(path: Path, state: Mapping[str, Tensor], arrays: Mapping[str, Tensor]) -> Iterator[str]:
    """Return a remark where the position embeddings of the file are those of another input size."""
    for name, array in arrays.items():
        if name.endswith("pos_embedding") and array.numel() != state["pos_embed"].numel():
            before, after = tuple(array.shape), tuple(state["pos_embed"].shape)
            yield f"backbone weights {path}: {name} is resized from {before} to {after}"
