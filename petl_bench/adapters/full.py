"""Full fine-tuning: every parameter of the backbone is trained, and nothing is added.

    theta = theta_0 + d

theta_0 are all parameters of the backbone and d their trained updates. Buffers, such as the statistics of a
batch normalization, keep their pretrained values.
"""

from __future__ import annotations

from dataclasses import dataclass

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class FullConfig:
    """Settings of the method, which has none."""


@adapter(
    "full",
    description="Full fine-tuning: every parameter of the backbone, in float32.",
    config=FullConfig,
    group="selective",
    tokenwise=True,
    unused={"hidden": 0, "scale": 1.0, "bits": 32},
)
def attach(sites: Sites, shape: Shape, config: FullConfig) -> Attached:
    """Unfreeze all parameters: 0 weights and one float per parameter, stored in 4 bytes each."""
    return Attached(floats={"parameters": sites.unfreeze(sites.parameters)})
