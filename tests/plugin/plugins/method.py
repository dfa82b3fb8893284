"""LoRA under another name."""

from dataclasses import dataclass

from petl_bench.adapters import lora
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.backbones.sites import Sites

from ._shared import RATE


@dataclass(frozen=True)
class PlainConfig:
    dropout: float = 0.0
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""


@adapter(
    "plain_lora",
    description="LoRA at half its scale.",
    config=PlainConfig,
    group="low-rank",
    tokenwise=True,
    unused={"train.drop_path": 0.0},
)
def attach(sites: Sites, shape: Shape, config: PlainConfig) -> Attached:
    """Attach LoRA."""
    halved = Shape(shape.hidden, RATE * shape.scale, shape.quantized, shape.seed, shape.rounded)
    return lora.attach(sites, halved, lora.LoRAConfig(dropout=config.dropout))
