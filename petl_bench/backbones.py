"""timm models by name: built, loaded, frozen; and the adapter sites of each family."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from petl_bench import weights
from petl_bench.errors import UserError, did_you_mean
from petl_bench.registry import Registry
from petl_bench.sites import BlockSites, Branch, Sites, Slot
from petl_bench.types import BackboneSpec

FAMILIES: Registry[Callable[[nn.Module], Sites]] = Registry("backbone family")
"""Sites of each family, filed under the name of its timm class."""


def build(spec: BackboneSpec, drop_path: float = 0.0) -> tuple[nn.Module, Sites]:
    """A frozen backbone without classifier, on the CPU, and its sites.

    Args:
        spec: architecture and weights; `random` weights are those of seed 0.
        drop_path: stochastic depth rate at the last block, rising linearly from 0 at the first.

    Raises:
        UserError: unknown architecture, family or weights file, or weights that do not fit.
    """
    model = create(spec, drop_path)
    path = weights.find(spec.weights)
    if path is not None:
        _load(model, path)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, FAMILIES.get(type(model).__name__)(model)


def state_checksum(spec: BackboneSpec) -> str:
    """SHA-256 over names and values of the weights that timm provides (pretrained or random)."""
    return _state_checksum(spec.weights, spec.name, spec.image_size, repr(sorted(spec.options.items())))


@cache
def _state_checksum(source: str, name: str, image_size: int, options: str) -> str:
    spec = BackboneSpec(name, source, image_size, dict(ast.literal_eval(options)))
    digest = hashlib.sha256()
    for key, value in sorted(create(spec, 0.0).state_dict().items()):
        digest.update(key.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def create(spec: BackboneSpec, drop_path: float) -> nn.Module:
    """The timm model without classifier: timm's pretrained weights, or random ones of seed 0."""
    if not timm.is_model(spec.name):
        hint = did_you_mean(spec.name, timm.list_models())
        raise UserError(f"backbone.name={spec.name}: timm has no such model; {hint[:300]}")
    random_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        return timm.create_model(
            spec.name,
            pretrained=spec.weights == "pretrained",
            img_size=spec.image_size,
            num_classes=0,
            drop_path_rate=drop_path,
            **spec.options,
        )
    except (TypeError, RuntimeError, OSError, AssertionError) as error:
        raise UserError(f"backbone {spec.display_name}: timm cannot build it: {error}") from error
    finally:
        torch.random.set_rng_state(random_state)


def _load(model: nn.Module, path: Path) -> None:
    """Load every backbone tensor from a safetensors file; a classifier in the file is left out."""
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"backbone weights {path}: not a readable safetensors file: {error}") from error
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    misshapen = [k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape]
    if missing or misshapen:
        raise UserError(
            f"backbone weights {path} do not fit the architecture: "
            f"{len(missing)} tensors missing {missing[:3]}, {len(misshapen)} of another shape {misshapen[:3]}"
        )
    model.load_state_dict({key: state[key].float() for key in wanted})


@FAMILIES.register("VisionTransformer")
def _vision_transformer(model: nn.Module) -> Sites:
    assert isinstance(model, VisionTransformer)
    blocks = []
    for block in model.blocks:
        if not all(hasattr(block, name) for name in ("norm2", "mlp", "ls2", "drop_path2")):
            raise UserError(f"backbone: blocks of type {type(block).__name__} are not plain ViT blocks")
        attention, mlp = block.attn, block.mlp
        linears = {
            "qkv": Slot(attention, "qkv"),
            "proj": Slot(attention, "proj"),
            "fc1": Slot(mlp, "fc1"),
            "fc2": Slot(mlp, "fc2"),
        }
        branch = Branch(*(Slot(block, name) for name in ("norm2", "mlp", "ls2", "drop_path2")))
        blocks.append(BlockSites(model.embed_dim, linears, branch))
    return Sites(blocks, Slot(model, "head"), model.num_features)
