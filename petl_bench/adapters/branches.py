"""Settings shared by the methods that join the attention branch or the MLP branch of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from petl_bench.backbones.sites import BlockSites, Branch

SITES = ("mlp", "attention", "both")


def quick_gelu(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x), an approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "quick_gelu": quick_gelu,
    "tanh": torch.tanh,
    "swish": functional.silu,
}


def one_of(setting: str, value: str, known: Iterable[str]) -> str:
    """Return `value`.

    Raises:
        ValueError: `value` is not one of `known`.
    """
    names = list(known)
    if value not in names:
        raise ValueError(f"{setting} must be one of {', '.join(names)}, not {value!r}")
    return value


def joined(block: BlockSites, sites: str) -> dict[str, Branch]:
    """Return the chosen branches of a block by role, in the order of the forward pass.

    Args:
        block: sites of the block.
        sites: a name of SITES; `both` stands for all branches that the block has.

    Raises:
        ValueError: `sites` is not one of SITES.
        UserError: the block has no branch in this role.
    """
    if one_of("sites", sites, SITES) == "both":
        return dict(block.branches) or {"mlp": block.branch("mlp")}  # refuses a block without branches
    return {sites: block.branch(sites)}


def probability(setting: str, value: float) -> float:
    """Return `value`.

    Raises:
        ValueError: `value` is below 0, or 1 or more.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{setting} must be at least 0 and below 1, not {value}")
    return value
