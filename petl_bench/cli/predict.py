"""`petl-bench predict`: classes and probabilities of images by a trained adapter."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petl_bench.cli.common import DEFAULT_STORE, Counter, note, print_json, say, waiting
from petl_bench.cli.options import (
    DeviceOption,
    JsonOption,
    ResizeOption,
    StoreOption,
    ThreadsOption,
    TrainedArgument,
    WeightsOption,
    check_store,
    check_threads,
    use_threads,
)
from petl_bench.errors import UserError, counted
from petl_bench.types import require

if TYPE_CHECKING:
    from petl_bench.use import Prediction

SUFFIX = ".safetensors"
"""Suffix of adapter files, of which a pattern of the shell may have found several."""
COLUMNS = ("image", "rank", "class", "name", "probability")


def predict(
    file: TrainedArgument,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="Images, or folders with images at any depth."),
    ],
    top: Annotated[int, typer.Option("--top", help="Number of most probable classes to print.")] = 1,
    json: JsonOption = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: a line for each image and class, with a header.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="fp32, bf16, int8 or auto; by default that of the training."),
    ] = None,
    threads: ThreadsOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            help="Images that pass through the model together; by default, as many as a GPU holds.",
        ),
    ] = None,
    resize: ResizeOption = None,
) -> None:
    """Predict the classes of images.

    Images are read, resized and normalized as in the evaluation of the adapter, and the classes are those
    that `eval` finds. Images that cannot be read are named and skipped, and the exit code is 1 then.
    """
    if json and as_csv:
        raise UserError("--json and --csv: give one of them")
    check_store(store, file)
    if other := next((path for path in images if path.suffix == SUFFIX), None):
        raise UserError(f"{other}: is an adapter file, not an image; predict takes one adapter, {file}")
    check_threads(threads)
    require(batch_size is None or batch_size >= 1, "--batch-size", batch_size, "at least 1")
    require(top >= 1, "--top", top, "at least 1")
    with waiting("loading torch"):
        from petl_bench.use import Unreadable, found_images, model_of, read
    trained = read(file, weights, resize, store)
    classes = trained.facts.model.classes
    require(top <= classes, "--top", top, f"at most {classes}, the number of classes of {trained.where}")
    paths, remarks = found_images(images)
    for remark in (*trained.remarks, *remarks):
        note(f"warning: {remark}")
    if not trained.class_names:
        note(f"{trained.where}: states no class names; classes are numbered from 0")
    use_threads(threads)
    with waiting("loading the backbone"):
        model = model_of(trained, device, precision)
    _compute_as_eval(model.info.device)
    writer = csv.writer(sys.stdout, lineterminator="\n") if as_csv else None
    if writer is not None:
        writer.writerow(COLUMNS)
    begin, skipped = time.perf_counter(), 0
    with Counter("images", len(paths)) as advance:
        for found in model.predictions(paths, top, batch_size):
            advance(1)
            if isinstance(found, Unreadable):
                skipped += 1
                note(f"skipped: {found.reason}")
            elif json:
                print_json("predict/1", _object(found))
            elif writer is not None:
                writer.writerows(_lines(found))
            else:
                say(f"{found.image}: {', '.join(map(str, found.top))}")
    seconds = time.perf_counter() - begin
    left = f", {skipped} skipped" if skipped else ""
    note(f"{counted(len(paths), 'image')} in {seconds:.1f} s{left}")
    if skipped:
        raise typer.Exit(1)


def _compute_as_eval(device: str) -> None:
    import torch

    from petl_bench.device import prepare_process

    prepare_process(device, torch.get_num_threads())


def _object(found: Prediction) -> dict[str, Any]:
    """Return a prediction as a JSON object."""
    top = [{"class": c.label, "name": c.name or None, "probability": c.probability} for c in found.top]
    return {"image": found.image, **top[0], "top": top}


def _lines(found: Prediction) -> Iterator[tuple[str, int, int, str, float]]:
    """Yield the lines of a prediction in a CSV file."""
    for rank, one in enumerate(found.top, 1):
        yield found.image, rank, one.label, one.name, one.probability
