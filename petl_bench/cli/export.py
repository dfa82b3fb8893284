"""`petl-bench export`: a trained adapter with its backbone for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from petl_bench.atomic import write_atomic, write_folder_atomic
from petl_bench.cli.common import DEFAULT_STORE, note, print_json, waiting, written
from petl_bench.cli.options import (
    JsonOption,
    OutOption,
    ResizeOption,
    StoreOption,
    TargetArgument,
    ThreadsOption,
    TrainedArgument,
    WeightsOption,
    check_store,
    check_threads,
    destination,
    use_threads,
)
from petl_bench.errors import UserError


class Form(StrEnum):
    safetensors = "safetensors"
    timm = "timm"
    torch = "torch"
    onnx = "onnx"
    peft = "peft"


def export(
    file: TrainedArgument,
    target: TargetArgument = None,
    *,
    to: Annotated[
        Form,
        typer.Option(
            "--to",
            help="safetensors: merged weights; timm: a folder for timm.create_model; torch: a program of "
            "torch.export; onnx; peft: a folder for PEFT.",
        ),
    ],
    out: OutOption = None,
    store: StoreOption = DEFAULT_STORE,
    weights: WeightsOption = None,
    resize: ResizeOption = None,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            metavar="OWNER/NAME",
            help="Also, or instead of DST, upload it with a model card to a new private repository of the "
            "Hugging Face hub. FILE must be a run.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Write a trained adapter with its backbone for other programs.

    The result computes in fp32, and is made on the CPU for any device. `safetensors` and `timm` hold a plain
    timm model with adapter and head in its own weights, where the method can be merged. `torch` and `onnx`
    hold the graph of any method, for batches of any size; its logits are compared with the model's before
    anything is written. `peft` holds the adapter alone, for methods whose updates have low rank. A form that
    a method does not have is refused. Existing files are never overwritten.
    """
    check_store(store, file)
    check_threads(threads)
    if push is None or target or out:
        target = destination(target, out)
        _require_free(target)
    with waiting("loading torch"):
        from petl_bench.use import exported, model_card, read, row_of, with_card, writable
    use_threads(threads)
    row = None if push is None else row_of(file, store)
    repository = None if push is None else writable(push)
    trained = read(file, weights, resize, store)
    for remark in trained.remarks:
        note(f"warning: {remark}")
    with waiting(f"exporting to {to.value}"):
        files = exported(trained, to.value)
    address = ""
    if repository and row:
        card = model_card(repository.name, to.value, trained, row)
        message = f"{row.task} by {row.adapter}, run {row.run_id} of petl-bench"
        address = repository.fill(with_card(files, to.value, card), message)
        note(f"pushed to {address}")
    if target:
        _write(target, files)
    if json:
        values = written(trained.where, target, to.value, files)
        print_json("export/1", values | ({"pushed": address} if address else {}))


def _require_free(target: Path) -> None:
    """Check that a path can be written.

    Raises:
        UserError: there is something already, or no folder to write it to.
    """
    if target.exists() or target.is_symlink():
        raise UserError(f"{target}: exists already, and export does not overwrite; choose another name")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder; make it first")


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    if "" in files:
        write_atomic(target, files[""])
    else:
        write_folder_atomic(target, files)
    size = sum(map(len, files.values()))
    names = f" ({', '.join(files)})" if "" not in files else ""
    note(f"wrote {target}{names}: {size:,} bytes")
