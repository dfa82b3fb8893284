"""Loading of weights files into timm models: safetensors, the .npz of the original ViT, state dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petl_bench.backbones import state_dicts
from petl_bench.backbones.comparison import Fit, compare, first_sentence, patch_size
from petl_bench.backbones.misfit import explain
from petl_bench.errors import UserError

_PLAIN = ("", "state_dict.", "model.")
"""Usual places of a state dict in a file, of which no remark is made."""


def load(model: nn.Module, path: Path) -> list[str]:
    """Fill every tensor of a model from a weights file.

    All tensors of the file must have a place in the model, except for a classifier and a few others that a
    backbone does not need (petl_bench.backbones.comparison.HARMLESS).

    Args:
        model: timm model without classifier.
        path: weights file. An `.npz` is read by timm's loader of the original JAX weights of ViT. Any other
            file holds a state dict, as safetensors or read by torch.load with weights_only=True, at the top
            or below other entries, with or without a prefix. The converter of the model's family in timm
            accepts the layouts of original releases, and position embeddings of other image sizes.

    Returns:
        Remarks about what was taken from the file.

    Raises:
        UserError: the file cannot be read, holds numbers that are not finite, or its tensors and those of the
            model differ.
    """
    state_dicts.refuse_text(path)
    if path.suffix.lower() == ".npz":
        return _load_npz(model, path)
    try:
        content = state_dicts.read(path)
    except Exception as error:  # readers may raise anything on a foreign file
        raise _unreadable(path, model, error) from error
    fits = [
        compare(model, found.tensors, found.place)
        for found in state_dicts.candidates(content, len(model.state_dict()) // 2)
    ]
    if not fits:
        raise UserError(f"backbone weights {path}: holds no tensors by name; give the model's state dict")
    whole = [fit for fit in fits if not fit.count]
    if not whole:
        raise UserError(f"backbone weights {path} {explain(model, min(fits, key=_badness))}")
    chosen = whole[0]
    _require_finite(path, {name: chosen.state[name] for name in model.state_dict()})
    model.load_state_dict({name: chosen.state[name] for name in model.state_dict()})
    return [*_places(path, whole), *_resizes(path, chosen)]


def _badness(fit: Fit) -> tuple[bool, int]:
    """Return a measure of misfit; what stands below the number of a block is no model of its own."""
    inside = bool(re.search(r"(^|\.)\d+\.", fit.place)) or all(name[0].isdigit() for name in fit.source)
    return inside, fit.count


def _require_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise UserError(
            f"backbone weights {path}: {len(bad)} of {len(state)} tensors hold NaN or infinity {bad[:3]}; "
            "the training that wrote them has diverged, or the file is damaged"
        )


def _places(path: Path, whole: list[Fit]) -> list[str]:
    """Return a remark about the place of the tensors, unless it is the only one and a usual one."""
    place, others = whole[0].place, [fit.place for fit in whole[1:]]
    if place in _PLAIN and not others:
        return []
    said = f"the tensors under {place!r} are taken" if place else "the tensors at the top are taken"
    more = f" (those under {', '.join(map(repr, others[:3]))} would fit too)" if others else ""
    return [f"backbone weights {path}: {said}{more}"]


def _resizes(path: Path, fit: Fit) -> list[str]:
    if not fit.resized:
        return []
    name = fit.resized[0]
    before, after = (tuple(part[name].shape) for part in (fit.source, fit.state))
    more = f", and {len(fit.resized) - 1} more tensors" if len(fit.resized) > 1 else ""
    return [f"backbone weights {path}: {name} is resized from {before} to {after}{more}"]


@torch.no_grad()
def _load_npz(model: nn.Module, path: Path) -> list[str]:
    """Load an .npz by timm's loader, which writes into the model and may skip tensors on both sides."""
    loader = getattr(model, "load_pretrained", None)
    if loader is None:
        raise UserError(
            f"backbone weights {path}: .npz is the format of the original vision transformers; "
            f"a {type(model).__name__} loads .safetensors, .pth, .pt, .ckpt or .bin"
        )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.fill_(torch.nan)
    try:
        arrays = _arrays(path)
        _require_finite(path, arrays)
        loader(str(path))
    except UserError:
        raise
    except Exception as error:  # as above
        unset = [name for name, parameter in model.named_parameters() if parameter.isnan().any()]
        raise _unreadable(path, model, error, f"; not loaded: {unset[:3]}") from error
    state = model.state_dict()
    missing = [name for name, value in state.items() if value.isnan().any()]
    unused = _unused_arrays(model, arrays)
    patch = arrays["embedding/kernel"].permute(3, 2, 0, 1) if "embedding/kernel" in arrays else None
    misshapen = [
        name
        for name, value in state.items()
        if patch is not None and patch_size(value) not in (None, patch_size(patch))
    ]
    if missing or unused or misshapen:
        fit = Fit("", arrays, {}, missing, misshapen, unused, [])
        model.load_state_dict(before)
        raise UserError(f"backbone weights {path} {explain(model, fit)}")
    return []


def _arrays(path: Path) -> dict[str, Tensor]:
    """Return the numeric arrays of an .npz, without the prefix of a training state."""
    with np.load(path, allow_pickle=False) as file:
        names = [name for name in file.files if not name.startswith("opt/state")]
        found = {name: file[name] for name in names}
    return {
        re.sub(r"^(opt/target/|params/)", "", name): torch.from_numpy(np.atleast_1d(array).astype(np.float32))
        for name, array in found.items()
        if array.dtype.kind == "f"
    }


def _unused_arrays(model: nn.Module, arrays: Mapping[str, Tensor]) -> list[str]:
    """Return the arrays of an .npz that timm's loader passes over: further blocks, or an attention head."""
    depth = len(getattr(model, "blocks", ()))
    further = []
    for name, array in arrays.items():
        block = re.match(r"Transformer/encoderblock_(\d+)/", name)
        stacked = name.startswith("Transformer/encoderblock/") and len(array) != depth
        pooled = name.startswith("MAPHead_0/") and getattr(model, "attn_pool", None) is None
        if stacked or pooled or (block is not None and int(block[1]) >= depth):
            further.append(name)
    return further


def _unreadable(path: Path, model: nn.Module, error: Exception, more: str = "") -> UserError:
    return UserError(
        f"backbone weights {path}: damaged, or not weights of a {type(model).__name__} "
        f"({type(error).__name__}: {first_sentence(error)}{more}); give its state dict, best as .safetensors"
    )
