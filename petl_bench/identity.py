"""The run_id of a spec and what it takes: checksums of weights, fingerprints of data. Torch only at need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from petl_bench import data, weights
from petl_bench.data.files import Report, nothing
from petl_bench.types import BackboneSpec, Cache, RunSpec, TaskSpec, run_id


def backbone_sha256(spec: BackboneSpec) -> str:
    """SHA-256 of the weights: of a bundled file as it is, else of the values that are loaded.

    So an .npz, a safetensors file and timm's own download of the same weights are one backbone.
    """
    path = weights.find(spec.weights)
    if path is not None and weights.bundled(spec.weights):
        return weights.checksum(path)
    from petl_bench.backbones import state_checksum

    return state_checksum(spec)


def identify(spec: RunSpec) -> str:
    """The run's identity; see petl_bench.types.run_id."""
    return run_id(spec, backbone_sha256(spec.backbone))


def settle(specs: Iterable[RunSpec], cache: Cache, report: Report = nothing) -> list[RunSpec]:
    """The runs with their data found, counted and fingerprinted; each task once.

    Raises:
        UserError: data are missing or are not those of the manifest.
    """
    settled: list[tuple[TaskSpec, TaskSpec]] = []
    runs = []
    for spec in specs:
        task = next((found for planned, found in settled if planned == spec.task), None)
        if task is None:
            task = data.settle(spec.task, cache, report)
            settled.append((spec.task, task))
        runs.append(replace(spec, task=task))
    return runs
