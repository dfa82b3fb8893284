"""LN-Tune: only the layer norms of the backbone are trained.

    y = weight * standardized(x) + bias    with weight and bias (dim,) trained

for every layer norm of the backbone, including the last one. They start at their pretrained values. Batch
normalizations are not trained.

Source: Basu et al. 2023, arXiv 2304.01917.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError


@dataclass(frozen=True)
class LNTuneConfig:
    """Settings of the method, which has none."""


@adapter(
    "ln_tune",
    description="Layer norms of the backbone, trained in float32 (arXiv 2304.01917).",
    config=LNTuneConfig,
    group="selective",
    tokenwise=True,
    unused={"hidden": 0, "scale": 1.0, "bits": 32},
)
def attach(sites: Sites, shape: Shape, config: LNTuneConfig) -> Attached:
    """Unfreeze weight and bias of all layer norms: 0 weights and 2 floats per channel, in 4 bytes each.

    Raises:
        UserError: the backbone has no layer norm.
    """
    norms = [operation.slot.get() for operation in sites.operations]
    chosen = {id(p) for norm in norms if isinstance(norm, nn.LayerNorm) for p in norm.parameters()}
    names = [name for name, parameter in sites.parameters.items() if id(parameter) in chosen]
    if not names:
        raise UserError("this adapter trains layer norms, but the backbone has none: choose another adapter")
    return Attached(floats={"norms": sites.unfreeze(names)})
