"""timm models by name: built, loaded, frozen; and the adapter sites of each family."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXt
from timm.models.lowformer import LowFormer, LowFormerBlock, ResidualBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from petl_bench.backbones import pretrained, weights
from petl_bench.backbones.sites import BlockSites, Branch, Operation, Sites, Slot, TokenGrid
from petl_bench.errors import UserError, did_you_mean
from petl_bench.registry import Registry
from petl_bench.types import BackboneSpec

FAMILIES: Registry[Callable[[nn.Module], Sites]] = Registry("backbone family")
"""Sites of each family, filed under the name of its timm class."""

_checksums: dict[str, str] = {}


def build(spec: BackboneSpec, drop_path: float = 0.0) -> tuple[nn.Module, Sites]:
    """A frozen backbone without classifier, on the CPU, and its sites.

    Args:
        spec: architecture and weights; `random` weights are those of seed 0.
        drop_path: stochastic depth rate at the last block, rising linearly from 0 at the first (in
            ConvNeXt from stage to stage).

    Raises:
        UserError: unknown architecture, family or weights file, or weights that do not fit.
    """
    model = create(spec, drop_path)
    path = weights.find(spec.weights)
    if path is not None:
        pretrained.load(model, path)
    model = freeze_batch_norm_2d(model)  # its statistics stay those of the pretraining
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, FAMILIES.get(type(model).__name__)(model)


def state_checksum(spec: BackboneSpec) -> str:
    """SHA-256 over names and float32 values of the loaded backbone, whatever file they came from."""
    key = repr(spec)
    if key not in _checksums:
        digest = hashlib.sha256()
        for name, value in sorted(build(spec)[0].state_dict().items()):
            digest.update(name.encode() + value.float().contiguous().numpy().tobytes())
        _checksums[key] = digest.hexdigest()
    return _checksums[key]


def create(spec: BackboneSpec, drop_path: float) -> nn.Module:
    """The timm model without classifier: timm's pretrained weights, or random ones of seed 0."""
    if not timm.is_model(spec.name):
        hint = did_you_mean(spec.name, timm.list_models())
        raise UserError(f"backbone.name={spec.name}: timm has no such model; {hint[:300]}")
    random_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        # Only architectures tied to one input size take it: a ConvNeXt has no such argument.
        sized = timm.get_pretrained_cfg(spec.name).fixed_input_size
        return timm.create_model(
            spec.name,
            pretrained=spec.weights == "pretrained",
            num_classes=0,
            drop_path_rate=drop_path,
            **({"img_size": spec.image_size} if sized else {}),
            **spec.options,
        )
    except (TypeError, RuntimeError, OSError, AssertionError) as error:
        raise UserError(f"backbone {spec.display_name}: timm cannot build it: {error}") from error
    finally:
        torch.random.set_rng_state(random_state)


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
    # The linear of a patch merging, bias-free, is one operation with the norm before it (dongzelian/SSF).
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
            # The small variants have convolutions in the place of the linears.
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
    """Blocks with attention, of the last two stages; their 1 x 1 convolutions are no linears."""
    assert isinstance(model, LowFormer)
    blocks = []
    for stage in model.stages:
        for index, block in enumerate(stage):
            if not isinstance(block, LowFormerBlock):
                continue
            parts = {"attention": block.attn, "mlp": block.mlp}
            if not all(isinstance(part, ResidualBlock) for part in parts.values()):
                raise UserError("backbone: a LowFormer without attention or MLP has no sites for adapters")
            branches = {
                role: Branch(Slot(part.main, "0"), Slot(part, "drop_path"), channels_first=True)
                for role, part in parts.items()
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
    """Every linear, convolution and norm with channels of its own."""
    found = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm):
            parent, _, name = path.rpartition(".")
            first = isinstance(module, nn.Conv2d | LayerNorm2d)
            channels = module.bias if module.bias is not None else module.weight
            found.append(Operation(Slot(model.get_submodule(parent), name), len(channels), first))
    return found
