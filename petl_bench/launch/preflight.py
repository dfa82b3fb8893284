"""Check of all models of a plan before any run starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

import torch

from petl_bench.backbones.sharing import Resident
from petl_bench.errors import UserError, out_of_memory
from petl_bench.model import assemble
from petl_bench.train import transform
from petl_bench.types import NORMALIZATIONS, RunSpec

_UNSUITABLE = "choose another adapter or backbone"
"""Last words of the errors of methods that need sites which a backbone does not have."""


def unsuitable(specs: Iterable[RunSpec]) -> dict[RunSpec, str]:
    """Return the runs whose method needs parts that their backbone does not have, with the reasons."""
    return {spec: reason for spec, reason in refused(specs).items() if reason.endswith(_UNSUITABLE)}


def refused(specs: Iterable[RunSpec]) -> dict[RunSpec, str]:
    """Return the runs whose model cannot be built, with the reasons.

    The backbones are built with random weights, so that neither weights nor network are needed.
    """
    found: dict[RunSpec, str] = {}
    by_backbone = sorted(specs, key=lambda spec: repr(spec.backbone))
    for backbone, group in groupby(by_backbone, key=lambda spec: replace(spec.backbone, weights="random")):
        resident = Resident(backbone, "fp32", torch.device("cpu"))
        reasons: dict[tuple[object, ...], str] = {}
        for spec in group:
            key = (
                *(spec.adapter, spec.hidden, spec.bits, spec.quantizer),
                *(spec.head, spec.start, spec.float_bits, spec.compress),
            )
            if key not in reasons:
                model = replace(spec.candidates[0].model, backbone=backbone)
                try:
                    assemble(model, start=spec.start, backbone=resident.copy())
                except UserError as error:
                    reasons[key] = str(error)
                else:
                    reasons[key] = ""
            if reasons[key]:
                found[spec] = reasons[key]
    return found


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
            *(spec.head, spec.precision, spec.start, spec.float_bits, spec.compress),
        )
        if key not in seen:
            seen.append(key)
            if spec.train.augment.crop:
                recipe = spec.train
                transform(recipe.augment, spec.backbone.image_size, NORMALIZATIONS[recipe.normalization])
            try:
                model = assemble(spec.candidates[0].model, start=spec.start)
                if not spec.compressed:
                    model.prepare(spec.precision)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
