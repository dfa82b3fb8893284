"""`petl-bench inspect`: what a packed file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from petl_bench.cli.common import JsonOption, print_json
from petl_bench.errors import UserError
from petl_bench.store import ADAPTER


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="ADAPTER_FILE", help="An adapter file or a run's directory.")
    ],
    json: JsonOption = False,
) -> None:
    """Method, bits, tensors, bytes by part and checksum of an adapter file."""
    path = file / ADAPTER if file.is_dir() else file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    facts = _facts(data, str(path))
    if json:
        print_json(facts)
        return
    tensors = facts.pop("tensors")
    for key, value in facts.items():
        print(f"{key:<18} {value}")
    table = Table("part", "tensor", "shape", "bits", "bytes", "packing")
    for t in tensors:
        table.add_row(
            t["part"],
            t["name"],
            "x".join(map(str, t["shape"])),
            str(t["bits"]),
            str(t["bytes"]),
            t["packing"],
        )
    Console(width=100, highlight=False).print(table)


def _facts(data: bytes, where: str) -> dict[str, Any]:
    from petl_bench.packing import load

    file = load(data, where)
    meta = file.metadata
    tensors: list[dict[str, Any]] = [
        {"part": part, "name": t.entry.name, "shape": list(t.entry.shape), "bits": t.entry.bits}
        | {"bytes": t.entry.nbytes, "packing": "raw"}
        for part, held in (("adapter", file.adapter), ("head", file.head))
        for t in held
    ]
    return {
        "adapter": meta["adapter"],
        "hidden": int(meta["hidden"]),
        "bits": int(meta["bits"]),
        "quantizer": meta["quantizer"],
        "head": meta["head"],
        "backbone": meta["backbone"],
        "task": meta["task"],
        "scale": float(meta["scale"]),
        "classes": next(t["shape"][0] for t in tensors if t["part"] == "head"),
        "bytes_adapter": file.bytes_adapter,
        "bytes_adapter_raw": file.bytes_adapter,
        "bytes_head": file.bytes_head,
        "bytes_overhead": len(data) - file.bytes_adapter - file.bytes_head,
        "bytes_file": len(data),
        "bits_per_weight": file.bits_per_weight,
        "packing": "raw",
        "checksum": file.checksum,
        "tensors": tensors,
    }
