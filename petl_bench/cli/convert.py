"""`petl-bench convert`: adapter files from and to files of others, and repacking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench.atomic import write_atomic
from petl_bench.cli.common import note, print_json, written
from petl_bench.cli.options import JsonOption, OutOption, TargetArgument, destination
from petl_bench.errors import UserError, did_you_mean
from petl_bench.files import ADAPTER_LIMIT, read_bytes

_NEEDED = ("adapter", "hidden", "bits", "classes", "scale")
"""Settings that a .bin file does not state. Its head follows from its size, and the task is optional."""


class Format(StrEnum):
    petl_bench = "petl-bench"
    petl_vit = "petl-vit"


class Packing(StrEnum):
    coded = "coded"
    raw = "raw"


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A .bin file, an adapter file or a folder of PEFT.")
    ],
    target: TargetArgument = None,
    *,
    to: Annotated[
        Format,
        typer.Option(
            "--to", help="petl-bench: write an adapter file; petl-vit: write a .bin and a .yaml file."
        ),
    ],
    packing: Annotated[
        Packing | None,
        typer.Option(
            "--packing",
            help="Packing of the adapter file: coded where this is smaller (the default), or raw.",
        ),
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", help="Keep only the first RANKS ranks of a dylora file.", metavar="RANKS"),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="Adapter of a .bin file: adaptformer or lora.")
    ] = None,
    bits: Annotated[int | None, typer.Option("--bits", help="Bits per weight: 1, 2, 4 or 8.")] = None,
    hidden: Annotated[int | None, typer.Option("--hidden", help="Hidden size (rank) of the adapter.")] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="Factor of the adapter's output.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Number of classes of the head.")] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="Head: linear or binary; by default, what the file size implies."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Name of the task, e.g. vtab_cifar.")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Backbone of a folder of PEFT, as in conf/backbone.")
    ] = None,
    normalization: Annotated[
        str | None,
        typer.Option("--normalization", help="Normalization of its pixels: imagenet, inception, ..."),
    ] = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Convert adapter files from and to .bin files of PETL-ViT, and from folders of PEFT.

    Converting a .bin file (of binary_adapter) there and back gives the same bytes. A .bin file does not hold
    its settings: they are read from the .yaml file beside it, and options replace them or are required if
    there is no .yaml file. With --to petl-vit the settings come from the adapter file, and options must agree
    with them.

    With --to petl-bench the source can also be an adapter file; it is packed again by --packing, or reduced
    to fewer ranks by --ranks. It can also be a folder that PEFT has written for LoRA on a timm model, which
    becomes an adapter file of `lora` at 32 bits; the opposite is `petl-bench export --to peft`. Existing
    files are never overwritten.
    """
    foreign = {"backbone": backbone, "normalization": normalization}
    given = {"adapter": adapter, "hidden": hidden, "bits": bits, "scale": scale, "classes": classes}
    given |= {"head": head, "task": task}
    options = {name: value for name, value in given.items() if value is not None}
    target = destination(target, out)
    _check(source, target, to, packing, ranks, foreign)
    wanted = [target] if to is Format.petl_bench else [target, target.with_suffix(".yaml")]
    for path in wanted:
        if path.exists():
            raise UserError(
                f"{path}: exists already, and convert does not overwrite files; choose another name"
            )
    code = packing is not Packing.raw
    if to is Format.petl_vit:
        contents = _exported(_bytes(source), source, options)
    elif source.is_dir():
        contents = [_from_peft(source, options, foreign, code)]
    elif source.suffix == ".bin":
        contents = [_imported(_bytes(source), source, options, code)]
    else:
        contents = [_repacked(_bytes(source), source, options, code, ranks)]
    try:
        for path, content in zip(wanted, contents, strict=True):
            write_atomic(path, content)
    except OSError as error:
        for path in wanted:
            path.unlink(missing_ok=True)
        raise UserError(f"{target}: cannot be written: {error.strerror}") from error
    note(f"wrote {' and '.join(map(str, wanted))}")
    if json:
        files = {path.name: content for path, content in zip(wanted, contents, strict=True)}
        print_json("convert/1", written(str(source), target, to.value, files))


