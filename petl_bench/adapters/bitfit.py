"""BitFit (Zaken et al. 2022, arXiv 2106.10199): only the biases of the backbone are trained.

    y = W x + b    with W (outputs, inputs) frozen and b (outputs,) trained

All parameters named `bias` are trained, including those of norms and of the patch embedding. They start at
their pretrained values.
"""

from __future__ import annotations

from dataclasses import dataclass

from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class BitFitConfig:
    """Settings of the method, which has none."""


@adapter(
    "bitfit",
    description="Biases of the backbone, trained in float32 (arXiv 2106.10199).",
    config=BitFitConfig,
    group="selective",
    tokenwise=True,
    unused={"hidden": 0, "scale": 1.0, "bits": 32},
)
def attach(sites: Sites, shape: Shape, config: BitFitConfig) -> Attached:
    """Unfreeze all parameters named `bias`: 0 weights and one float per bias, stored in 4 bytes each."""
    biases = [name for name in sites.parameters if name.endswith(".bias")]
    return Attached(floats={"biases": sites.unfreeze(biases)})
