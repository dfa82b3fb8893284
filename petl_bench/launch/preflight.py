"""Check of all models of a plan before any run starts."""

from __future__ import annotations

from collections.abc import Iterable

from petl_bench.errors import out_of_memory
from petl_bench.model import assemble
from petl_bench.train import transform
from petl_bench.types import NORMALIZATIONS, RunSpec


def preflight(specs: Iterable[RunSpec]) -> None:
    """Build every distinct model of a plan once, so that an invalid setting is found before any run starts.

    A model that does not fit into memory is not refused: its run fails later, and other runs may fit.

    Raises:
        UserError: see `petl_bench.model.assemble`.
    """
    seen = []
    for spec in specs:
        key = (
            *(spec.train.augment, spec.backbone, spec.adapter, spec.hidden, spec.quantizer),
            *(spec.head, spec.precision),
        )
        if key not in seen:
            seen.append(key)
            if spec.train.augment.crop:
                recipe = spec.train
                transform(recipe.augment, spec.backbone.image_size, NORMALIZATIONS[recipe.normalization])
            try:
                assemble(spec.candidates[0].model).prepare(spec.precision)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
