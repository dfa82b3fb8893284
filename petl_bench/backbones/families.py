"""timm models by name: created, loaded and frozen, with the adapter sites of each family."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from timm.layers import LayerNorm2d
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.lowformer import LowFormer, LowFormerBlock, ResidualBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from petl_bench.backbones import pretrained, weights
from petl_bench.backbones.creation import create
from petl_bench.backbones.sites import BlockSites, Branch, Operation, SharedSlot, Sites, Slot, TokenGrid
from petl_bench.errors import UserError
from petl_bench.registry import Registry
from petl_bench.types import BackboneSpec

FAMILIES: Registry[Callable[[nn.Module], Sites]] = Registry("backbone family", "FAMILIES")
"""Functions that return the sites of a model, registered under the name of its timm class."""

SUPPORTED = (
    "ViT (also DeiT, DINO, DINOv2, MAE, CLIP, SigLIP), EVA-02, DINOv3, BEiT, Swin, Swin-V2, ConvNeXt "
    "and LowFormer"
)
"""The families in the words of their papers."""

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
    return model, sites_of(model, spec)


def sites_of(model: nn.Module, spec: BackboneSpec) -> Sites:
    """Return the sites of a backbone, whose attention then has fused projections.

    Raises:
        UserError: its family is unknown, or it has no blocks.
    """
    family = type(model).__name__
    if family not in FAMILIES:
        raise UserError(
            f"backbone {spec.display_name}: unknown backbone family {family!r}, which has no places for "
            f"adapters here; supported are {SUPPORTED}"
        )
    sites = FAMILIES.get(family)(model)
    if not sites.blocks:
        raise UserError(
            f"backbone {spec.display_name}: has no blocks, so that nothing can be adapted; correct "
            f"backbone.options={spec.options}"
        )
    return sites


def state_checksum(spec: BackboneSpec) -> str:
    """Return the SHA-256 over names and float32 values of a loaded backbone, for any file format."""
    key = repr(spec)
    if key not in _checksums:
        _checksums[key] = checksum(build(spec)[0])
    return _checksums[key]


def checksum(model: nn.Module) -> str:
    """Return the SHA-256 over names and float32 values of a loaded backbone on the CPU."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().contiguous().numpy())
    return digest.hexdigest()


def remarks(spec: BackboneSpec) -> list[str]:
    """Return remarks about what a backbone that was built has taken from its weights file."""
    return _remarks.get(repr(spec), [])


@FAMILIES.register("VisionTransformer")
def _vision_transformer(model: nn.Module) -> Sites:
    assert isinstance(model, VisionTransformer)
    return _plain(model, "ls2")


@FAMILIES.register("VisionTransformerDistilled")
def _distilled(model: nn.Module) -> Sites:
    """Return the sites of a DeiT with a distillation token: the head reads the mean of two tokens."""
    assert isinstance(model, VisionTransformerDistilled)
    return replace(_plain(model, "ls2"), head=SharedSlot(model, "head", "head_dist"), first_token=False)


@FAMILIES.register("Eva")
def _eva(model: nn.Module) -> Sites:
    """Return the sites of EVA, EVA-02 and DINOv3, whose attention rotates queries and keys by position."""
    assert isinstance(model, Eva)
    return replace(_plain(model), fixed_tokens=model.rope is not None)


@FAMILIES.register("Beit")
def _beit(model: nn.Module) -> Sites:
    """Return the sites of BEiT, whose attention has a bias for each pair of positions."""
    assert isinstance(model, Beit)
    return replace(_plain(model), fixed_tokens=True)


def _plain(model: Any, *further: str) -> Sites:
    """Return the sites of a transformer with one sequence of tokens.

    Args:
        further: what its blocks have besides the parts of all plain blocks.
    """
    blocks = [_transformer_block(Slot(model.blocks, str(i)), *further) for i in range(len(model.blocks))]
    first = model.global_pool == "token" and getattr(model, "attn_pool", None) is None
    return Sites(
        blocks,
        dict(model.named_parameters()),
        Slot(model, "head"),
        model.num_features,
        _operations(model),
        TokenGrid(model.num_prefix_tokens, model.patch_embed.grid_size),
        first,
    )


@FAMILIES.register("SwinTransformer")
@FAMILIES.register("SwinTransformerV2")
def _swin_transformer(model: nn.Module) -> Sites:
    """Return the sites of Swin and Swin-V2.

    The blocks of Swin-V2 normalize the output of a branch, not its input, so that they have linears only.
    """
    assert isinstance(model, SwinTransformer | SwinTransformerV2)
    slots = [Slot(stage.blocks, str(i)) for stage in model.layers for i in range(len(stage.blocks))]
    blocks = [_transformer_block(slot) for slot in slots]
    if isinstance(model, SwinTransformerV2):
        blocks = [replace(block, branches={}) for block in blocks]
    # The bias-free linear of a patch merging is one operation with the norm beside it (dongzelian/SSF); the
    # linears of Swin-V2 in a Sequential compute its position biases.
    operations = [
        found
        for found in _operations(model)
        if found.slot.name != "reduction" and type(found.slot.parent) is not nn.Sequential
    ]
    return Sites(
        blocks,
        dict(model.named_parameters()),
        Slot(model.head, "fc"),
        model.num_features,
        operations,
        TokenGrid(0, None),
    )


def _transformer_block(slot: Slot, *further: str) -> BlockSites:
    block: Any = slot.get()
    needed = ("norm1", "attn", "drop_path1", "norm2", "mlp", "drop_path2", *further)
    if not all(hasattr(block, name) for name in needed) or type(block).__name__.endswith("PostNorm"):
        raise UserError(f"backbone: blocks of type {type(block).__name__} are not plain transformer blocks")
    _fuse_qkv(block.attn)
    linears = {role: Slot(block.attn, role) for role in ("qkv", "proj")}
    linears |= {role: Slot(block.mlp, role) for role in ("fc1", "fc2") if hasattr(block.mlp, role)}
    branches = {
        "attention": Branch(Slot(block, "norm1"), Slot(block, "drop_path1")),
        "mlp": Branch(Slot(block, "norm2"), Slot(block, "drop_path2")),
    }
    return BlockSites(slot, block.attn.qkv.in_features, linears, branches)


def _fuse_qkv(attention: Any) -> None:
    """Replace separate projections or biases of queries, keys and values by one linear `qkv`, in place."""
    parts: list[Any] = [getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj")]
    biases: list[Any] = [getattr(attention, name, None) for name in ("q_bias", "k_bias", "v_bias")]
    if all(parts):
        if len({len(part.weight) for part in parts}) > 1:
            raise UserError(
                "backbone: attention with fewer heads for keys and values than for queries has no sites for "
                "adapters"
            )
        weight, biases = torch.cat([part.weight for part in parts]), [part.bias for part in parts]
    elif biases[0] is not None:
        weight = attention.qkv.weight
    else:
        return
    given = [bias for bias in biases if bias is not None]
    fused = nn.Linear(weight.shape[1], len(weight), bias=bool(given), device=weight.device).requires_grad_(
        False
    )
    fused.weight.copy_(weight)
    if given:
        fused.bias.copy_(
            torch.cat([torch.zeros(len(weight) // 3) if bias is None else bias for bias in biases])
        )
    for name in ("q_proj", "k_proj", "v_proj", "q_bias", "k_bias", "v_bias"):
        if hasattr(attention, name):
            setattr(attention, name, None)
    attention.qkv = fused


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
