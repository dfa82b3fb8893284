"""Comparison of the tensors of a weights file with those of a timm model."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

HARMLESS = {
    "classifier": r"(head|head_dist|fc|classifier|last_linear|pre_classifier)\.",
    "mask token of a pretraining": r"(.*\.)?mask_token$",
    "head of a pretraining": r"(decoder\w*|\w+_head|predictor|projectors?|local_cls_norm)(\.|$)",
    "temperature of a contrastive pretraining": r"logit_(scale|bias)$",
    "index buffer": r"(.*\.)?(relative_position_index|relative_coords_table|attn_mask|k_bias)$",
    "rotation buffer": r"rope\w*\.(periods|freqs|bands)$",
}
"""Tensors of a file that a backbone does not need, by what they are; all others must have a place in it."""


@dataclass(frozen=True)
class Fit:
    """A comparison of the tensors of a file with those of a model.

    Attributes:
        place: place of the tensors in the file (petl_bench.backbones.state_dicts).
        source: tensors of the file by the file's names.
        state: tensors by the model's names.
        missing: names in the model that the file lacks.
        misshapen: names whose tensors have another shape or kind of number, or patches of another size.
        unused: names in the file that have no place in the model.
        resized: names whose tensors were resized for the size of the input.
        trouble: error of timm's converter; empty: none.
    """

    place: str
    source: dict[str, Tensor]
    state: dict[str, Tensor]
    missing: list[str]
    misshapen: list[str]
    unused: list[str]
    resized: list[str]
    trouble: str = ""

    @property
    def count(self) -> int:
        """Return the number of tensors that do not fit."""
        return len(self.missing) + len(self.misshapen) + len(self.unused)


def compare(model: nn.Module, tensors: Mapping[str, Tensor], place: str = "") -> Fit:
    """Compare tensors of a file, after timm's conversion of original layouts, with those of a model."""
    state, trouble = _converted(model, tensors)
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    misshapen = [name for name, value in wanted.items() if name in state and not _alike(value, state[name])]
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
    resized = [name for name in state if name in tensors and state[name].numel() != tensors[name].numel()]
    return Fit(place, dict(tensors), state, missing, misshapen, unused, resized, trouble)


def _alike(wanted: Tensor, found: Tensor) -> bool:
    return wanted.shape == found.shape and wanted.is_floating_point() == found.is_floating_point()


def patch_size(tensor: Tensor) -> tuple[int, ...] | None:
    """Return height and width of the kernel of a convolution on RGB images; None for any other tensor."""
    return tuple(tensor.shape[2:]) if tensor.ndim == 4 and tensor.shape[1] == 3 else None


def _harmless(name: str) -> bool:
    return any(re.match(pattern, name) for pattern in HARMLESS.values())


def _converted(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return tensors by timm's names, and the error of timm's converter where it cannot convert them."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(tensors), ""
    scales = (
        {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(convert).parameters else {}
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some converters print
            state = convert(dict(tensors), model, **scales)
    except Exception as error:  # converters may raise anything on a foreign file
        return dict(tensors), f"{type(error).__name__}: {first_sentence(error)}"
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}, ""


def first_sentence(error: Exception) -> str:
    """Return the beginning of a message; torch and timm go on to advise loading without their safeguard."""
    return " ".join(str(error).split()).split(". ")[0][:200]
