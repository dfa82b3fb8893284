"""Linear probing: the backbone stays as it is, and only the head is trained.

    logits = H f(x)

f is the frozen backbone, which gives features (batch, features), and H the head.
"""

from __future__ import annotations

from dataclasses import dataclass

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class LinearConfig:
    """Settings of the method, which has none."""


@adapter(
    "linear",
    description="No adapter: only the head is trained.",
    config=LinearConfig,
    group="probe",
    tokenwise=True,
    unused={"hidden": 0, "scale": 1.0, "bits": 32, "train.drop_path": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: LinearConfig) -> Attached:
    """Attach nothing: 0 weights and 0 floats."""
    return Attached()
