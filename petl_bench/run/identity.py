"""Identities of runs: checksums of weights and resolved tasks. Imports torch only where it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from petl_bench import data
from petl_bench.backbones import weights
from petl_bench.data.file_facts import Advance, Notify, ignore
from petl_bench.errors import AbsentError, UserError, counted
from petl_bench.types import BackboneSpec, Cache, Job, Origin, RunSpec, TaskSpec, run_id

if TYPE_CHECKING:
    from torch import nn

UNKNOWN = Origin()


def backbone_sha256(spec: BackboneSpec, model: nn.Module | None = None) -> str:
    """Return the SHA-256 of a backbone's weights, in hexadecimal.

    For a bundled file it is that of the file, otherwise that of the loaded values. An .npz, a safetensors
    file and timm's download of the same weights are therefore one backbone.

    Args:
        spec: the backbone.
        model: the backbone as petl_bench.backbones.families has built it; None: it is built if needed.
    """
    path = weights.find(spec.weights)
    if path is not None and weights.bundled(spec.weights):
        return weights.checksum(path)
    from petl_bench.backbones import families

    return families.state_checksum(spec) if model is None else families.checksum(model)


def current_backbones(specs: Iterable[RunSpec], note: Notify) -> list[RunSpec]:
    """Return the runs with the present names of architectures in place of those that timm has deprecated.

    Args:
        specs: runs of a plan.
        note: called once with a remark about each deprecated name.

    Raises:
        UserError: timm has no such architecture.
    """
    specs = list(specs)
    now: dict[str, str] = {}
    for backbone in {repr(spec.backbone): spec.backbone for spec in specs}.values():
        name = now[backbone.name] = backbone.name
        if not weights.bundled(backbone.weights):
            from petl_bench.backbones.creation import current_name

            now[name] = current_name(name)
        if now[name] != name:
            note(f"backbone.name={name}: timm has deprecated this name; {now[name]} is used")
    return [replace(s, backbone=replace(s.backbone, name=now[s.backbone.name])) for s in specs]


def build_changed(specs: Iterable[RunSpec]) -> list[str]:
    """Build the backbones with bundled weights whose name, input or options conf/backbone does not state.

    The others are known to fit, or are built for the checksum of their weights.

    Returns:
        Remarks about what they have taken from these weights.

    Raises:
        UserError: a backbone cannot be built, or the bundled weights do not fit it.
    """
    from petl_bench.config import group_config, options

    remarks: list[str] = []
    known = [group_config("backbone", name) for name in options("backbone")]
    for backbone in {repr(spec.backbone): spec.backbone for spec in specs}.values():
        facts = {key: getattr(backbone, key) for key in ("name", "weights", "image_size", "options")}
        if weights.bundled(backbone.weights) and not any(facts.items() <= entry.items() for entry in known):
            from petl_bench.backbones import families

            families.build(backbone)
            remarks += families.remarks(backbone)
    return remarks


def weights_remarks(specs: Iterable[RunSpec]) -> list[str]:
    """Return remarks on the backbones of identified runs: on weights files, and on inferred sites."""
    backbones = {repr(spec.backbone): spec.backbone for spec in specs}
    built = [known for known in backbones.values() if not weights.bundled(known.weights)]
    if not built:
        return []
    from petl_bench.backbones import families

    return [*dict.fromkeys(remark for known in built for remark in families.remarks(known))]


def identify(spec: RunSpec) -> str:
    """Return the run's identity; see petl_bench.types.run_id."""
    return run_id(spec, backbone_sha256(spec.backbone))


def job_of(spec: RunSpec, command: str = "", origin: Origin = UNKNOWN, checksum: str | None = None) -> Job:
    """Return the job of a run whose task is resolved.

    Args:
        command: command that repeats the run alone.
        origin: where its scale and learning rate come from.
        checksum: checksum of the weights of its backbone; None: it is computed.
    """
    checksum = backbone_sha256(spec.backbone) if checksum is None else checksum
    return Job(run_id(spec, checksum), spec, checksum, command=command, origin=origin)


def files_of(specs: Iterable[RunSpec]) -> int:
    """Return the approximate number of files that `resolve_tasks` reads."""
    tasks = {repr(spec.task): spec.task for spec in specs}
    return sum(data.expected_files(task) for task in tasks.values())


def resolve_tasks(
    specs: Iterable[RunSpec],
    cache: Cache,
    advance: Advance = ignore,
    warn: Notify = ignore,
    tell: Notify = ignore,
    decode: bool = False,
    absent: dict[str, str] | None = None,
) -> list[RunSpec]:
    """Return the runs with their tasks resolved (petl_bench.data.resolve); each task is resolved once.

    Args:
        specs: runs of a plan.
        cache: cache of file facts and decoded images.
        advance: called for the progress in files.
        warn: called with the text of each warning.
        tell: called with a description of own data.
        decode: also decode the pixels of images for which this was not done before.
        absent: receives the root folder of each task that is not there although its manifest states its
            sizes; such a task stays as planned. None: it is an error.

    Raises:
        UserError: data are missing or differ from the manifest, or have fewer images than one batch.
    """
    resolved: dict[str, TaskSpec] = {}
    runs = []
    for spec in specs:
        key = repr(spec.task)
        if key not in resolved:
            try:
                resolved[key] = data.resolve(spec.task, cache, advance, warn, tell, decode)
            except AbsentError:
                if absent is None or not spec.task.splits:
                    raise
                resolved[key], absent[spec.task.name] = spec.task, spec.task.place["root"]
        runs.append(replace(spec, task=resolved[key]))
        _require_a_batch(runs[-1])
    return runs


def _require_a_batch(spec: RunSpec) -> None:
    """Refuse a batch that is larger than the smallest training set of a run.

    A search trains without val, and a few-shot set never trains on it.

    Raises:
        UserError: the training set has fewer images.
    """
    splits, size = spec.task.splits, spec.train.batch_size
    alone = bool(spec.task.shots) or len(spec.candidates) > 1
    images = splits.get("train", 0) + (0 if alone else splits.get("val", 0))
    if "train" in splits and images < size:
        raise UserError(
            f"train.batch_size={size}: the training set of {spec.task.name} has {counted(images, 'image')}, "
            f"not one batch; choose {images or 1} or fewer"
        )
