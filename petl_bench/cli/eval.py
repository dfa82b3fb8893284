"""`petl-bench eval`: evaluation of adapter files, from the files alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench.cli.agreement import comparison, threads_of, verdict
from petl_bench.cli.common import DEFAULT_STORE, note, print_json, say, usable_rows, waiting
from petl_bench.cli.filters import filtered
from petl_bench.cli.options import (
    DeviceOption,
    FilterOption,
    JsonOption,
    OverrideOption,
    RootsOption,
    StoreOption,
    ThreadsOption,
    WeightsOption,
    check_store,
    check_threads,
)
from petl_bench.cli.roots import Roots, in_words, read_roots, refuse_unused
from petl_bench.errors import DamagedError, UserError, counted, did_you_mean
from petl_bench.files import ADAPTER_LIMIT, read_bytes
from petl_bench.store import ADAPTER, PREDICTIONS, Store, find_run
from petl_bench.types import DataSettings, ResultRow, Runtime, TaskSpec, row_to_dict


@dataclass(frozen=True)
class Target:
    """Run of a store, or a single adapter file."""

    path: Path
    store: Store | None = None
    run_id: str = ""


def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Runs to evaluate: run_ids, directories of runs, or adapter files.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    all_runs: Annotated[
        bool, typer.Option("--all", help="Evaluate every finished run of the store.")
    ] = False,
    filters: FilterOption = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="Evaluate on this task instead of the one that the file states."),
    ] = None,
    weights: WeightsOption = None,
    root: RootsOption = None,
    override: OverrideOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate adapter files again and compare with their rows.

    The test images are classified from the adapter file and the backbone alone, by default with as many
    threads as the run had. The exit code is 1 if the accuracy differs from the row of a run, or any
    prediction from that of the run. On a GPU, and where another device or other
    kernels computed the run, 1 % of the predictions may differ.
    """
    check_threads(threads)
    from petl_bench.device import find_device

    with waiting("loading torch"):
        device = find_device(device, "--device ")
    found = _targets(targets or [], store, all_runs, filters or [])
    tasks = _tasks_of(found)
    roots = read_roots(root, tasks.values())
    other_task = _task(task, roots.settings(task, override)) if task else None
    if not task and all(target.store is not None for target in found):
        if override is not None:
            raise UserError(f"--override {override}: runs of a store state their split sizes; leave it out")
        refuse_unused(root, roots, tasks.values())
    lacking = [] if task else roots.lacking(tasks.values())
    if lacking and not all_runs:
        raise UserError("; ".join(in_words(lacking)))
    for message in in_words(lacking):
        note(f"error: {message}")
    failed = len(lacking)
    left_out = [i for i, known in tasks.items() if known in lacking]
    disagree = 0
    for target in (target for target in found if target.run_id not in left_out):
        try:
            with waiting(f"evaluating {target.run_id or target.path}"):
                result = _evaluate(target, other_task, weights, roots, override, device, threads)
        except (UserError, OSError) as error:
            if not all_runs:
                raise
            failed += 1
            note(f"error: {target.run_id}: {error}")
            continue
        disagree += result["agrees"] is False
        if json:
            print_json("eval/1", result)
        else:
            changed = _changed(target) if result["agrees"] is False else ""
            where = f"{target.run_id or target.path} {result['task']}"
            say(f"{where}: acc {result['acc']:.4f}{verdict(result)}{changed}")
    if disagree:
        note(f"{disagree} of {len(found)} disagree with their row")
    if failed:
        raise UserError(f"{failed} of {counted(len(found), 'run')} of store {store} cannot be evaluated")
    if disagree:
        raise typer.Exit(1)


def _targets(names: list[str], store: Path, all_runs: bool, filters: list[str]) -> list[Target]:
    """Return the targets to evaluate: those that are named, or all runs of a store that filters select.

    Raises:
        UserError: both or neither are asked for, or there is no such run or file.
    """
    shelf = Store(store)
    if bool(names) == all_runs:
        raise UserError("eval: give either runs, directories or files to evaluate, or --all")
    if not all_runs:
        if filters:
            raise UserError(f"--filter {filters[0]}: selects runs of --all; leave it out for named runs")
        check_store(store, *names)
        return [_find(text, shelf) for text in names]
    rows = usable_rows(shelf, needed=True, as_written=True)
    if not rows:
        raise UserError(f"store {store}: holds no finished run; run `petl-bench sweep` first")
    for text in filters:
        rows = filtered(rows, text, shelf)
    return [_run(shelf, row.run_id) for row in rows]


def _tasks_of(targets: list[Target]) -> dict[str, TaskSpec]:
    """Return the tasks of runs by run_id, as far as they can be read."""
    tasks = {}
    for target in targets:
        if target.store is not None:
            with suppress(DamagedError):
                tasks[target.run_id] = target.store.spec(target.run_id).task
    return tasks


