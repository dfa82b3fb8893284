"""Codebooks and fake quantization. Each file of this folder may register a family of codebooks."""

import importlib
import pkgutil

from petl_bench.quantizers.base import CODEBOOKS, Codebook, FakeQuantize
from petl_bench.quantizers.latents import JointStack, LatentStack, stack_by_shape

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["CODEBOOKS", "Codebook", "FakeQuantize", "JointStack", "LatentStack", "stack_by_shape"]
