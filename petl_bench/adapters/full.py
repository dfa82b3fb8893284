"""Full fine-tuning: every parameter of the backbone is trained; nothing is added."""

from __future__ import annotations

from dataclasses import dataclass

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class FullConfig:
    """No settings."""


@adapter("full", config=FullConfig, group="selective", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: FullConfig) -> Attached:
    """All parameters, stored in float32: 4 bytes each. Buffers stay as they are."""
    return Attached(floats={"parameters": sites.unfreeze(sites.parameters)})