def _changed(target: Target) -> str:
    """Say which source code has changed since a run was made; empty if none has, or nothing is known."""
    from petl_bench.run.source import changed_parts

    if target.store is None:
        return ""
    parts = changed_parts(target.store.spec(target.run_id), target.store.written_row(target.run_id))
    return f" (source code changed since then: {', '.join(parts)})" if parts else ""


def _find(text: str, store: Store) -> Target:
    """Return the target that a run_id, the directory of a run, or the path of an adapter file names."""
    path = Path(text)
    return Target(path) if path.is_file() else _run(*find_run(text, store))


def _run(store: Store, run_id: str) -> Target:
    return Target(store.directory(run_id) / ADAPTER, store, run_id)


def _task(name: str, settings: DataSettings, own_data: bool = False) -> TaskSpec:
    from petl_bench.config import plan_task
    from petl_bench.data import manifests, resolve
    from petl_bench.data.tree import split_folders

    own = "your own data are named by their layout: --task folder --root DIR"
    if own_data:
        raise UserError(f"the adapter was trained on your own data {name!r}: {own}")
    if name not in manifests():
        raise UserError(f"unknown task {name!r}: {did_you_mean(name, manifests())}; {own}")
    root = Path(settings.folder)
    if manifests()[name].source == "tree" and not (root.is_dir() and "test" in split_folders(root)):
        raise UserError(
            "--task tree: which images are for test depends on the run's draw (data.images, split_seed), "
            "which an adapter file does not state; evaluate the run in its store, or a tree with train/ and "
            "test/"
        )
    return resolve(plan_task(name, settings), DataSettings().decoded)


def _evaluate(
    target: Target,
    task: TaskSpec | None,
    weights: str | None,
    roots: Roots,
    override: Path | None,
    device: str,
    threads: int | None,
) -> dict[str, Any]:
    """Evaluate one file; return the known columns of its row, and how it compares with that.

    The keys of the comparison are `acc_row` and those of `petl_bench.cli.agreement.comparison`; all are None
    without a row of the same task.

    Args:
        task: the task to evaluate on; None: the one that the run or the file states.
        weights: file of backbone weights; None: as the run or the file states.
        roots: folders of data, unless a run in a store states them.
        override: file of split sizes for adapter files that are no run.
        device: device of the evaluation.
        threads: CPU threads; 0: all cores; None: as many as the run had, or all if that is not known.
    """
    from petl_bench import packing
    from petl_bench.device import cores_here, device_name
    from petl_bench.packing import FROM_FILE
    from petl_bench.run.execute import read_metadata, score
    from petl_bench.run.provenance import kernels

    where = str(target.path)
    file = packing.load(read_bytes(target.path, ADAPTER_LIMIT), where)
    if target.store is not None:
        spec, row = target.store.spec(target.run_id), target.store.written_row(target.run_id)
        own, backbone, known = spec.task, spec.backbone, row_to_dict(row)
        own = roots.moved(own) if task is None else own
    else:
        facts = read_metadata(file, where)
        if facts.backbone_checksum is None:
            note(
                f"warning: {where}: was converted and states no checksum of its backbone; it is not checked "
                f"whether it was trained on these weights of {facts.model.backbone.display_name}"
            )
        if not (task or facts.task):
            raise UserError(f"{where}: does not state its task; name it with --task")
        own, backbone = (
            task or _task(facts.task, roots.settings(facts.task, override), bool(facts.resize)),
            facts.model.backbone,
        )
        known = dict.fromkeys((f.name for f in fields(ResultRow)), None) | _columns(
            packing.stated_facts(file, where)
        )
        known["precision"] = facts.precision
    if weights is not None:
        backbone = replace(backbone, weights=weights)
    elif backbone.weights == FROM_FILE:
        raise UserError(f"{where}: was trained on weights from a file; name it with --backbone-weights PATH")
    task = task or own
    runtime = Runtime(store="", cache=DataSettings().decoded, device=device, threads=threads or cores_here())
    if threads is None:
        runtime = replace(runtime, threads=threads_of(known) or runtime.threads)
    found = score(file, backbone, task, runtime, where)
    facts_of_task: dict[str, Any] = {"task": task.name, "suite": task.suite, "group": task.group}
    facts_of_task |= {"n_test": found.images, "data_fingerprint": task.fingerprint}
    result = known | facts_of_task | {"acc": found.accuracy, "predictions": found.digest}
    if target.store is None or (task.name, task.fingerprint) != (own.name, own.fingerprint):
        return result | dict.fromkeys(("acc_row", "agrees", "predictions_differ", "tolerance"))
    kept = target.store.predictions(target.run_id)
    if kept is not None and kept.images != found.images:
        raise UserError(
            f"{target.path.with_name(PREDICTIONS)}: holds predictions for {counted(kept.images, 'image')}, "
            f"{task.name} has {found.images}; `petl-bench store check --store {target.store.root}`"
        )
    here = {"device": device_name(device), "kernels": kernels(device)}
    return result | {"acc_row": known["acc"]} | comparison(known, found, kept, here)


def _columns(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that the metadata of an adapter file states, besides its task."""
    return {name: value for name, value in facts.items() if name != "task"}
