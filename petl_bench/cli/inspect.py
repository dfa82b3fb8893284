"""`petl-bench inspect`: content of an adapter file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench.cli.common import JsonOption, cells, print_json, say
from petl_bench.files import ADAPTER_LIMIT, read_bytes
from petl_bench.store import ADAPTER


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="ADAPTER_FILE", help="An adapter file or the directory of a run.")
    ],
    json: JsonOption = False,
) -> None:
    """Show the method, tensors, sizes and checksum of an adapter file."""
    from rich.console import Console
    from rich.table import Table

    path = file / ADAPTER if file.is_dir() else file
    facts = _facts(read_bytes(path, ADAPTER_LIMIT), str(path))
    if json:
        print_json(facts)
        return
    tensors = facts.pop("tensors")
    facts["settings"] = " ".join(f"{key}={value}" for key, value in facts["settings"].items())
    facts["class_names"] = ", ".join(facts["class_names"]) or "not stated"
    facts["resize"] = facts["resize"] or "not stated"
    for key, value in facts.items():
        say(f"{key:<18} {value}")
    table = Table("part", "tensor", "shape", "bits", "packing")
    for name in ("raw bytes", "bytes", "raw bits per weight", "bits per weight"):
        table.add_column(name, justify="right")
    for t in tensors:
        sizes = [str(t["bytes_raw"]), str(t["bytes"])]
        sizes += [f"{t[key]:.3f}" for key in ("bits_per_weight_raw", "bits_per_weight")]
        shape = "x".join(map(str, t["shape"]))
        table.add_row(*cells(t["part"], t["name"], shape, t["bits"], t["packing"], *sizes))
    Console(width=100, highlight=False).print(table)


def _facts(data: bytes, where: str) -> dict[str, Any]:
    from petl_bench.packing import (
        bytes_of_names,
        load,
        stated_class_names,
        stated_classes,
        stated_facts,
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
        "statistics": file.statistic_size,
        "checksum": file.checksum,
        "tensors": tensors,
    }
