"""Creation of timm models by name: deprecated names, options, input sizes, normalization."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import get_deprecated_models
from torch import nn
from torch.overrides import TorchFunctionMode

from petl_bench.errors import UserError, did_you_mean, out_of_memory
from petl_bench.types import NORMALIZATIONS, BackboneSpec

_ELSEWHERE = {
    "pretrained": "backbone.weights says which weights are loaded",
    "pretrained_cfg": "backbone.weights says which weights are loaded",
    "pretrained_cfg_overlay": "backbone.weights says which weights are loaded",
    "checkpoint_path": "backbone.weights=PATH loads a file",
    "cache_dir": "the environment variable HF_HOME says where downloads are kept",
    "scriptable": "it has no effect on numbers",
    "exportable": "it has no effect on numbers",
    "no_jit": "it has no effect on numbers",
    "num_classes": "the classes are those of the task",
    "in_chans": "images have 3 channels",
    "drop_path_rate": "train.drop_path is this rate",
    "img_size": "backbone.image_size is this size",
}
"""Keyword arguments of timm.create_model that are no options, because other settings stand for them."""


def current_name(name: str) -> str:
    """Return the name that timm now has for an architecture; it differs for deprecated names.

    Raises:
        UserError: timm has no such architecture.
    """
    deprecated = get_deprecated_models()
    if (successor := deprecated.get(name)) is not None:
        return successor
    architecture = name.partition(".")[0]
    if architecture in deprecated:
        now = f"is called {deprecated[architecture]} now" if deprecated[architecture] else "has been removed"
        raise UserError(f"backbone.name={name}: timm has no such model; {architecture} {now}")
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise UserError(f"backbone.name={name}: timm has no such model; {hint[:300]}")
    return name


def normalization(name: str) -> str:
    """Return the normalization of pixels that timm states for an architecture, by our name.

    Raises:
        UserError: timm has no such architecture, or states mean and deviation that have no name here.
    """
    stated = timm.get_pretrained_cfg(current_name(name))
    for known, (mean, std) in NORMALIZATIONS.items():
        if (mean, std) == (tuple(stated.mean), tuple(stated.std)):
            return known
    raise UserError(
        f"backbone.name={name}: timm normalizes its pixels by mean {stated.mean} and standard deviation "
        f"{stated.std}, which has no name here: choose train.normalization={' or '.join(NORMALIZATIONS)}"
    )


_FILES_OF_HUB = ("model.safetensors", "pytorch_model.bin")
"""Names that timm looks for in a repository of the hub."""


def downloaded(name: str) -> bool:
    """Return whether timm's pretrained weights of an architecture are on this machine."""
    stated = timm.get_pretrained_cfg(current_name(name))
    if stated.hf_hub_id:
        files = [stated.hf_hub_filename] if stated.hf_hub_filename else _FILES_OF_HUB
        return any(isinstance(try_to_load_from_cache(stated.hf_hub_id, file), str) for file in files)
    return bool(stated.url) and Path(torch.hub.get_dir(), "checkpoints", Path(stated.url).name).is_file()


class Uninitialized(TorchFunctionMode):
    """A context in which the random initialization of new modules does nothing, because it takes time.

    Tensors that are drawn at random where they are created, and constants, are as they would be otherwise.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _DRAWING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


_DRAWING = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    torch.Tensor.erfinv_,
    nn.init.kaiming_uniform_,
    nn.init.kaiming_normal_,
    nn.init.uniform_,
    nn.init.normal_,
}
"""Functions that fill a tensor with random numbers, and the last step of drawing from a truncated normal."""


def create(spec: BackboneSpec, drop_path: float) -> nn.Module:
    """Create a timm model without classifier, with timm's pretrained weights or random weights of seed 0.

    Args:
        spec: architecture; only `pretrained` weights are loaded. Weights that a file will replace are not
            initialized: they have any values.
        drop_path: stochastic depth rate at the last block.

    Raises:
        UserError: timm has no such model or cannot build it, or the image size is no multiple of its patches.
    """
    name = current_name(spec.name)
    for option in spec.options:
        if option in _ELSEWHERE:
            raise UserError(f"backbone.options.{option} is no option: {_ELSEWHERE[option]}")
    random_state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(0)  # models are created on the CPU
    from_file = spec.weights not in ("pretrained", "random")
    try:
        # Only architectures with a fixed input size have this argument; a ConvNeXt has none.
        sized = timm.get_pretrained_cfg(name).fixed_input_size
        with warnings.catch_warnings(action="ignore"), Uninitialized() if from_file else nullcontext():
            model = timm.create_model(
                name,
                pretrained=spec.weights == "pretrained",
                num_classes=0,
                drop_path_rate=drop_path,
                **({"img_size": spec.image_size} if sized else {}),
                **spec.options,
            )
    except Exception as error:  # models may raise anything on options that they do not have
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"backbone {spec.display_name}: timm cannot build it: {reason}") from error
    finally:
        torch.random.set_rng_state(random_state)
    _check_image_size(model, spec)
    return model


def _check_image_size(model: nn.Module, spec: BackboneSpec) -> None:
    """Refuse an image whose last rows and columns would fill no patch, so that the model would cut them.

    Raises:
        UserError: the size is no multiple of the patch size (of a ConvNeXt: of the stride of its last stage).
    """
    embedding: Any = getattr(model, "patch_embed", None)
    stages: Any = getattr(model, "feature_info", None)
    if hasattr(embedding, "feat_ratio"):
        padded, step = getattr(embedding, "dynamic_img_pad", False), embedding.feat_ratio()
    else:
        # All strided convolutions of a ConvNeXt are of that kind; those of others overlap and pad.
        padded = type(model).__name__ != "ConvNeXt"
        step = 1 if padded else stages[-1]["reduction"]
    step = step if isinstance(step, int) else max(step)
    if spec.image_size % step and not padded:
        below = spec.image_size // step * step
        near = " or ".join(str(size) for size in (below, below + step) if size)
        raise UserError(
            f"backbone.image_size={spec.image_size} is no multiple of the {step} pixels of a patch of "
            f"{spec.display_name}, which would cut the last rows and columns: choose {near}"
        )
