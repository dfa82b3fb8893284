"""Loading of weights files into timm models: safetensors, the .npz of the original ViT, state dicts."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from petl_bench.errors import UserError


def load(model: nn.Module, path: Path) -> None:
    """Fill every tensor of a model from a weights file; other tensors of the file are ignored.

    Args:
        model: timm model without classifier.
        path: weights file. An `.npz` is read by timm's loader of the original JAX weights of ViT. Any other
            file is a state dict, as safetensors or read by torch.load with weights_only=True; the converter
            of the model's family in timm accepts the layouts of original releases, and position embeddings
            of other image sizes.

    Raises:
        UserError: the file cannot be read, or tensors are missing or have other shapes.
    """
    state = _read_npz(model, path) if path.suffix == ".npz" else _read_state_dict(model, path)
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in state]
    misshapen = [key for key in wanted if key in state and wanted[key].shape != state[key].shape]
    if missing or misshapen:
        raise UserError(
            f"backbone weights {path} do not fit the architecture: "
            f"{len(missing)} tensors missing {missing[:3]}, {len(misshapen)} of another shape {misshapen[:3]}"
        )
    model.load_state_dict({key: state[key] for key in wanted})


def _read_state_dict(model: nn.Module, path: Path) -> dict[str, Tensor]:
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        state = load_state_dict(str(path))
        if convert is not None:
            state = convert(state, model)
        return {key: value for key, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:  # readers and converters of timm may raise anything on a foreign file
        raise _unreadable(path, model, error) from error


@torch.no_grad()
def _read_npz(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the tensors that timm's loader has set; it writes into the model and may skip some of them."""
    loader = getattr(model, "load_pretrained", None)
    if loader is None:
        raise UserError(
            f"backbone weights {path}: .npz is the format of the original vision transformers; "
            f"a {type(model).__name__} loads .safetensors, .pth, .pt or .bin"
        )
    for parameter in model.parameters():
        parameter.fill_(torch.nan)
    try:
        loader(str(path))
    except Exception as error:  # as above
        unset = [name for name, parameter in model.named_parameters() if parameter.isnan().any()]
        raise _unreadable(path, model, error, f"; not loaded: {unset[:3]}") from error
    return {key: value for key, value in model.state_dict().items() if not value.isnan().any()}


def _unreadable(path: Path, model: nn.Module, error: Exception, more: str = "") -> UserError:
    # Only the first sentence, since torch and timm go on to advise loading without their safeguard.
    reason = " ".join(str(error).split()).split(". ")[0]
    return UserError(
        f"backbone weights {path}: damaged, or not weights of a {type(model).__name__} "
        f"({type(error).__name__}: {reason}{more}); give its state dict, best as .safetensors"
    )
