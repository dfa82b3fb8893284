"""No adapter: the head alone is trained (linear probing)."""

from __future__ import annotations

from dataclasses import dataclass

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class LinearConfig:
    """No settings."""


@adapter("linear", config=LinearConfig, group="probe", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: LinearConfig) -> Attached:
    """Nothing is attached: 0 weights."""
    return Attached()
