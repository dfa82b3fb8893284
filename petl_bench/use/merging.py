"""Adapters merged into the weights of plain timm models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from petl_bench.backbones.creation import create
from petl_bench.backbones.sites import FirstToken
from petl_bench.errors import UserError
from petl_bench.model import restore
from petl_bench.types import BackboneSpec
from petl_bench.use.files import Trained

_PARTS = "qkv"
"""Parts of a fused projection, in order."""


def merged(trained: Trained) -> nn.Module:
    """Return a plain timm model with adapter and head in its own weights: float32, on the CPU, frozen.

    It is the model that `timm.create_model` makes with the classes of the task; its state dict can be loaded
    there. Its outputs are those of the adapted model in fp32, up to rounding.

    Raises:
        UserError: the method adds what is no weight of the backbone, so that it cannot be merged.
    """
    network = restore(trained.facts.model, trained.file, trained.where)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FirstToken):
                setattr(parent, name, child.module)
    adapter = trained.facts.model.adapter.name
    refusal = (
        f"{trained.where}: {adapter} cannot be merged into the weights of {trained.backbone.display_name}"
    )
    foreign = sorted(
        {
            type(m).__name__
            for m in network.modules()
            if type(m).__module__.split(".")[0] not in ("torch", "timm")
        }
    )
    if foreign:
        raise UserError(f"{refusal}: its modules ({', '.join(foreign)}) are no weights of the backbone")
    return timm_model(network, trained.backbone, trained.facts.model.classes, refusal)


def timm_model(network: nn.Module, backbone: BackboneSpec, classes: int, refusal: str) -> nn.Module:
    """Return a plain timm model with the weights of a network without adapter: float32, on the CPU, frozen.

    Args:
        network: modules of timm alone, with a head.
        backbone: the backbone that they were made from.
        classes: number of classes of the head.
        refusal: first part of the message where timm's model has other weights.

    Raises:
        UserError: timm's model has other weights.
    """
    with torch.random.fork_rng(devices=[]):
        plain: Any = create(replace(backbone, weights="random"), drop_path=0.0)
        plain.reset_classifier(classes)
    state = _as_timm(network.state_dict(), plain.state_dict())
    wanted = plain.state_dict()
    misfits = sorted(
        name
        for name in state.keys() | wanted.keys()
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape
    )
    if misfits:
        raise UserError(f"{refusal}: timm's model has no such weights, or others: {', '.join(misfits[:3])}")
    plain.load_state_dict(state)
    model: nn.Module = plain.eval().requires_grad_(False)
    return model


def _as_timm(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with projections of queries, keys and values apart where timm has them apart.

    Counters of batches, which evaluation does not use, and the bias of a head without one are added.
    """
    found = dict(state)
    for name, value in wanted.items():
        if name in found:
            continue
        separate = re.fullmatch(r"(.*\.)([qkv])_(?:proj\.)?(weight|bias)", name)
        fused = f"{separate[1]}qkv.{separate[3]}" if separate else ""
        if separate and fused in state:
            found[name] = state[fused].chunk(3)[_PARTS.index(separate[2])]
        elif name.endswith("num_batches_tracked") or name.removesuffix("bias") + "weight" in state:
            found[name] = torch.zeros_like(value)
    for fused in [name for name in found if name not in wanted]:
        stem, _, kind = fused.rpartition("qkv.")
        homes = [{f"{stem}{part}_proj.{kind}", f"{stem}{part}_{kind}"} & wanted.keys() for part in _PARTS]
        values = state[fused].chunk(3)
        # Keys have no bias in some models.
        if any(homes) and all(home or not value.any() for home, value in zip(homes, values, strict=True)):
            del found[fused]
    return found
