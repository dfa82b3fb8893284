"""The task of a run, from its manifest, the `data` settings and the few-shot settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from petl_bench import plugins
from petl_bench.data import manifests
from petl_bench.errors import UserError, did_you_mean
from petl_bench.files import read_yaml
from petl_bench.types import SPLITS, DataSettings, Manifest, TaskSpec


def plan_task(name: str, data: DataSettings, shots: int = 1, split_seed: int = 0) -> TaskSpec:
    """Return the task as planned; its files are not looked at yet.

    Args:
        shots, split_seed: used by few-shot sets; the seed by folder trees too.

    Raises:
        UserError: unknown task, shots or split seed that the set has no list for, or a bad override file.
    """
    if name not in manifests():
        raise UserError(f"unknown task {name!r}: {did_you_mean(name, manifests())}")
    manifest, changes = overridden(manifests()[name], data.override)
    few_shot, tree = bool(manifest.shots), manifest.source == "tree"
    for key, value, known in (
        ("shots", shots, manifest.shots),
        ("split_seed", split_seed, manifest.split_seeds),
    ):
        if few_shot and value not in known:
            raise UserError(f"{key}={value}: {name} has lists for {key}={','.join(map(str, known))}")
    return TaskSpec(
        name=name,
        suite=manifest.suite,
        group=manifest.group,
        classes=manifest.classes,
        source=manifest.source,
        splits=dict(manifest.splits),
        fingerprint=manifest.fingerprint,
        resize=manifest.resize,
        shots=shots if few_shot else 0,
        split_seed=split_seed if few_shot or tree else 0,
        drawn=data.images if tree else 0,
        override=changes,
        place=({} if manifest.fingerprint else {"root": data.folder})
        | ({"override": data.override} if changes else {}),
    )


def overridden(manifest: Manifest, file: str) -> tuple[Manifest, str]:
    """The manifest with the split sizes that an override file gives it, and these as `splits.test=40`.

    The file is YAML: `TASK: {splits: {test: 40}}`; only sizes can be overridden, and every row says so.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    changes = _overrides(file).get(manifest.name, {}) if file else {}
    if not changes:
        return manifest, ""
    allowed = SPLITS if not manifest.shots else ("val", "test")
    for split in changes:
        if split not in allowed:
            raise UserError(
                f"data.override={file}: {manifest.name}: sizes of {', '.join(allowed)} can be set"
            )
    said = ",".join(f"splits.{split}={changes[split]}" for split in allowed if split in changes)
    return replace(manifest, splits=manifest.splits | changes), said


@plugins.cached
def _overrides(file: str) -> dict[str, dict[str, int]]:
    content = read_yaml(Path(file).expanduser(), f"data.override={file}")
    if not isinstance(content, dict):
        raise UserError(f"data.override={file}: expected lines `TASK: {{splits: {{test: 40}}}}`")
    found = {}
    for task, facts in content.items():
        if (
            not isinstance(task, str)
            or task not in manifests()
            or not manifests()[task].splits
            or manifests()[task].fingerprint
        ):
            raise UserError(f"data.override={file}: {task!r} is no task whose sizes can be overridden")
        sizes = facts.get("splits") if isinstance(facts, dict) and set(facts) == {"splits"} else None
        if not isinstance(sizes, dict) or not all(type(n) is int and n > 0 for n in sizes.values()):
            raise UserError(
                f"data.override={file}: {task}: expected `splits: {{test: 40}}`, positive numbers"
            )
        found[str(task)] = {str(split): int(n) for split, n in sizes.items()}
    return found
