"""The run_id of a spec and what it takes: checksums of weights, fingerprints of data. Torch only at need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from petl_bench import data
from petl_bench.backbones import weights
from petl_bench.data.file_facts import Advance, Notify, ignore
from petl_bench.types import BackboneSpec, Cache, Job, RunSpec, TaskSpec, run_id


def backbone_sha256(spec: BackboneSpec) -> str:
    """SHA-256 of the weights: of a bundled file as it is, else of the values that are loaded.

    So an .npz, a safetensors file and timm's own download of the same weights are one backbone.
    """
    path = weights.find(spec.weights)
    if path is not None and weights.bundled(spec.weights):
        return weights.checksum(path)
    from petl_bench.backbones.families import state_checksum

    return state_checksum(spec)


def identify(spec: RunSpec) -> str:
    """Return the run's identity; see petl_bench.types.run_id."""
    return run_id(spec, backbone_sha256(spec.backbone))


def job_of(spec: RunSpec, command: str = "") -> Job:
    """Return the job of a run whose task is resolved.

    Args:
        command: command that repeats the run alone.
    """
    checksum = backbone_sha256(spec.backbone)
    return Job(run_id(spec, checksum), spec, checksum, command=command)


def files_of(specs: Iterable[RunSpec]) -> int:
    """About how many files `resolve_tasks` will look at."""
    tasks = {repr(spec.task): spec.task for spec in specs}
    return sum(data.expected_files(task) for task in tasks.values())


def resolve_tasks(
    specs: Iterable[RunSpec],
    cache: Cache,
    advance: Advance = ignore,
    warn: Notify = ignore,
) -> list[RunSpec]:
    """The runs with their data found, counted and fingerprinted; each task once; see petl_bench.data.resolve.

    Raises:
        UserError: data are missing or are not those of the manifest.
    """
    resolved: dict[str, TaskSpec] = {}
    runs = []
    for spec in specs:
        key = repr(spec.task)
        if key not in resolved:
            resolved[key] = data.resolve(spec.task, cache, advance, warn)
        runs.append(replace(spec, task=resolved[key]))
    return runs
