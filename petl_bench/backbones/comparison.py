"""Comparison of the tensors of a weights file with those of a timm model."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from petl_bench.backbones.lineage import Lineage
from petl_bench.errors import counted

REPRESENTATION = "representation layer of a classifier"
HARMLESS = {
    "classifier": r"(head|head_dist|fc|classifier|last_linear|pre_classifier)\.",
    "mask token of a pretraining": r"(.*\.)?mask_token$",
    "head of a pretraining": r"(decoder\w*|\w+_head|predictor|projectors?|local_cls_norm)(\.|$)",
    REPRESENTATION: r"pre_logits\.",
    "temperature of a contrastive pretraining": r"logit_(scale|bias)$",
    "index buffer": r"(.*\.)?(relative_position_index|relative_coords_table|attn_mask|k_bias)$",
    "rotation buffer": r"rope\w*\.(periods|freqs|bands)$",
}
"""Tensors that a backbone does not need, by kind; all other tensors of a file must fit the model."""


UNTOLD = ("classifier", "index buffer", "rotation buffer")
"""Harmless tensors of which no remark is made: nearly every file has them, or the model computes them."""


@dataclass(frozen=True)
class Fit:
    """A comparison of the tensors of a file with those of a model.

    Attributes:
        place: place of the tensors in the file (petl_bench.backbones.state_dicts).
        source: tensors of the file by the file's names.
        state: tensors by the model's names.
        missing: names in the model that the file lacks.
        misshapen: names whose tensors have another shape, or patches of another size.
        unused: names in the file that have no place in the model.
        resized: names in the model whose tensors were resized for the size of the input, with their names in
            the file.
        unlike: names whose tensors are no weights, with the reason.
        trouble: error of timm's converter; empty: none.
        left_out: harmless names in the file that have no place in the model, by what they are.
    """

    place: str
    source: dict[str, Tensor]
    state: dict[str, Tensor]
    missing: list[str]
    misshapen: list[str]
    unused: list[str]
    resized: dict[str, str] = field(default_factory=dict)
    unlike: dict[str, str] = field(default_factory=dict)
    trouble: str = ""
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Return the number of tensors that do not fit."""
        return len(self.missing) + len(self.misshapen) + len(self.unused) + len(self.unlike)


def compare(model: nn.Module, tensors: Mapping[str, Tensor], place: str = "") -> Fit:
    """Compare tensors of a file, after timm's conversion of original layouts, with those of a model."""
    unlike = {
        name: why for name, tensor in tensors.items() if not _harmless(name) and (why := _unlike(tensor))
    }
    # The converters compute with the tensors.
    state, resized, trouble = (dict(tensors), {}, "") if unlike else _converted(model, tensors)
    wanted = model.state_dict()
    unlike |= {
        name: why
        for name, value in wanted.items()
        if name in state and (why := _of_other_numbers(value, state[name]))
    }
    missing = [name for name in wanted if name not in state]
    misshapen = [name for name, value in wanted.items() if name in state and value.shape != state[name].shape]
    unused = [name for name in state if name not in wanted and not _harmless(name)]
    patches = {patch_size(tensor) for tensor in tensors.values()} - {None}
    for name, value in wanted.items():  # the converters resample patches of another size
        if (
            patches
            and (own := patch_size(value)) is not None
            and own not in patches
            and name not in misshapen
        ):
            misshapen.append(name)
    resized = {name: origin for name, origin in resized.items() if name in wanted}
    left_out = _left_out(name for name in tensors if name not in wanted)
    return Fit(place, dict(tensors), state, missing, misshapen, unused, resized, unlike, trouble, left_out)


def _unlike(tensor: Tensor) -> str:
    """Return why a tensor cannot be a weight of any model; empty: it can."""
    if tensor.is_meta:
        return "has no values (it was saved from the device meta)"
    if tensor.is_sparse or tensor.layout is not torch.strided or tensor.is_nested:
        return f"is not dense ({'nested' if tensor.is_nested else tensor.layout})"
    if tensor.is_quantized or tensor.is_complex():
        return f"has values of {tensor.dtype}"
    return ""


def _of_other_numbers(wanted: Tensor, found: Tensor) -> str:
    """Return a message if only one of two tensors has an integer dtype; otherwise empty."""
    same = wanted.is_floating_point() == found.is_floating_point()
    return "" if same else f"has values of {found.dtype}"


def patch_size(tensor: Tensor) -> tuple[int, ...] | None:
    """Return height and width of the kernel of a convolution on RGB images; None for any other tensor."""
    return tuple(tensor.shape[2:]) if tensor.ndim == 4 and tensor.shape[1] == 3 else None


def _harmless(name: str) -> str:
    """Return the kind of a tensor that a backbone does not need; empty for all others."""
    return next((kind for kind, pattern in HARMLESS.items() if re.match(pattern, name)), "")


def left_out_remarks(path: Path, left_out: Mapping[str, list[str]]) -> list[str]:
    """Return a remark about tensors of a file that the model does not use, by kind."""
    kinds = [
        f"{kind} ({counted(len(names), 'tensor')}, the first is {names[0][:80]})"
        for kind, names in left_out.items()
    ]
    return [f"backbone weights {path}: not used: {', '.join(kinds)}"] if kinds else []


def _left_out(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of unneeded tensors that are reported to the user, by kind."""
    found: dict[str, list[str]] = {}
    for name in names:
        kind = _harmless(name)
        if kind and kind not in UNTOLD:
            found.setdefault(kind, []).append(name)
    return found


def _converted(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Convert tensors by timm's converter of the model's family.

    Returns:
        Tensors by timm's names; those which the converter has resized, with their names in the file; and its
        error where it cannot convert them.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(tensors), {}, ""
    scales = (
        {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(convert).parameters else {}
    )
    try:
        # Some converters print, and some use what torch warns of.
        silent, unprinted = (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
        )
        with silent, unprinted, Lineage(tensors) as lineage:
            found = convert(dict(tensors), model, **scales)
    except Exception as error:  # converters may raise anything on a foreign file
        return dict(tensors), {}, f"{type(error).__name__}: {first_sentence(error)}"
    state = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    return state, lineage.resized(state), ""


def first_sentence(error: Exception) -> str:
    """Return the beginning of a message; torch and timm go on to advise loading without their safeguard."""
    return " ".join(str(error).split()).split(". ")[0][:200]
