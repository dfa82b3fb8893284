"""Sites of transformers that no family claims: found by names of modules, and verified by passes.

The names are those that timm gives the modules of plain transformers (petl_bench.backbones.tables). Whether a
model uses them as plain transformers do is not taken on trust: two small passes in evaluation mode show what
is fed to each module, and what becomes of its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from petl_bench.backbones import probing
from petl_bench.backbones.sites import BlockSites, Sites, TokenGrid
from petl_bench.backbones.tables import Table, find, fuse_qkv, operations, shared_slot, slot_of
from petl_bench.errors import counted
from petl_bench.types import BackboneSpec

PLAIN = Table()
PARTS = ("norm1", "attn.qkv", "attn.proj", "drop_path1", "norm2", "mlp", "drop_path2")
"""Modules that every block must have."""
_known: dict[str, Found] = {}


@dataclass(frozen=True)
class Found:
    """Facts of an architecture.

    Attributes:
        blocks: paths of its blocks.
        refuted: linears and branches that do other things than their names say, and what, by block and role.
        layout: arrangement of the tokens; None: it is not known.
        first_token: whether the head reads the first token of the last block only.
        fixed_tokens: whether no tokens can be added to the sequence.
        features: number of features.
        left_out: paths of operations that act on no tokens, or not exactly once in a pass.
        others: blocks that lack modules, by type, and these modules.
    """

    blocks: tuple[str, ...]
    refuted: dict[str, dict[str, str]]
    layout: TokenGrid | None
    first_token: bool
    fixed_tokens: bool
    features: int
    left_out: tuple[str, ...]
    others: dict[str, list[str]]

    @property
    def remark(self) -> str:
        """Return a description for the user."""
        parts = [f"{counted(len(self.blocks), 'block')}"]
        wrong = {role: why for found in self.refuted.values() for role, why in found.items()}
        parts += [f"no {role} ({why})" for role, why in wrong.items()]
        parts += ["no known place of tokens in the image"] if self.layout is None else []
        parts += [f"no sites in {kind} (lack {', '.join(names)})" for kind, names in self.others.items()]
        if self.left_out:
            named = ", ".join(self.left_out[:3]) + (", ..." if len(self.left_out) > 3 else "")
            parts.append(
                f"without {counted(len(self.left_out), 'operation')} not applied once to the tokens ({named})"
            )
        return "; ".join(parts)


def key(spec: BackboneSpec) -> str:
    """Return what identifies an architecture."""
    return repr((spec.name, spec.image_size, spec.options))


def remark(spec: BackboneSpec) -> str:
    """Return how the sites of a backbone that was built were found; empty if its family states them."""
    found = _known.get(key(spec))
    if found is None:
        return ""
    return (
        f"warning: backbone {spec.display_name}: no known family has this model; its sites are inferred from "
        f"the names of its modules and verified by passes: {found.remark}"
    )


def sites(model: Any, spec: BackboneSpec) -> Sites:
    """Return the sites of a model that no family claims.

    Raises:
        probing.NoPlainTransformerError: it is none; the message says what is missing.
    """
    for module in model.modules():
        fuse_qkv(module)
    if key(spec) not in _known:
        blocks, others = _blocks(model)
        if not blocks:
            raise probing.NoPlainTransformerError(_missing(others))
        with probing.evaluated(model):
            _known[key(spec)] = _found(model, spec.image_size, blocks, others)
    found = _known[key(spec)]
    heads = _heads(model)
    return Sites(
        [_block(model, path, found.refuted.get(path, {})) for path in found.blocks],
        dict(model.named_parameters()),
        shared_slot(model, *heads) if len(heads) > 1 else slot_of(model, heads[0]),
        found.features,
        list(operations(model, found.left_out)),
        found.layout,
        found.first_token,
        found.fixed_tokens,
    )


def _blocks(model: nn.Module) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """Return the paths of the blocks, and what modules with attention and an MLP lack to be some, by type."""
    found, others = [], {}
    for path, module in model.named_modules():
        if find(module, "attn") is None or find(module, "mlp") is None:
            continue
        lacking = [name for name in PARTS if find(module, name) is None]
        qkv, proj = find(module, "attn.qkv"), find(module, "attn.proj")
        if isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear):
            fits = qkv.out_features == 3 * proj.in_features
            lacking += [] if fits else ["queries, keys and values in attn.qkv"]
        lacking += [
            f"a linear {name}"
            for name in PARTS
            if name.startswith("attn.") and not isinstance(find(module, name) or nn.Linear(1, 1), nn.Linear)
        ]
        if lacking:
            others[type(module).__name__] = lacking
        else:
            found.append(path)
    return tuple(found), others


def _missing(others: dict[str, list[str]]) -> str:
    if not others:
        return "none of its modules has attention `attn` and an MLP `mlp`"
    return "; ".join(f"its modules of type {kind} lack {', '.join(names)}" for kind, names in others.items())


def _block(model: nn.Module, path: str, refuted: dict[str, str]) -> BlockSites:
    found = PLAIN.block(model, path)
    linears = {role: slot for role, slot in found.linears.items() if role not in refuted}
    branches = {role: branch for role, branch in found.branches.items() if role not in refuted}
    return BlockSites(found.whole, found.dim, linears, branches)


def _heads(model: Any) -> tuple[str, ...]:
    """Return the paths of the classifiers, as timm states them."""
    stated = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "head"
    return (stated,) if isinstance(stated, str) else tuple(stated)


def _found(model: Any, size: int, blocks: tuple[str, ...], others: dict[str, list[str]]) -> Found:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    inputs, refuted = probing.verified(model, images, blocks)
    plain = model(images)
    probing.check_head(model, _heads(model), images, plain)
    layout = probing.layout_of(model, inputs)
    reads_first = fixed = False
    if layout is not None and layout.grid is not None:
        first, last = model.get_submodule(blocks[0]), model.get_submodule(blocks[-1])
        reads_first = blocks[-1] not in refuted and probing.unread(model, images, plain, last)
        fixed = not probing.takes_more(model, images, layout.prefix, first, last)
    left_out = probing.left_out(model, images)
    return Found(blocks, refuted, layout, reads_first, fixed, plain.shape[-1], left_out, others)