def _check(
    source: Path,
    target: Path,
    to: Format,
    packing: Packing | None,
    ranks: int | None,
    foreign: Mapping[str, str | None],
) -> None:
    """Refuse options that these files have no use for.

    Raises:
        UserError: there is one.
    """
    is_folder = source.is_dir()
    for name, value in foreign.items():
        if value is not None and not is_folder:
            raise UserError(f"--{name} {value}: is for folders of PEFT, and {source} is none; leave it out")
    if is_folder and to is Format.petl_vit:
        raise UserError(f"{source}: a folder can only be converted --to petl-bench")
    if to is Format.petl_vit and packing:
        raise UserError(f"--packing {packing.value}: a .bin file has only one packing; leave the option out")
    if ranks is not None and (to is Format.petl_vit or is_folder or source.suffix == ".bin"):
        raise UserError(
            f"--ranks {ranks}: only adapter files can be truncated, and only to adapter files; leave it out"
        )
    if to is Format.petl_vit and target.suffix != ".bin":
        raise UserError(f"{target}: with --to petl-vit the name of DST must end with .bin")


def _bytes(path: Path) -> bytes:
    return read_bytes(path, ADAPTER_LIMIT)


def _repacked(data: bytes, source: Path, options: dict[str, Any], code: bool, ranks: int | None) -> bytes:
    from petl_bench.packing import dump, load, truncate

    if options:
        name = next(iter(options))
        raise UserError(
            f"--{name}: leave it out: {source} is not named .bin, and adapter files hold their settings"
        )
    file = replace(load(data, str(source)), code=code)
    return dump(file if ranks is None else truncate(file, ranks, str(source)))


def _from_peft(source: Path, options: dict[str, Any], foreign: dict[str, str | None], code: bool) -> bytes:
    from petl_bench.packing import dump
    from petl_bench.use import read_peft

    if given := [name for name in options if name != "task"]:
        raise UserError(f"--{given[0]}: leave it out: {source} is a folder of PEFT, which states it")
    return dump(replace(read_peft(source, task=options.get("task"), **foreign), code=code))


def _imported(data: bytes, source: Path, options: dict[str, Any], code: bool) -> bytes:
    from petl_bench.packing import dump, petl_vit

    beside = source.with_suffix(".yaml")
    stated = petl_vit.read_settings(_bytes(beside), str(beside)) if beside.exists() else {}
    settings = stated | options
    known = {name: settings[name] for name in petl_vit.LAYOUT_FIELDS if name in settings}
    missing = [f"--{name}" for name in _NEEDED if name not in settings]
    if missing:
        why = f"{beside} does not state all" if stated else f"no {beside.name} beside it"
        raise UserError(
            f"{source}: {why}; give {', '.join(missing)}; {petl_vit.describe_fits(len(data), known)}"
        )
    if not math.isfinite(settings["scale"]):
        raise UserError(f"{source}: scale {settings['scale']} is out of range: it must be a finite number")
    layout = petl_vit.bin_layout(known, len(data), str(source))
    task = _task(settings, str(source))
    file = petl_vit.read(data, layout, float(settings["scale"]), task, str(source))
    _warn(layout.bits, source)
    if not task:
        note(f"warning: {source}: its task is unknown; `petl-bench eval` will need --task")
    return dump(replace(file, code=code))


def _exported(data: bytes, source: Path, options: dict[str, Any]) -> list[bytes]:
    from petl_bench.packing import load, petl_vit

    file = load(data, str(source))
    contents = petl_vit.write(file, str(source))
    held = petl_vit.settings(file, str(source))
    for name, value in options.items():
        if value != held[name]:
            raise UserError(f"--{name} {value}: {source} has {name} {held[name] or 'not stated'}")
    _warn(held["bits"], source)
    return list(contents)


def _warn(bits: int, source: Path) -> None:
    if bits == 8:
        note(
            f"warning: {source}: the 8-bit codebook of the released code is another one, far from converged, "
            "so that the same codes stand for other weights there than in petl-bench"
        )


def _task(settings: Mapping[str, Any], where: str) -> str:
    """Return the name of the task; empty if neither the option nor the .yaml file states it."""
    from petl_bench.data import manifests

    if not {"task", "dataset"} & settings.keys():
        return ""
    name = str(settings.get("task", settings.get("dataset")))
    names = [name] if "task" in settings else [f"vtab_{name}", name]
    task = next((known for known in names if known in manifests()), None)
    if task is None:
        raise UserError(f"{where}: unknown task {name!r}: {did_you_mean(names[0], manifests())}")
    if manifests()[task].classes not in (0, settings["classes"]):
        raise UserError(
            f"{where}: classes {settings['classes']}, but {task} has {manifests()[task].classes}; "
            "correct --classes or --task"
        )
    return task
