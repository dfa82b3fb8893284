"""timm models by name: created, loaded and frozen, with the adapter sites of each family."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from petl_bench.backbones import inferred, pretrained, weights
from petl_bench.backbones.creation import create
from petl_bench.backbones.probing import NoPlainTransformerError
from petl_bench.backbones.sites import Sites
from petl_bench.backbones.tables import Table
from petl_bench.errors import UserError
from petl_bench.registry import Registry
from petl_bench.types import BackboneSpec

FAMILIES: Registry[Callable[[nn.Module], Sites]] = Registry("backbone family", "FAMILIES")
"""Tables, or other functions of a model that return its sites, by the name of its timm class."""

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

    The sites of a model that no family claims are inferred (petl_bench.backbones.inferred).

    Raises:
        UserError: its family is unknown and it is no plain transformer, or it has no blocks.
    """
    family = type(model).__name__
    try:
        sites = FAMILIES.get(family)(model) if family in FAMILIES else inferred.sites(model, spec)
    except NoPlainTransformerError as error:
        raise UserError(
            f"backbone {spec.display_name}: unknown backbone family {family!r}, and no plain transformer in "
            f"which places for adapters can be found: {error}; supported are {SUPPORTED}"
        ) from error
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
    """Return remarks on a backbone that was built: on its weights file, and on sites that were inferred."""
    told = inferred.remark(spec)
    return [*_remarks.get(repr(spec), []), *([told] if told else [])]


FAMILIES.register("VisionTransformer")(Table(needs=("ls2",)))
# A DeiT with a distillation token: the head reads the mean of two tokens.
FAMILIES.register("VisionTransformerDistilled")(Table(needs=("ls2",), head=("head", "head_dist")))
# EVA, EVA-02 and DINOv3, whose attention rotates queries and keys by position.
FAMILIES.register("Eva")(Table(positions="rope"))
# The attention of BEiT has a bias for each pair of positions.
FAMILIES.register("Beit")(Table(positions="always"))
# The bias-free linear of a patch merging is one operation with the norm beside it (dongzelian/SSF).
SWIN = Table(
    blocks="layers.*.blocks.*", head="head.fc", sequence=False, left_out=("*.reduction", "*.cpb_mlp.*")
)
FAMILIES.register("SwinTransformer")(SWIN)
# The blocks of Swin-V2 normalize the output of a branch, not its input, so that they have linears only.
FAMILIES.register("SwinTransformerV2")(replace(SWIN, branches={}))
# The small variants have convolutions in place of the linears.
FAMILIES.register("ConvNeXt")(
    Table(
        blocks="stages.*.blocks.*",
        width="conv_dw",
        linears={"fc1": "mlp.fc1", "fc2": "mlp.fc2"},
        branches={"mlp": ("conv_dw", "drop_path")},
        head="head.fc",
        channels_first=True,
        sequence=False,
    )
)
# The blocks with attention are those of the last two stages; their 1 x 1 convolutions are not linears.
FAMILIES.register("LowFormer")(
    Table(
        blocks="stages.*.*",
        only="LowFormerBlock",
        width="mlp.main.1",
        linears={},
        branches={"attention": ("attn.main.0", "attn.drop_path"), "mlp": ("mlp.main.0", "mlp.drop_path")},
        head="classifier",
        channels_first=True,
        sequence=False,
    )
)
