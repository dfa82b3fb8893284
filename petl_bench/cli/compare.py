"""`petl-bench compare`: comparison of two runs by their predictions on the same test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petl_bench.cli import completion
from petl_bench.cli.common import DEFAULT_STORE, cells, note, print_json, say
from petl_bench.cli.options import RUN, JsonOption, RootsOption, StoreOption, check_store
from petl_bench.cli.roots import in_words, read_roots, refuse_unused
from petl_bench.errors import UserError, counted
from petl_bench.files import ADAPTER_LIMIT, read_bytes
from petl_bench.store import ADAPTER, PREDICTIONS, Store, find_run
from petl_bench.types import DataSettings, distinct_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from petl_bench.packing import Predictions
    from petl_bench.report.agreement import Agreement

LEVEL = 0.05
"""Level of the test."""
MOST_CONFUSIONS = 10
"""Largest number of confusions that are printed; --json has all of them."""


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=RUN, autocompletion=completion.runs)],
    second: Annotated[str, typer.Argument(metavar="B", help=RUN, autocompletion=completion.runs)],
    store: StoreOption = DEFAULT_STORE,
    root: RootsOption = None,
    json: JsonOption = False,
) -> None:
    """Compare two runs image by image.

    The exact McNemar test says whether one of the two trained files classifies more of the test images
    correctly than chance explains. Tables show for which classes they differ, and what is confused with what.
    Both runs must be on the same test images. Other seeds may differ more; `petl-bench report` compares means
    over seeds and tasks.
    """
    from petl_bench.report.agreement import agreement, by_class, confusions

    check_store(store, first, second)
    runs = [find_run(text, Store(store)) for text in (first, second)]
    rows = [shelf.row(run_id) for shelf, run_id in runs]
    a, b = (kept_by(shelf, run_id) for shelf, run_id in runs)
    if rows[0].data_fingerprint != rows[1].data_fingerprint or (a.images, a.classes) != (b.images, b.classes):
        raise UserError(
            f"run {rows[0].run_id} is on {rows[0].task}, run {rows[1].run_id} on {rows[1].task}"
            + (" with other images" if rows[0].task == rows[1].task else "")
            + ": only runs on the same data can be compared image by image"
        )
    found, labels = agreement(a, b), labels_of(*runs[0], root)
    result: dict[str, Any] = {"run_a": rows[0].run_id, "run_b": rows[1].run_id, "task": rows[0].task}
    result |= {"images": a.images, **asdict(found)}
    result["classes"] = None if labels is None else by_class(a, b, labels)
    result["confusions"] = None if labels is None else confusions(a, b, labels)
    if json:
        print_json("compare/1", result)
        return
    names = distinct_names({run_id: shelf.spec(run_id) for shelf, run_id in runs})
    for letter, (_, run_id), held in zip("AB", runs, (a, b), strict=True):
        named = f"{run_id} {names[run_id]}"
        say(f"{letter}  {named}: {held.correct} of {held.images} right ({100 * held.accuracy:.2f} %)")
    say(
        f"right in both {found.both}, only in A {found.only_a}, only in B {found.only_b}, in neither "
        f"{found.neither}; other predictions for {counted(a.differing(b), 'image')}",
        f"exact McNemar test: p = {found.p:.3g}: {_verdict(found)}",
    )
    if labels is not None:
        _print_tables(result, names_of(*runs[0]))


def kept_by(store: Store, run_id: str) -> Predictions:
    """Return the predictions of a run.

    Raises:
        UserError: it has not kept them, they cannot be read, or they are not those of its row.
    """
    kept = store.predictions(run_id)
    if kept is None:
        raise UserError(
            f"run {run_id} of store {store.root} has kept no predictions (it is older, or had "
            "launcher.predictions=false)"
        )
    row = store.row(run_id)
    if (kept.accuracy, kept.images) != (row.acc, row.n_test) or row.predictions not in ("", kept.digest):
        raise UserError(
            f"run {run_id} of store {store.root}: {PREDICTIONS} does not hold the predictions of its row; "
            f"petl-bench eval {run_id} says what the adapter file predicts"
        )
    return kept


def labels_of(store: Store, run_id: str, root: list[str] | None) -> NDArray[np.int64] | None:
    """Return the labels of the test images; None, with a note, if the data are not there."""
    from petl_bench import data

    try:
        task = store.spec(run_id).task
        roots = read_roots(root, [task])
        refuse_unused(root, roots, [task])
        if lacking := roots.lacking([task]):
            raise UserError(in_words(lacking)[0])
        return data.labels(roots.moved(task), "test", DataSettings().decoded)
    except UserError as error:
        if root:
            raise
        note(f"classes and confusions are left out, since the labels cannot be read: {error}")
        return None


def _verdict(found: Agreement) -> str:
    if found.p > LEVEL:
        return "the difference is within what chance explains"
    better = "A" if found.only_a > found.only_b else "B"
    return f"{better} classifies significantly more of these images correctly"


def names_of(store: Store, run_id: str) -> tuple[str, ...]:
    """Return the names of the classes of a run by label; empty if neither manifest nor file states them."""
    from petl_bench import packing
    from petl_bench.data import manifests

    task, path = store.spec(run_id).task, store.directory(run_id) / ADAPTER
    if task.suite != "own":
        return tuple(manifests()[task.name].class_names) if task.name in manifests() else ()
    file = packing.load(read_bytes(path, ADAPTER_LIMIT), str(path))
    return tuple(packing.stated_class_names(file, str(path)))


def _print_tables(result: dict[str, Any], names: Sequence[str]) -> None:
    """Print the classes in which two runs differ, and confusions; classes have their names, if known."""
    from rich.console import Console
    from rich.table import Table

    def named(label: int) -> str:
        return f"{label} {names[label]}" if label < len(names) and names[label] != str(label) else str(label)

    console = Console(width=100, highlight=False)
    classes = [held for held in result["classes"] if held["only_a"] or held["only_b"]]
    if classes:
        table = Table("class", "images", "right in A", "right in B", "only in A", "only in B")
        for held in classes:
            table.add_row(*cells(named(held["class"]), *[*held.values()][1:]))
        say("classes in which the runs differ:")
        console.print(table)
    if pairs := result["confusions"]:
        table = Table("label", "predicted", "images in A", "images in B")
        for held in pairs[:MOST_CONFUSIONS]:
            images = (held["images_a"], held["images_b"])
            table.add_row(*cells(named(held["label"]), named(held["predicted"]), *images))
        say(f"most frequent confusions ({min(len(pairs), MOST_CONFUSIONS)} of {len(pairs)}):")
        console.print(table)
