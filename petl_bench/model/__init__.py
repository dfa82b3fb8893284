"""Adapted models, their components and heads, and the costs of adapter methods."""

from petl_bench.model.adapted import Adapted, Probe, assemble, restore
from petl_bench.model.component import CODE_BITS, Component

__all__ = ["CODE_BITS", "Adapted", "Component", "Probe", "assemble", "restore"]
