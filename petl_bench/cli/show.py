"""`petl-bench show`: one run, what made it, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench import plugins
from petl_bench.cli.common import DEFAULT_STORE, flat, in_use, print_json, say
from petl_bench.cli.compare import kept_by, labels_of
from petl_bench.cli.options import JsonOption, RootsOption, RunArgument, StoreOption, check_store
from petl_bench.errors import DamagedError, UserError, counted
from petl_bench.store import SEARCH, Store, find_run, from_json
from petl_bench.types import ResultRow, RunSpec, row_to_dict, spec_columns, spec_to_dict, stored_id

RESULTS = (
    *("status", "scale", "lr", "acc", "predictions", "acc_val", "acc_best_peek", "n_train", "n_test"),
    *("bytes_adapter", "bytes_adapter_raw", "bytes_head", "bytes_overhead", "bytes_file", "bits_per_weight"),
    *("params_trainable", "seconds_search", "seconds_train", "seconds_eval", "images_per_second"),
    *("peak_memory_bytes", "compressed_from", "chosen"),
)
"""Columns of what a run has measured."""
NAMES = ("run_id", "recipe", "recipe_name", "settings", "image_size")
"""Columns that repeat the settings in another form."""


def show(
    run: RunArgument,
    store: StoreOption = DEFAULT_STORE,
    classes: Annotated[
        bool, typer.Option("--classes", help="Add the accuracy of each class and the confusions.")
    ] = False,
    root: RootsOption = None,
    json: JsonOption = False,
) -> None:
    """Show one run of a store and the command that repeats it.

    The settings, the recipe in words, the results, what made them, the files of the run, and for a run that
    failed the reason. The command plans exactly this run; `petl-bench rerun` executes it.
    """
    check_store(store, run)
    if root and not classes:
        raise UserError(f"--root {root[0]}: data are read for --classes alone; leave it out")
    shelf, run_id = find_run(run, Store(store), failed=True)
    facts = about(shelf, run_id)
    if classes:
        facts |= _by_class(shelf, run_id, root)
    if json:
        print_json("show/1", facts)
        return
    say(f"run {run_id} of store {shelf.root}: {facts['state']}")
    if facts["error"]:
        say(f"error: {' '.join(facts['error'].split())}")
    say(f"recipe: {facts['recipe']}", *facts["differences"])
    for heading in ("settings", "results", "provenance", "files"):
        say("", f"{heading}:", *_aligned(facts[heading]))
    if facts["search"]:
        say("", "search on val:", *(f"  {_trial(trial)}" for trial in facts["search"]))
    for held in facts.get("classes") or []:
        say(f"  class {held['class']}: {held['right']} of {counted(held['images'], 'image')} right")
    for held in facts.get("confusions") or []:
        say(f"  class {held['label']} as {held['predicted']}: {counted(held['images'], 'image')}")
    say("", "command:", f"  {facts['command']}", f"  {facts['rerun']}")


def about(store: Store, run_id: str) -> dict[str, Any]:
    """Return everything about a run as a JSON object.

    Raises:
        UserError: its row or its spec cannot be read.
    """
    from petl_bench.config.command import overrides_of
    from petl_bench.config.recipes import recipe_words
    from petl_bench.run.source import other_makers

    state = store.state(run_id)
    if state == "damaged":
        raise UserError(f"run {run_id}: {store.fault(run_id)}")
    spec = store.spec(run_id)
    row = store.row(run_id) if state == "done" else None
    overrides = overrides_of(spec)
    other = [] if row is None else other_makers(spec, row)
    values = {} if row is None else row_to_dict(row)
    return {
        "run_id": run_id,
        "state": state,
        "error": "" if state == "done" else store.failure(run_id)["message"],
        "recipe": recipe_words(spec),
        "settings": dict(flat(spec_to_dict(spec))),
        "results": {name: values[name] for name in RESULTS if name in values},
        "provenance": {} if row is None else provenance(row, spec),
        "files": _files(store.directory(run_id)),
        "search": _search(store, run_id),
        "overrides": overrides,
        "differences": misfits(overrides, spec, run_id, row)
        + [f"{name} is not that of this petl-bench" for name in other],
        "command": shlex.join(["petl-bench", "sweep", *overrides, *in_use()]),
        "rerun": shlex.join(["petl-bench", "rerun", run_id, *in_use(), "--store", str(store.root)]),
    }


def _by_class(store: Store, run_id: str, root: list[str] | None) -> dict[str, Any]:
    """Return images and right answers by class, and all confusions, the most frequent first.

    Both are None if the labels cannot be read.
    """
    from petl_bench.report.agreement import by_class, confusions

    kept, labels = kept_by(store, run_id), labels_of(store, run_id, root)
    if labels is None:
        return {"classes": None, "confusions": None}
    return {
        "classes": [
            {"class": held["class"], "images": held["images"], "right": held["right_a"]}
            for held in by_class(kept, kept, labels)
        ],
        "confusions": [
            {"label": held["label"], "predicted": held["predicted"], "images": held["images_a"]}
            for held in confusions(kept, kept, labels)
        ],
    }


def misfits(overrides: list[str], spec: RunSpec, run_id: str, row: ResultRow | None) -> list[str]:
    """Return the reason why these overrides plan another run_id; empty if they plan this one.

    Args:
        overrides: those of `overrides_of`.
        spec: the run.
        run_id: its identity in the store.
        row: its row; None if it has none.
    """
    from petl_bench.config.command import differences

    if row is not None and (why := plugins.missing(row.plugins)):
        return [f"it {why}"]
    found = differences(overrides, spec)
    if found:
        return [f"the settings of this version cannot express the run: {', '.join(found)}"]
    now = run_id if row is None else stored_id(spec_to_dict(spec), row.backbone_sha256)
    return [] if now == run_id else [f"a sweep of this version gives the run another run_id: {now}"]


def provenance(row: ResultRow, spec: RunSpec) -> dict[str, Any]:
    """Return the columns of a row that state what made it."""
    left_out = {*RESULTS, *NAMES, *spec_columns(spec)} - {"data_fingerprint"}
    return {name: value for name, value in row_to_dict(row).items() if name not in left_out}


def _files(directory: Path) -> dict[str, int]:
    """Return the bytes of the files of a run by their paths in its directory."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


def _search(store: Store, run_id: str) -> list[Any]:
    """Return the trials of a search; none where the run has made none.

    Raises:
        UserError: search.json cannot be read.
    """
    path = store.directory(run_id) / SEARCH
    if not path.exists():
        return []
    try:
        return list(from_json(path)["trials"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(str(path), str(error)) from error


def _trial(trial: Mapping[str, Any]) -> str:
    score = "diverged" if trial["acc_val"] is None else f"{100 * trial['acc_val']:.1f} %"
    text = f"scale {trial['scale']}, lr {trial['lr']}, {counted(trial['epochs'], 'epoch')}"
    text += "".join(f", {name} {trial[name]:g}" for name in ("kept", "strength") if trial.get(name))
    return f"{text}: {score}"


def _aligned(values: Mapping[str, Any]) -> list[str]:
    width = max(map(len, values), default=0)
    return [f"  {name:<{width}}  {_text(value)}".rstrip() for name, value in values.items()]


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else f"{value:,}" if type(value) is int and value > 9999 else str(value)
