"""Loading of weights files into timm models: safetensors, the .npz of the original ViT, state dicts."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from petl_bench.backbones import npz, state_dicts
from petl_bench.backbones.comparison import Fit, compare, left_out_remarks
from petl_bench.backbones.misfit import explain, unreadable
from petl_bench.errors import UserError, counted

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
        UserError: the file cannot be read, holds numbers that are not finite or beyond float32, or its
            tensors and those of the model differ.
    """
    state_dicts.refuse_text(path)
    if path.suffix.lower() == ".npz":
        return npz.load(model, path)
    try:
        content = state_dicts.read(path)
    except Exception as error:  # readers may raise anything on a foreign file
        raise unreadable(path, model, error) from error
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
    state = {name: chosen.state[name] for name in model.state_dict()}
    state_dicts.refuse_numbers(path, state)
    model.load_state_dict(state)
    return [*_places(path, whole), *left_out_remarks(path, chosen.left_out), *_resizes(path, chosen)]


def _badness(fit: Fit) -> tuple[bool, int]:
    """Return a measure of misfit; what stands below the number of a block is no model of its own."""
    inside = bool(re.search(r"(^|\.)\d+\.", fit.place)) or all(name[0].isdigit() for name in fit.source)
    return inside, fit.count


def _places(path: Path, whole: list[Fit]) -> list[str]:
    """Return a remark about the place of the tensors, unless it is the only one and a usual one."""
    place, others = whole[0].place, [fit.place for fit in whole[1:]]
    if place in _PLAIN and not others:
        return []
    said = f"the tensors under {place!r} are taken" if place else "the tensors at the top are taken"
    more = f" (those under {', '.join(map(repr, others[:3]))} would fit too)" if others else ""
    return [f"backbone weights {path}: {said}{more}"]


def _resizes(path: Path, fit: Fit) -> list[str]:
    """Return a remark about the first tensor that was resized, by its name in the file."""
    if not fit.resized:
        return []
    name, origin = next(iter(fit.resized.items()))
    before, after = tuple(fit.source[origin].shape), tuple(fit.state[name].shape)
    more = f", and {counted(len(fit.resized) - 1, 'more tensor')}" if len(fit.resized) > 1 else ""
    return [f"backbone weights {path}: {origin} is resized from {before} to {after}{more}"]
