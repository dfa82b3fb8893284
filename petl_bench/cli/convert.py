"""`petl-bench convert`: adapter files from and to files of others, and repacking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from petl_bench.atomic import write_atomic
from petl_bench.cli.common import note, print_json, written
from petl_bench.cli.conversion import Conversion
from petl_bench.cli.options import JsonOption, OutOption
from petl_bench.errors import UserError, counted


class Format(StrEnum):
    petl_bench = "petl-bench"
    petl_vit = "petl-vit"


class Packing(StrEnum):
    coded = "coded"
    raw = "raw"


def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SRC [DST]",
            help="Sources: .bin files, adapter files, folders of PEFT, or folders of them. The last path "
            "is what to write, as --out: a new file, or a folder for several sources.",
        ),
    ],
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
    """Convert adapter files from and to those of other programs.

    SRC may be an adapter file, a .bin file of PETL-ViT or a folder of PEFT.

    Converting a .bin file (of binary_adapter) there and back gives the same bytes. A .bin file does not hold
    its settings: they are read from the .yaml file beside it, or in configs/METHOD where the .bin file is in
    models_bin/METHOD; options replace them, or are required if there is no .yaml file. With --to petl-vit the
    settings come from the adapter file, and options must agree with them.

    With --to petl-bench the source can also be an adapter file; it is packed again by --packing, or reduced
    to fewer ranks by --ranks. It can also be a folder that PEFT has written for LoRA on a timm model, which
    becomes an adapter file of `lora` at 32 bits; the opposite is `petl-bench export --to peft`.

    Several sources, and all files in a folder, are written into the folder DST under their names. One that
    cannot be converted is reported, the others are written, and the exit code is 1. Existing files are never
    overwritten.
    """
    *sources, target = [*paths, out] if out else paths
    if not sources:
        raise UserError("name the file or folder to write, as the last path or with --out")
    given = {"adapter": adapter, "bits": bits, "hidden": hidden, "scale": scale, "classes": classes}
    given |= {"head": head, "task": task}
    wanted = Conversion(
        to is Format.petl_vit,
        packing.value if packing else None,
        ranks,
        {name: value for name, value in given.items() if value is not None},
        {"backbone": backbone, "normalization": normalization},
    )
    if len(sources) == 1 and not target.is_dir() and (_is_peft(sources[0]) or not sources[0].is_dir()):
        _convert_one(wanted, sources[0], target, json)
    else:
        _convert_all(wanted, sources, target, json)


def _convert_one(wanted: Conversion, source: Path, target: Path, json: bool) -> None:
    """Convert one source to a file.

    Raises:
        UserError: it cannot be converted, or the file exists or cannot be written.
    """
    wanted.check(source)
    if wanted.released and target.suffix != wanted.suffix:
        raise UserError(f"{target}: with --to petl-vit the name of DST must end with .bin")
    _refuse_existing(wanted, [target])
    files = _write(wanted, source, target)
    note(f"wrote {' and '.join(map(str, wanted.written(target)))}")
    if json:
        _print(wanted, source, target, files)


def _convert_all(wanted: Conversion, sources: Sequence[Path], folder: Path, json: bool) -> None:
    """Convert several sources into a folder.

    Raises:
        UserError: a source or an option cannot be used, or two sources would be one file, or a file exists;
            nothing is written then.
        Exit: some could not be converted.
    """
    targets: dict[Path, Path] = {}
    for source, name in (found for given in sources for found in _found(wanted, given)):
        wanted.check(source)
        target = folder / f"{name}{wanted.suffix}"
        if target in targets:
            raise UserError(f"{targets[target]} and {source}: both would become {target}; convert them apart")
        targets[target] = source
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; several sources need a folder as DST")
    _refuse_existing(wanted, targets)
    failed = 0
    for target, source in targets.items():
        try:
            files = _write(wanted, source, target, parents=True)
        except UserError as error:
            note(f"error: {error}")
            failed += 1
            continue
        if json:
            _print(wanted, source, target, files)
    note(f"wrote {counted(len(targets) - failed, 'file')} to {folder}")
    if failed:
        note(f"{counted(failed, 'source')} could not be converted")
        raise typer.Exit(1)


def _found(wanted: Conversion, given: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the sources that a path names, and their names, without suffix, in the folder that is written.

    Raises:
        UserError: there is none.
    """
    if _is_peft(given) or not given.is_dir():
        if not given.exists():
            raise UserError(f"{given}: no such file or folder")
        yield given, Path(given.name if given.is_dir() else given.stem)
        return
    suffixes = (".safetensors",) if wanted.released else (".bin", ".safetensors")
    none = True
    for inside in sorted(given.rglob("*")):
        if _is_peft(inside.parent):
            continue
        if _is_peft(inside) or (inside.suffix in suffixes and inside.is_file()):
            none = False
            name = inside.relative_to(given)
            yield inside, name if inside.is_dir() else name.with_suffix("")
    if none:
        peft = "" if wanted.released else " and no folder of PEFT"
        raise UserError(f"{given}: this folder holds no {' or '.join(suffixes)} file{peft}")


def _is_peft(path: Path) -> bool:
    return (path / "adapter_config.json").exists()


def _refuse_existing(wanted: Conversion, targets: Iterable[Path]) -> None:
    for path in (path for target in targets for path in wanted.written(target)):
        if path.exists():
            raise UserError(
                f"{path}: exists already, and convert does not overwrite files; choose another name"
            )


def _print(wanted: Conversion, source: Path, target: Path, files: Mapping[str, bytes]) -> None:
    print_json("convert/1", written(str(source), target, wanted.form, files))


def _write(wanted: Conversion, source: Path, target: Path, parents: bool = False) -> dict[str, bytes]:
    """Write what one source becomes, and return the contents by name.

    Args:
        wanted: what it becomes.
        source: the source.
        target: the file; with the authors' format a .yaml is written beside it.
        parents: make the folders of the file where they are missing.

    Raises:
        UserError: it cannot be converted or written; no file is left then.
    """
    paths, contents = wanted.written(target), wanted.contents(source)
    try:
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, contents, strict=True):
            write_atomic(path, content)
    except OSError as error:
        for path in paths:
            path.unlink(missing_ok=True)
        raise UserError(f"{target}: cannot be written: {error.strerror}") from error
    return {path.name: content for path, content in zip(paths, contents, strict=True)}
