"""Explanation of weights that do not fit: how file and architecture differ, and what would fit."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from petl_bench.backbones.comparison import Fit, compare, first_sentence
from petl_bench.errors import UserError, counted

_VISUAL = re.compile(r"(module\.)?(visual|vision_model|vision_encoder)\.")
"""Beginnings of the names of an image tower's tensors in files that hold a text tower too."""
_SHOWN = 3
"""Names of tensors, and of architectures, that a message gives."""
_SECONDS = 10.0
"""Time after which no further architecture is tried."""
_PLAIN_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1408: "giant"}
_FAMILIES: tuple[tuple[str, str, Mapping[int, str]], ...] = (
    (
        r"stages\.\d+\.(blocks\.)?\d+\.(conv_dw|dwconv)",
        "convnext",
        {96: "tiny|small", 128: "base", 192: "large"},
    ),
    (r"layers\.\d+\..*logit_scale", "swin_transformer_v2", {96: "tiny|small", 128: "base", 192: "large"}),
    (r"layers\.\d+\.blocks\.\d+\.attn", "swin_transformer", {96: "tiny|small", 128: "base", 192: "large"}),
    (r"reg_token|storage_tokens|rope|\.(gamma_1|q_bias|q_proj|fc1_g)", "eva", _PLAIN_SIZES),
    (r"\.(gamma_1|q_bias|relative_position_bias_table)", "beit", _PLAIN_SIZES),
    (r"dist_token|\.gamma_1", "deit", _PLAIN_SIZES),
    (r"(blocks|resblocks)\.\d+\.", "vision_transformer", _PLAIN_SIZES),
)
"""Tensors by which a family is recognized, its module in timm, and the size in its names by width."""


def explain(model: nn.Module, fit: Fit) -> str:
    """Return how the tensors of a file and of a model differ, as the end of a sentence about the file."""
    if fit.unlike:
        return _no_weights(fit)
    parts = [
        f"{counted(len(fit.missing), 'tensor')} missing {_some(fit.missing)}",
        f"{len(fit.misshapen)} of another shape {_some(fit.misshapen)}",
        f"{len(fit.unused)} without a place in it {_some(fit.unused)}",
    ]
    if len(fit.missing) == len(model.state_dict()):
        parts.append(f"the file has {_some(list(fit.source))}")
    text = f"do not fit the architecture {_name(model)}: {', '.join(parts)}"
    if fit.place:
        text += f" (under {fit.place!r})"
    if difference := _differences(_traits(fit.source), _traits(model.state_dict()) | _heads(model)):
        text += f"; {difference}"
    if fit.trouble:
        text += f" ({fit.trouble})"
    fitting = _architectures(model, fit.source)
    return text + (f"; these fit: backbone.name={' or '.join(fitting)}" if fitting else "")


def _no_weights(fit: Fit) -> str:
    shown = [f"{name[:80]!r} {why}" for name, why in list(fit.unlike.items())[:_SHOWN]]
    return (
        f"hold {counted(len(fit.unlike), 'tensor')} that cannot be weights: {', '.join(shown)}; "
        "save the state dict of the model itself, with dense tensors of floating-point numbers"
    )


def _some(names: list[str]) -> str:
    return f"[{', '.join(repr(name[:80]) for name in names[:_SHOWN])}]"


def _name(model: nn.Module) -> str:
    return str(getattr(model, "default_cfg", {}).get("architecture", type(model).__name__))


def _traits(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Describe the properties of a model that follow from the shapes of its tensors."""
    # CLIP's files hold a text tower too, whose blocks are none of the backbone.
    tensors = {name: tensor for name, tensor in tensors.items() if _VISUAL.match(name)} or tensors
    paths = (re.match(r"(.*(?:blocks|encoderblock_)[./]?\d+)[./]", name) for name in tensors)
    blocks = {path[1] for path in paths if path is not None}
    found = {"blocks": counted(len(blocks), "block")} if blocks else {}
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last in ("reg_token", "register_tokens", "storage_tokens"):
            found["registers"] = counted(tensor.shape[1], "register token")
        if last in ("cls_token", "class_embedding"):
            found["width"] = f"width {tensor.shape[-1]}"
        if tensor.ndim == 4 and tensor.shape[1] == 3:
            found["patch"] = f"patches of {tensor.shape[2]} x {tensor.shape[3]} pixels"
        if name == "embedding/kernel":
            found["patch"] = f"patches of {tensor.shape[0]} x {tensor.shape[1]} pixels"
        if name.startswith("Transformer/encoderblock/"):
            found["blocks"] = counted(len(tensor), "block")
        if name.endswith("/query/kernel") and tensor.ndim > 2:
            found["heads"] = counted(tensor.shape[-2], "head")
        if re.search(r"(ls\d\.gamma|gamma_\d|\.gamma)$", name):
            found["scale"] = "layer scale"
    return found


def _heads(model: nn.Module) -> dict[str, str]:
    """Return the number of heads of a plain transformer, which does not follow from a state dict."""
    for block in getattr(model, "blocks", ()):
        if (heads := getattr(getattr(block, "attn", None), "num_heads", None)) is not None:
            return {"heads": counted(heads, "head")}
    return {}


_ABSENT = {"registers": "no register tokens", "scale": "no layer scale"}


def _differences(file: Mapping[str, str], model: Mapping[str, str]) -> str:
    """Describe the known properties in which file and model differ; empty if there are none."""
    kinds = [
        kind
        for kind in ("width", "blocks", "heads", "patch", "registers", "scale")
        if file.get(kind) != model.get(kind) and (kind in _ABSENT or (kind in file and kind in model))
    ]
    if not kinds:
        return ""
    sides = [", ".join(side.get(kind, _ABSENT.get(kind, "")) for kind in kinds) for side in (file, model)]
    return f"the file has {sides[0]}; the architecture has {sides[1]}"


def _architectures(model: nn.Module, source: dict[str, Tensor]) -> list[str]:
    """Return names of timm architectures whose tensors are those of a file, a few of them at most."""
    kernel = next((tensor for tensor in source.values() if tensor.ndim == 4 and tensor.shape[1] == 3), None)
    if kernel is None:
        return []
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    end, found = time.monotonic() + _SECONDS, list[str]()
    for told, module, sizes in _FAMILIES:
        if len(kernel) not in sizes or not any(re.search(told, name) for name in source):
            continue
        patch = f".*patch{kernel.shape[2]}_" if sizes is _PLAIN_SIZES else ""
        named = re.compile(f"_({sizes[len(kernel)]})_{patch}")
        for name in timm.list_models(module=module):
            if named.search(f"{name}_") and time.monotonic() < end and len(found) < _SHOWN:
                candidate = _on_meta(name, {"img_size": size} if size else {})
                if candidate is not None and not compare(candidate, source).count:
                    found.append(name)
    return found


def _on_meta(name: str, options: Mapping[str, object]) -> nn.Module | None:
    """Return a model without numbers; None if timm cannot build it with these options."""
    try:
        with torch.device("meta"):
            return timm.create_model(name, num_classes=0, **options)
    except Exception:  # any model may refuse the options
        return None


def unreadable(path: Path, model: nn.Module, error: Exception, more: str = "") -> UserError:
    """Return the error of a file that its reader could not read."""
    return UserError(
        f"backbone weights {path}: damaged, or not weights of a {type(model).__name__} "
        f"({type(error).__name__}: {first_sentence(error)}{more}); give its state dict, best as .safetensors"
    )
