"""`petl-bench inspect`: content of an adapter file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench.cli.common import DEFAULT_STORE, print_json, say, say_within
from petl_bench.cli.options import JsonOption, StoreOption, check_store
from petl_bench.errors import shown
from petl_bench.files import ADAPTER_LIMIT, read_bytes
from petl_bench.layout import Column, table_lines, terminal_width
from petl_bench.store import ADAPTER, Store, find_run


def inspect(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Adapter files, or runs: their run_ids or directories."),
    ],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Show the method, tensors, sizes and checksum of adapter files."""
    check_store(store, *files)
    paths = [_path(file, store) for file in files]
    found = [_facts(read_bytes(path, ADAPTER_LIMIT), str(path)) for path in paths]
    for number, (path, facts) in enumerate(zip(paths, found, strict=True)):
        if json:
            print_json("inspect/1", facts)
            continue
        if len(paths) > 1:
            say(*[""][:number], f"{path}:")
        _print(facts)


def _print(facts: dict[str, Any]) -> None:
    """Print the content of a file, and a table of its tensors."""
    tensors = facts.pop("tensors")
    facts["settings"] = " ".join(f"{key}={value}" for key, value in facts["settings"].items()) or "-"
    average = facts["bits_per_weight"]  # None: the adapter has no weights
    facts["bits_per_weight"] = "-" if average is None else f"{average:.3f}"
    facts["class_names"] = ", ".join(facts["class_names"]) or "not stated"
    facts["resize"] = facts["resize"] or "not stated"
    size, mantissa = facts["statistics"], facts.pop("mantissa_bits")
    facts["statistics"] = f"{size} bytes each" if mantissa is None else f"{mantissa} bits of mantissa each"
    width = terminal_width()
    say_within(width, *(f"{key:<18} {value}" for key, value in facts.items()), indent=" " * 19)
    columns = {
        "tensor": [t["name"] for t in tensors],
        "part": [t["part"] for t in tensors],
        "shape": ["x".join(map(str, t["shape"])) for t in tensors],
        "bits": [str(t["bits"]) for t in tensors],
        "packing": [t["packing"] for t in tensors],
        "raw bytes": [str(t["bytes_raw"]) for t in tensors],
        "bytes": [str(t["bytes"]) for t in tensors],
        "raw bits per weight": [f"{t['bits_per_weight_raw']:.3f}" for t in tensors],
        "bits per weight": [f"{t['bits_per_weight']:.3f}" for t in tensors],
    }
    words = ("tensor", "part", "shape", "packing")
    say(
        *table_lines(
            [Column(name, [*map(shown, cells)], left=name in words) for name, cells in columns.items()],
            labels=1,
            width=width,
        )
    )


def _path(file: str, store: Path) -> Path:
    """Return the path of an adapter file, or of that of a run."""
    path = Path(file)
    if path.is_dir():
        return path / ADAPTER
    if path.exists() or "/" in file or path.suffix:
        return path
    shelf, run_id = find_run(file, Store(store))
    return shelf.directory(run_id) / ADAPTER


def _facts(data: bytes, where: str) -> dict[str, Any]:
    from petl_bench.packing import (
        bytes_of_names,
        load,
        stated_class_names,
        stated_classes,
        stated_facts,
        stated_plugins,
        stated_precision,
        stated_resize,
        stated_settings,
    )

    file = load(data, where)
    meta = stated_facts(file, where)
    tensors: list[dict[str, Any]] = [
        {"part": part, "name": t.entry.name, "shape": list(t.entry.shape), "bits": t.entry.bits}
        | {"bytes": size, "bytes_raw": t.entry.nbytes, "packing": packing}
        | {
            "bits_per_weight": 8 * size / t.entry.count if t.entry.count else 0.0,
            "bits_per_weight_raw": 8 * t.entry.nbytes / t.entry.count if t.entry.count else 0.0,
        }
        for part, held, section in zip(
            ("adapter", "head"), (file.adapter, file.head), file.sections, strict=True
        )
        for t, size, packing in zip(held, section.sizes, section.packings, strict=True)
    ]
    return {
        "adapter": meta["adapter"],
        "settings": stated_settings(file, where),
        "hidden": meta["hidden"],
        "bits": meta["bits"],
        "quantizer": meta["quantizer"],
        "compress": meta["compress"],
        "head": meta["head"],
        "backbone": meta["backbone"],
        "task": meta["task"],
        "precision": stated_precision(file, where),
        "scale": meta["scale"],
        "classes": stated_classes(file, where),
        "class_names": list(stated_class_names(file, where)),
        "resize": stated_resize(file, where),
        "normalization": meta["normalization"],
        "bytes_adapter": file.bytes_adapter,
        "bytes_adapter_raw": file.bytes_adapter_raw,
        "bytes_head": file.bytes_head,
        "bytes_overhead": len(data) - file.bytes_adapter - file.bytes_head,
        "bytes_class_names": bytes_of_names(file),
        "bytes_file": len(data),
        "bits_per_weight": file.bits_per_weight,
        "packing": file.packing,
        "statistics": file.statistic_size if file.mantissa is None else None,
        "mantissa_bits": file.mantissa,
        "checksum": file.checksum,
        **({"plugins": needed} if (needed := stated_plugins(file)) else {}),
        "tensors": tensors,
    }
