"""Sites of a backbone family as a table of names of modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import nn

from petl_bench.backbones.sites import BlockSites, Branch, Operation, SharedSlot, Sites, Slot, TokenGrid
from petl_bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Table:
    """The sites of a family. Called with a model of the family, it returns them.

    The defaults are those of timm's plain transformers with one sequence of tokens. Paths are names of
    modules joined by dots.

    Attributes:
        blocks: path of the blocks; * stands for every child.
        only: type of the blocks by its name; others among them have no sites. Empty: all types.
        width: path in a block of a linear whose inputs, or a convolution whose outputs, are as wide as the
            residual stream.
        linears: paths in a block by role; one that a block lacks, or that is no linear, is left out.
        branches: paths in a block of the first and the last module of each branch, by role: from the residual
            stream x to z, and to the result d that the block adds to x.
        needs: paths of further modules that a block must have.
        head: path of the classifier; two paths where the model takes the mean of two.
        channels_first: whether the stream is (batch, dim, height, width).
        sequence: whether the stream is (batch, tokens, dim), with the prefix first, in place of a map.
        first_token: whether nothing but the first token of the last block is read in models that pool by it.
        positions: attribute of the model that is not None where attention knows each token by its position,
            so that none can be added; `always`: in all models; empty: in none.
        left_out: patterns of paths of operations that are none of their own, or that act on no tokens.
    """

    blocks: str = "blocks.*"
    only: str = "*"
    width: str = "attn.qkv"
    linears: Mapping[str, str] = field(
        default_factory=lambda: {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    )
    branches: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {"attention": ("norm1", "drop_path1"), "mlp": ("norm2", "drop_path2")}
    )
    needs: tuple[str, ...] = ()
    head: str | tuple[str, str] = "head"
    channels_first: bool = False
    sequence: bool = True
    first_token: bool = True
    positions: str = ""
    left_out: tuple[str, ...] = ()

    def __call__(self, model: Any) -> Sites:
        """Return the sites of a model, whose attention then has fused projections.

        Raises:
            UserError: a block lacks a module.
        """
        for path in self.paths(model):
            fuse_qkv(model.get_submodule(path))
        two = not isinstance(self.head, str)
        return Sites(
            [self.block(model, path) for path in self.paths(model)],
            dict(model.named_parameters()),
            shared_slot(model, *self.head) if two else slot_of(model, str(self.head)),
            model.head_hidden_size,
            list(operations(model, self.left_out)),
            self._layout(model),
            self.sequence and self.first_token and not two and pools_first_token(model),
            self.positions == "always" or getattr(model, self.positions, None) is not None,
        )

    def paths(self, model: nn.Module) -> list[str]:
        """Return the paths of the blocks of a model, from input to output."""
        found = [""]
        for name in self.blocks.split("."):
            children = [child for path in found for child in _children(model, path, name)]
            found = children
        return [path for path in found if fnmatchcase(type(model.get_submodule(path)).__name__, self.only)]

    def _layout(self, model: Any) -> TokenGrid:
        if not self.sequence:
            return TokenGrid(0, None)
        return TokenGrid(model.num_prefix_tokens, model.patch_embed.grid_size)

    def block(self, model: nn.Module, path: str) -> BlockSites:
        """Return the sites of the block at a path.

        Raises:
            UserError: it lacks a module.
        """
        block = model.get_submodule(path)
        ends = [end for branch in self.branches.values() for end in branch]
        lacking = [name for name in (self.width, *ends, *self.needs) if find(block, name) is None]
        kind = type(block).__name__
        if lacking or kind.endswith("PostNorm"):
            why = f"lack {', '.join(lacking)}" if lacking else "normalize the results of their branches"
            raise UserError(f"backbone: blocks of type {kind} are not plain transformer blocks: they {why}")
        linears = {role: name for role, name in self.linears.items() if _is_linear(block, name)}
        return BlockSites(
            slot_of(model, path),
            _width(block, self.width),
            {role: slot_of(block, name) for role, name in linears.items()},
            {
                role: Branch(slot_of(block, first), slot_of(block, last), self.channels_first)
                for role, (first, last) in self.branches.items()
            },
        )


def _children(model: nn.Module, path: str, name: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    module = model.get_submodule(path)
    names = [child for child, _ in module.named_children()] if name == "*" else [name]
    yield from (f"{prefix}{child}" for child in names if find(module, child) is not None)


def find(module: nn.Module, path: str) -> nn.Module | None:
    """Return the submodule at a path, or None."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def slot_of(module: nn.Module, path: str) -> Slot:
    """Return the slot of the submodule at a path."""
    parent, _, name = path.rpartition(".")
    return Slot(module.get_submodule(parent), name)


def shared_slot(module: nn.Module, first: str, second: str) -> SharedSlot:
    """Return the slot of a module that its parent applies in two places."""
    return SharedSlot(module, first, second)


def pools_first_token(model: Any) -> bool:
    """Return whether the settings of a vision transformer say that its head reads the first token only."""
    return model.global_pool == "token" and getattr(model, "attn_pool", None) is None


def operations(model: nn.Module, left_out: tuple[str, ...] = ()) -> Iterator[Operation]:
    """Yield every linear, convolution and layer norm of a model but those whose path fits a pattern."""
    for path, module in model.named_modules():
        kinds = nn.Linear | nn.Conv2d | nn.LayerNorm
        if isinstance(module, kinds) and not any(fnmatchcase(path, pattern) for pattern in left_out):
            first = isinstance(module, nn.Conv2d | LayerNorm2d)
            channels = module.bias if module.bias is not None else module.weight
            yield Operation(slot_of(model, path), len(channels), first)


def fuse_qkv(block: nn.Module) -> None:
    """Replace separate projections or biases of queries, keys and values by one linear `qkv`, in place."""
    attention: Any = getattr(block, "attn", None)
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


def _is_linear(block: nn.Module, path: str) -> bool:
    return isinstance(find(block, path), nn.Linear)


def _width(block: nn.Module, path: str) -> int:
    module: Any = block.get_submodule(path)
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.in_channels if isinstance(module, nn.Conv2d) else len(module.weight)
