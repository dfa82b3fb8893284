"""Truncation of adapter files to fewer ranks, for methods whose ranks are matrices of their own."""

from __future__ import annotations

from dataclasses import replace

from petl_bench.errors import UserError
from petl_bench.packing.file import AdapterFile
from petl_bench.packing.stated import SETTING
from petl_bench.types import methods


def truncate(file: AdapterFile, ranks: int, where: str) -> AdapterFile:
    """Return a file with the first ranks only; the bits of what is kept do not change.

    Args:
        file: the file to truncate.
        ranks: number of ranks to keep.
        where: the file's path, for messages.

    Raises:
        UserError: the file's method has no nested ranks, or the file has fewer.
    """
    adapter = file.metadata.get("adapter", "")
    nested = {name: known.nested for name, known in methods().items() if known.nested}
    if adapter not in nested:
        known = ", ".join(nested)
        raise UserError(
            f"--ranks {ranks}: {where} is of adapter {adapter}; files of {known} can be truncated"
        )
    held = [int(tensor.entry.name.rpartition(".")[2]) for tensor in file.adapter]
    if not 1 <= ranks <= max(held) + 1:
        raise UserError(f"--ranks {ranks}: {where} has {max(held) + 1}; give 1 to {max(held) + 1}")
    kept = [tensor for tensor, rank in zip(file.adapter, held, strict=True) if rank < ranks]
    return replace(file, metadata=file.metadata | {SETTING + nested[adapter]: str(ranks)}, adapter=kept)
