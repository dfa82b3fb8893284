"""Fewer ranks of a file whose ranks are matrices of their own, bit by bit those of the whole."""

from __future__ import annotations

from dataclasses import replace

from petl_bench.errors import UserError
from petl_bench.packing.file import AdapterFile

_NESTED = {"dylora": "a.kept"}
"""Methods that may be cut, and the metadata entry that says to how many ranks."""


def cut(file: AdapterFile, ranks: int, where: str) -> AdapterFile:
    """The file without the matrices of all ranks but the first `ranks`.

    Raises:
        UserError: its method has no such ranks, or it has not as many.
    """
    adapter = file.metadata.get("adapter", "")
    if adapter not in _NESTED:
        known = ", ".join(_NESTED)
        raise UserError(f"--ranks {ranks}: {where} is of adapter {adapter}; files of {known} can be cut")
    held = [int(tensor.entry.name.rpartition(".")[2]) for tensor in file.adapter]
    if not 1 <= ranks <= max(held) + 1:
        raise UserError(f"--ranks {ranks}: {where} has {max(held) + 1}; give 1 to {max(held) + 1}")
    kept = [tensor for tensor, rank in zip(file.adapter, held, strict=True) if rank < ranks]
    return replace(file, metadata=file.metadata | {_NESTED[adapter]: str(ranks)}, adapter=kept)
