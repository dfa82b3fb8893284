"""timm models by name: created, loaded and frozen, with the adapter sites of each family."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXt
from timm.models.lowformer import LowFormer, LowFormerBlock, ResidualBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from petl_bench.backbones import pretrained, weights
from petl_bench.backbones.creation import create
from petl_bench.backbones.sites import BlockSites, Branch, Operation, Sites, Slot, TokenGrid
from petl_bench.errors import UserError
from petl_bench.registry import Registry
from petl_bench.types import BackboneSpec

FAMILIES: Registry[Callable[[nn.Module], Sites]] = Registry("backbone family")
"""Functions that return the sites of a model, registered under the name of its timm class."""

_checksums: dict[str, str] = {}
_remarks: dict[str, list[str]] = {}


def build(spec: BackboneSpec, drop_path: float = 0.0) -> tuple[nn.Module, Sites]:
    """Build a frozen backbone without classifier on the CPU.

    Args:
        spec: architecture and weights; `random` weights are those of seed 0.
        drop_path: stochastic depth rate at the last block; it rises linearly from 0 at the first block (in
            ConvNeXt from stage to stage).

    Returns:
        The backbone and its sites.

    Raises:
        UserError: architecture, family or weights file are unknown, or the weights do not fit.
    """
    model = create(spec, drop_path)
    path = weights.find(spec.weights)
    if path is not None:
        _remarks[repr(spec)] = pretrained.load(model, path)
    model = freeze_batch_norm_2d(model)  # keeps the statistics of the pretraining
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, FAMILIES.get(type(model).__name__)(model)


def state_checksum(spec: BackboneSpec) -> str:
    """Return the SHA-256 over names and float32 values of a loaded backbone, for any file format."""
    key = repr(spec)
    if key not in _checksums:
        digest = hashlib.sha256()
        for name, value in sorted(build(spec)[0].state_dict().items()):
            digest.update(name.encode() + value.float().contiguous().numpy().tobytes())
        _checksums[key] = digest.hexdigest()
    return _checksums[key]


def remarks(spec: BackboneSpec) -> list[str]:
    """Return remarks about what a backbone that was built has taken from its weights file."""
    return _remarks.get(repr(spec), [])


@FAMILIES.register("VisionTransformer")
def _vision_transformer(model: nn.Module) -> Sites:
    assert isinstance(model, VisionTransformer)
    blocks = [_transformer_block(Slot(model.blocks, str(i)), "ls2") for i in range(len(model.blocks))]
    first = model.global_pool == "token" and model.attn_pool is None
    layout = TokenGrid(model.num_prefix_tokens, model.patch_embed.grid_size)
    return Sites(
        blocks,
        dict(model.named_parameters()),
        Slot(model, "head"),
        model.num_features,
        _operations(model),
        layout,
        first,
    )


@FAMILIES.register("SwinTransformer")
def _swin_transformer(model: nn.Module) -> Sites:
    assert isinstance(model, SwinTransformer)
    slots = [Slot(stage.blocks, str(i)) for stage in model.layers for i in range(len(stage.blocks))]
    # The bias-free linear of a patch merging is one operation with the norm before it (dongzelian/SSF).
    operations = [found for found in _operations(model) if found.slot.name != "reduction"]
    return Sites(
        [_transformer_block(slot) for slot in slots],
        dict(model.named_parameters()),
        Slot(model.head, "fc"),
        model.num_features,
        operations,
        TokenGrid(0, None),
    )


def _transformer_block(slot: Slot, *further: str) -> BlockSites:
    block: Any = slot.get()
    needed = ("norm1", "attn", "drop_path1", "norm2", "mlp", "drop_path2", *further)
    if not all(hasattr(block, name) for name in needed):
        raise UserError(f"backbone: blocks of type {type(block).__name__} are not plain transformer blocks")
    linears = {role: Slot(block.attn, role) for role in ("qkv", "proj")}
    linears |= {role: Slot(block.mlp, role) for role in ("fc1", "fc2")}
    branches = {
        "attention": Branch(Slot(block, "norm1"), Slot(block, "drop_path1")),
        "mlp": Branch(Slot(block, "norm2"), Slot(block, "drop_path2")),
    }
    return BlockSites(slot, block.attn.qkv.in_features, linears, branches)


@FAMILIES.register("ConvNeXt")
def _convnext(model: nn.Module) -> Sites:
    assert isinstance(model, ConvNeXt)
    blocks = []
    for stage in model.stages:
        for index, block in enumerate(stage.blocks):
            # The small variants have convolutions in place of the linears.
            fc = {role: getattr(block.mlp, role) for role in ("fc1", "fc2")}
            linears = {role: Slot(block.mlp, role) for role in fc if isinstance(fc[role], nn.Linear)}
            branch = Branch(Slot(block, "conv_dw"), Slot(block, "drop_path"), channels_first=True)
            slot = Slot(stage.blocks, str(index))
            blocks.append(BlockSites(slot, block.conv_dw.out_channels, linears, {"mlp": branch}))
    return Sites(
        blocks,
        dict(model.named_parameters()),
        Slot(model.head, "fc"),
        model.head_hidden_size,
        _operations(model),
        TokenGrid(0, None),
    )


@FAMILIES.register("LowFormer")
def _lowformer(model: nn.Module) -> Sites:
    """Return the blocks with attention, in the last two stages; their 1 x 1 convolutions are not linears."""
    assert isinstance(model, LowFormer)
    blocks = []
    for stage in model.stages:
        for index, block in enumerate(stage):
            if not isinstance(block, LowFormerBlock):
                continue
            residuals = {"attention": block.attn, "mlp": block.mlp}
            if not all(isinstance(residual, ResidualBlock) for residual in residuals.values()):
                raise UserError("backbone: a LowFormer without attention or MLP has no sites for adapters")
            branches = {
                role: Branch(Slot(residual.main, "0"), Slot(residual, "drop_path"), channels_first=True)
                for role, residual in residuals.items()
            }
            width = block.mlp.main[1].in_channels
            blocks.append(BlockSites(Slot(stage, str(index)), width, {}, branches))
    return Sites(
        blocks,
        dict(model.named_parameters()),
        Slot(model, "classifier"),
        model.head_hidden_size,
        _operations(model),
        TokenGrid(0, None),
    )


def _operations(model: nn.Module) -> list[Operation]:
    """Return every linear, convolution and layer norm of a model."""
    found = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm):
            parent, _, name = path.rpartition(".")
            first = isinstance(module, nn.Conv2d | LayerNorm2d)
            channels = module.bias if module.bias is not None else module.weight
            found.append(Operation(Slot(model.get_submodule(parent), name), len(channels), first))
    return found
