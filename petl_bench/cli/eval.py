"""`petl-bench eval`: evaluate adapter files again, from the files alone."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench.cli.common import (
    DEFAULT_STORE,
    JsonOption,
    OverrideOption,
    RootOption,
    StoreOption,
    data_settings,
    note,
    print_json,
    usable_rows,
)
from petl_bench.errors import UserError, counted, did_you_mean
from petl_bench.store import ADAPTER, ROW, Store
from petl_bench.types import DataSettings, ResultRow, Runtime, TaskSpec, row_to_dict


@dataclass(frozen=True)
class Target:
    """A run of a store, or an adapter file by itself."""

    path: Path
    store: Store | None = None
    run_id: str = ""


def evaluate(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN_ID|RUN_DIR|ADAPTER_FILE]...", show_default=False)
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    all_runs: Annotated[bool, typer.Option("--all", help="Every finished run of the store.")] = False,
    task: Annotated[
        str | None, typer.Option("--task", help="Evaluate on this task instead of the file's own.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="Backbone weights file, for adapter files that do not name theirs."),
    ] = None,
    root: RootOption = None,
    override: OverrideOption = None,
    json: JsonOption = False,
) -> None:
    """Test accuracy from the adapter file and the backbone; exit 1 where it disagrees with the row."""
    if bool(targets) == all_runs:
        raise UserError("eval: name runs, directories or files to evaluate, or --all (and not both)")
    found = [_find(text, Store(store)) for text in targets or []]
    failed = 0
    if all_runs:
        shelf = Store(store)
        found = [_run(shelf, row.run_id) for row in usable_rows(shelf, needed=True)]
        if not found:
            raise UserError(f"store {store}: holds no finished run; `petl-bench sweep` makes some")
    settings = data_settings(root, override)
    other_task = _task(task, settings) if task else None
    disagree = 0
    for target in found:
        try:
            result = _evaluate(target, other_task, weights, settings, moved=root is not None)
        except (UserError, OSError) as error:
            if not all_runs:
                raise
            failed += 1
            note(f"{target.run_id}: {error}")
            continue
        disagree += result["agrees"] is False
        if json:
            print_json(result)
        else:
            verdict = {None: "", True: " = row", False: f" DISAGREES with row {result['acc_row']}"}
            where = target.run_id or target.path
            print(f"{where} {result['task']}: acc {result['acc']:.4f}{verdict[result['agrees']]}")
    if disagree:
        note(f"{disagree} of {len(found)} disagree with their row")
    if failed:
        raise UserError(f"{failed} of {counted(len(found), 'run')} of store {store} cannot be evaluated")
    if disagree:
        raise typer.Exit(1)


def _find(text: str, store: Store) -> Target:
    """A run_id of the store, a run's directory, or the path of an adapter file."""
    path = Path(text)
    if path.is_dir():
        if not (path / ROW).is_file():
            raise UserError(f"{text}: not the directory of a finished run (it holds no {ROW})")
        return _run(Store(path.resolve().parent), path.resolve().name)
    if path.is_file():
        return Target(path)
    if "/" in text or path.suffix:
        raise UserError(f"{text}: no such file or directory")
    return _run(store, store.find(text))


def _run(store: Store, run_id: str) -> Target:
    return Target(store.directory(run_id) / ADAPTER, store, run_id)


def _task(name: str, settings: DataSettings) -> TaskSpec:
    from petl_bench.config import plan_task
    from petl_bench.data import manifests, resolve

    if name not in manifests():
        own = "your own data are named by their layout: --task folder --root DIR"
        raise UserError(f"unknown task {name!r}: {did_you_mean(name, manifests())}; {own}")
    if manifests()[name].source == "tree" and not (Path(settings.folder) / "test").is_dir():
        raise UserError(
            "--task tree: which images are for test depends on the run's draw (data.images, split_seed), "
            "which an adapter file does not hold; evaluate the run in its store, or a tree with train/ and "
            "test/"
        )
    return resolve(plan_task(name, settings), DataSettings().decoded)


def _moved(task: TaskSpec, root: str) -> TaskSpec:
    """A stored run's task with its files in another folder; the same data, or an error."""
    from petl_bench.data import resolve

    found = resolve(replace(task, place={"root": root}), DataSettings().decoded) if task.place else task
    if found.fingerprint != task.fingerprint:
        raise UserError(f"--root {root}: holds another copy of {task.name} than the run was evaluated on")
    return found


def _evaluate(
    target: Target, task: TaskSpec | None, weights: str | None, settings: DataSettings, moved: bool
) -> dict[str, Any]:
    """The columns of a row as far as they are known, with acc_row and agrees.

    Args:
        settings: where data are that a run in a store does not name.
        moved: whether a run's data are there too, and no longer where they were.
    """
    from petl_bench import packing
    from petl_bench.packing import FROM_FILE
    from petl_bench.run.execute import read_metadata, score

    where = str(target.path)
    try:
        file = packing.load(target.path.read_bytes(), where)
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from error
    if target.store is not None:
        spec, row = target.store.spec(target.run_id), target.store.row(target.run_id)
        own, backbone, known = spec.task, spec.backbone, row_to_dict(row)
        own = _moved(own, settings.folder) if moved and task is None else own
    else:
        facts = read_metadata(file, where)
        if facts.backbone_checksum is None:
            note(
                f"warning: {where}: does not state the checksum of its backbone (it was converted): whether "
                f"these are its weights of {facts.model.backbone.display_name} is not checked"
            )
        if not (task or facts.task):
            raise UserError(f"{where}: does not state its task; name it with --task")
        own, backbone = task or _task(facts.task, settings), facts.model.backbone
        known = dict.fromkeys((f.name for f in fields(ResultRow)), None) | _columns(file.metadata)
        known["precision"] = facts.precision
    if weights is not None:
        backbone = replace(backbone, weights=weights)
    elif backbone.weights == FROM_FILE:
        raise UserError(f"{where}: was trained on weights from a file; name it with --weights PATH")
    task = task or own
    right = score(file, backbone, task, Runtime(store="", cache=DataSettings().decoded), where)
    stored = known["acc"] if task.name == own.name else None
    facts_of_task: dict[str, Any] = {"task": task.name, "suite": task.suite, "group": task.group}
    facts_of_task |= {"n_test": right.images, "data_fingerprint": task.fingerprint}
    result = known | facts_of_task | {"acc": right.accuracy}
    return result | {"acc_row": stored, "agrees": None if stored is None else stored == right.accuracy}


def _columns(metadata: dict[str, str]) -> dict[str, Any]:
    """The row columns that an adapter file's own metadata fills."""
    names = ("adapter", "quantizer", "head", "normalization", "backbone")
    columns: dict[str, Any] = {name: metadata[name] for name in names}
    numbers = {"hidden": int(metadata["hidden"]), "bits": int(metadata["bits"])}
    return columns | numbers | {"scale": float(metadata["scale"])}
