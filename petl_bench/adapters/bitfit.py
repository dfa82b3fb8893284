"""BitFit (Zaken et al. 2022, arXiv 2106.10199): the biases of the backbone are trained, norms' included."""

from __future__ import annotations

from dataclasses import dataclass

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class BitFitConfig:
    """No settings."""


@adapter("bitfit", config=BitFitConfig, group="selective", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: BitFitConfig) -> Attached:
    """All parameters named `bias`, stored in float32: 4 bytes each."""
    biases = [name for name in sites.parameters if name.endswith(".bias")]
    return Attached(floats={"biases": sites.unfreeze(biases)})
