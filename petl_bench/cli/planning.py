"""Preparation of a sweep: its plan, its data, and the state of its runs in the store."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from petl_bench.cli.common import Counter, in_use, note
from petl_bench.cli.devices import check_precisions, device_warning
from petl_bench.cli.idle import idle, unused
from petl_bench.cli.unbuildable import check_buildable, unbuildable
from petl_bench.errors import UserError, counted
from petl_bench.store import Store
from petl_bench.types import Job, ResultRow, RunSpec

if TYPE_CHECKING:
    from petl_bench.config import Plan


class Existing(StrEnum):
    """Treatment of runs that are in the store already."""

    skip = "skip"
    rerun = "rerun"
    retry_failed = "retry-failed"
    rerun_stale = "rerun-stale"


@dataclass(frozen=True)
class Prepared:
    """A sweep that can be executed.

    Attributes:
        plan: its plan.
        store: its store, which need not exist yet.
        jobs: planned runs by run_id.
        states: state of each run in the store.
        done: rows of the runs that are done.
        todo: run_ids of the runs to be executed.
        lost: number of runs that cannot be built and are left out.
        unidentified: runs whose data or weights are not on this machine, so that their run_ids are not known.
        unchecked: these data and weights, in words.
    """

    plan: Plan
    store: Store
    jobs: Mapping[str, Job]
    states: Mapping[str, str]
    done: Mapping[str, ResultRow]
    todo: Collection[str]
    lost: int
    unidentified: Collection[str] = ()
    unchecked: Sequence[str] = ()

    @property
    def runs(self) -> dict[str, RunSpec]:
        """The planned runs by run_id."""
        return {i: job.spec for i, job in self.jobs.items()}


def prepare(overrides: Sequence[str], store: Path, existing: Existing, plan_only: bool = False) -> Prepared:
    """Plan a sweep, read its data, and look up its runs in the store.

    Args:
        overrides: settings.
        store: path of the store, which need not exist.
        existing: treatment of runs that are in the store already.
        plan_only: whether nothing will be executed. Then data whose sizes a manifest states, and pretrained
            weights, may be missing. Otherwise all images are decoded, so that damaged ones are found before
            any training.

    Raises:
        UserError: see `petl_bench.config.plan`; or data cannot be used, or no run can be built.
    """
    from petl_bench.cli.stale import stale_runs
    from petl_bench.config import plan
    from petl_bench.device import find_precision
    from petl_bench.run.identity import (
        build_changed,
        current_backbones,
        files_of,
        job_of,
        resolve_tasks,
        weights_remarks,
    )

    planned, shelf = plan(overrides), Store(store)
    shelf.check_place()
    warnings: list[str] = []
    specs = [replace(s, precision=find_precision(s.precision, planned.launcher.device)) for s in planned.runs]
    remarks: list[str] = []
    specs = current_backbones(specs, remarks.append)
    with Counter("reading data", files_of(specs)) as counter:
        said = warnings.append, remarks.append
        no_data: dict[str, str] = {}
        resolved = resolve_tasks(
            specs, planned.cache, counter, *said, not plan_only, no_data if plan_only else None
        )
        no_weights = _not_downloaded(specs) if plan_only else {}
        found = zip(resolved, planned.alone, planned.origins, strict=True)
        held = (
            job_of(spec, _command(alone, store), origin, no_weights.get(repr(spec.backbone)))
            for spec, alone, origin in found
        )
        jobs = _with_sources({job.run_id: job for job in held}, shelf, store)
    runs = {i: job.spec for i, job in jobs.items()}
    without_use = [
        *unused(overrides, runs.values()),
        *(f"{planned.file}: {sentence}" for sentence in unused(planned.by_file, runs.values())),
    ]
    for warning in [*_warnings([*runs.values()]), *without_use, *warnings]:
        note(f"warning: {warning}")
    if warning := device_warning(planned.launcher):
        note(f"warning: {warning}")
    remarks += build_changed(runs.values())
    for remark in dict.fromkeys([*remarks, *weights_remarks(runs.values())]):
        note(remark)
    vague = {i for i, s in runs.items() if s.task.name in no_data or repr(s.backbone) in no_weights}
    states = {i: "unknown" if i in vague else shelf.state(i) for i in runs}
    done = {i: shelf.row(i) for i in runs if states[i] == "done"}
    again = existing is Existing.rerun_stale
    stale = set() if existing is Existing.rerun else stale_runs(runs, done.values(), again)
    todo = {i: spec for i, spec in runs.items() if _wanted(states[i], existing) or (again and i in stale)}
    check_precisions(planned.launcher, todo.values())
    lost = unbuildable(todo, len(runs))
    built = {i: job for i, job in jobs.items() if i not in lost}
    unchecked = _unchecked(
        no_data, {s.backbone.display_name for s in specs if repr(s.backbone) in no_weights}
    )
    left = [i for i in todo if i not in lost]
    if plan_only:
        check_buildable(runs[i] for i in left)
    return Prepared(planned, shelf, built, states, done, left, len(lost), vague, unchecked)


def _with_sources(jobs: dict[str, Job], shelf: Store, store: Path) -> dict[str, Job]:
    """Return jobs together with those of runs at 32 bits that are to be compressed and are not done yet."""
    from petl_bench.config.command import overrides_of
    from petl_bench.config.specs import uncompressed
    from petl_bench.run.identity import job_of

    sources: dict[str, Job] = {}
    for job in jobs.values():
        if not job.spec.compressed:
            continue
        checksum = job.backbone_sha256
        known = [job_of(source, "", job.origin, checksum) for source in uncompressed(job.spec)]
        there = (j.run_id in jobs | sources or shelf.state(j.run_id) == "done" for j in known)
        if not any(there):
            command = _command(overrides_of(known[0].spec), store)
            sources[known[0].run_id] = replace(known[0], command=command)
    return sources | jobs


def _not_downloaded(specs: Collection[RunSpec]) -> dict[str, str]:
    """Return the backbones whose pretrained weights are not on this machine, with an empty checksum."""
    pretrained = {s.backbone.name: s.backbone for s in specs if s.backbone.weights == "pretrained"}
    if not pretrained:
        return {}
    from petl_bench.backbones.creation import downloaded

    there = {name for name in pretrained if downloaded(name)}
    lacking = [s.backbone for s in specs if s.backbone.name in pretrained.keys() - there]
    return {repr(backbone): "" for backbone in lacking if backbone.weights == "pretrained"}


def _unchecked(no_data: Mapping[str, str], no_weights: Collection[str]) -> list[str]:
    """Return what a plan has not looked at, since it is not on this machine."""
    found = [
        f"data of {counted(sum(held == root for held in no_data.values()), 'task')} (not in {root})"
        for root in dict.fromkeys(no_data.values())
    ]
    return found + [f"weights of {name} (not downloaded)" for name in sorted(no_weights)]


def _command(overrides: Sequence[str], store: Path) -> str:
    """Return the command that repeats one run alone."""
    options = ["--store", str(store.absolute()), "--existing", "retry-failed"]
    return shlex.join(["petl-bench", "sweep", *overrides, *in_use(), *options])


PUBLISHED_SUITES = ("vtab", "fgvc")
"""Suites with published results."""


def _warnings(specs: Collection[RunSpec]) -> list[str]:
    """Return warnings: pixels not normalized, results that are not comparable, settings without effect."""
    benchmark = [spec for spec in specs if spec.task.suite in PUBLISHED_SUITES]
    others = sorted({spec.backbone.display_name for spec in benchmark if not spec.backbone.published})
    changed = sorted({f"{spec.task.name} ({spec.task.override})" for spec in benchmark if spec.task.override})
    found = []
    raw = sorted({spec.backbone.display_name for spec in specs if _unnormalized(spec)})
    if raw:
        found.append(
            f"pixels are not normalized, {', '.join(raw)} was pretrained with normalized ones; "
            "train.normalization=backbone normalizes them alike"
        )
    if others:
        found.append(
            f"published results are of other backbone weights than {', '.join(others)} and not comparable "
            "(backbone=vit_b16_in21k has the published ones)"
        )
    if changed:
        found.append(f"split sizes differ from the benchmark: {', '.join(changed)}; rows state this")
    return found + idle(specs)


def _unnormalized(spec: RunSpec) -> bool:
    """Return whether a pretrained backbone lacks its normalization of pixels, and no paper asks for it."""
    trained = spec.backbone.weights != "random" and not spec.backbone.weights.startswith("bundled:")
    if spec.train.normalization != "none" or spec.task.suite in PUBLISHED_SUITES or not trained:
        return False
    if spec.backbone.normalization != "none":
        return True
    from petl_bench.backbones.creation import normalization  # a plan resolves it only where it is needed

    try:
        return normalization(spec.backbone.name) != "none"
    except UserError:  # timm states one that has no name here
        return True


def _wanted(state: str, existing: Existing) -> bool:
    """Return whether a run in some state of the store is to be executed."""
    if existing is Existing.rerun or state in ("missing", "killed", "unknown"):
        return True
    return existing is Existing.retry_failed and state == "failed"
