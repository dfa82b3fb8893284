"""Stored tensors, their bytes, and the compact text that describes their layout.

A layout names tensors in order with shape and bits: `0-11:down=32x768@1,up=768x32@1;bias=10`. A part
`A-B:` repeats its list for each index from A to B (names "0.down", "0.up", "1.down", ...); a tensor
without `@` is float32. Blocks that differ in their width alone share one list, in which `d` stands for the
width and `4d` for four times as much: `0-1=128,2-3=256:down=8xd@1,up=dx8@1`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from petl_bench.packing.bits import Codes, pack, packed_size, unpack
from petl_bench.types import FLOAT_BITS

STATISTIC_SIZES = (4, 3, 2)
"""Bytes that a shift or a spread may take: the upper ones of a float32."""


@dataclass(frozen=True)
class Entry:
    """Name, shape and bits of one stored tensor."""

    name: str
    shape: tuple[int, ...]
    bits: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def body(self) -> int:
        """Bytes of the packed codes, or of the float32 values."""
        return 4 * self.count if self.bits == FLOAT_BITS else packed_size(self.count, self.bits)

    def tail(self, statistics: int) -> int:
        """Bytes of a matrix's shift and spread, at `statistics` bytes each."""
        return 0 if self.bits == FLOAT_BITS else 2 * statistics

    @property
    def nbytes(self) -> int:
        """Bytes as the released code lays a tensor out."""
        return self.body + self.tail(4)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as stored: float32 `values`, or `codes` with their shift and spread."""

    entry: Entry
    values: NDArray[np.float32] | None = None
    codes: Codes | None = None
    shift: float = 0.0
    spread: float = 0.0

    def to_bytes(self) -> bytes:
        """As the released code lays it out: `body` and `tail`."""
        return self.body() + self.tail()

    def body(self) -> bytes:
        """Packed codes or float32 values."""
        if self.values is not None:
            return self.values.astype("<f4").tobytes()
        assert self.codes is not None
        return pack(self.codes, self.entry.bits)

    def shortened(self, statistics: int) -> StoredTensor:
        """The same with shift and spread rounded to `statistics` bytes."""
        return replace(self, shift=shorten(self.shift, statistics), spread=shorten(self.spread, statistics))

    def tail(self, statistics: int = 4) -> bytes:
        """Shift and spread, at `statistics` bytes each; nothing of a float32 tensor.

        Raises:
            ValueError: one of them has more digits than that.
        """
        if self.values is not None:
            return b""
        digits = np.array([self.shift, self.spread], "<f4").view(np.uint8).reshape(2, 4)
        if digits[:, : 4 - statistics].any():
            raise ValueError(f"{self.entry.name}: its statistics do not fit {statistics} bytes")
        return digits[:, 4 - statistics :].tobytes()


def shorten(value: float, statistics: int) -> float:
    """The nearest float32 whose lower bytes are zero beyond the upper `statistics`; ties go to even."""
    dropped = 8 * (4 - statistics)
    word = int(np.array(value, np.float32).view(np.uint32))
    half = (1 << dropped >> 1) - 1 + (word >> dropped & 1) if dropped else 0
    rounded = np.array((word + half) >> dropped << dropped, np.uint32).view(np.float32)
    return float(rounded)


def read_tensor(entry: Entry, body: bytes | Codes, tail: bytes) -> StoredTensor:
    """The tensor of which `body`, packed or its very codes, and `tail` are given."""
    if entry.bits == FLOAT_BITS:
        values = np.frombuffer(body, "<f4").astype(np.float32).reshape(entry.shape)
        return StoredTensor(entry, values=values)
    codes = body if isinstance(body, np.ndarray) else unpack(body, entry.bits, entry.count)
    digits = np.zeros((2, 4), np.uint8)
    digits[:, 4 - len(tail) // 2 :] = np.frombuffer(tail, np.uint8).reshape(2, -1)
    shift, spread = digits.view("<f4")[:, 0].tolist()
    return StoredTensor(entry, codes=codes.reshape(entry.shape), shift=shift, spread=spread)


@dataclass(frozen=True)
class _Run:
    """Blocks `first` to `last` of equal entries, named without the index; or entries of no block."""

    first: int | None
    last: int | None
    entries: list[Entry]

    @property
    def sizes(self) -> list[int]:
        return [size for entry in self.entries for size in entry.shape]


def write_layout(entries: Sequence[Entry]) -> str:
    """The layout text of entries; runs of blocks that are equal but for their width become one part."""
    parts: list[list[_Run]] = []
    for run in _runs(entries):
        if parts and _shared_sizes([*parts[-1], run]) is not None:
            parts[-1].append(run)
        else:
            parts.append([run])
    return ";".join(map(_write_part, parts))


def _runs(entries: Sequence[Entry]) -> list[_Run]:
    runs: list[_Run] = []
    for index, block in groupby(entries, key=lambda entry: _split(entry.name)[0]):
        local = [replace(entry, name=_split(entry.name)[1]) for entry in block]
        previous = runs[-1] if runs else _Run(None, None, [])
        if index is not None and previous.last == index - 1 and previous.entries == local:
            runs[-1] = replace(previous, last=index)
        else:
            runs.append(_Run(index, index, local))
    return runs


def _split(name: str) -> tuple[int | None, str]:
    match = re.fullmatch(r"(\d+)\.(.+)", name)
    return (int(match[1]), match[2]) if match else (None, name)


def _shared_sizes(runs: Sequence[_Run]) -> tuple[list[str], list[str]] | None:
    """`=WIDTH` of each run and the sizes in terms of it; None if the runs differ in more than a width."""
    kinds = [[(entry.name, entry.bits, len(entry.shape)) for entry in run.entries] for run in runs]
    if any(kind != kinds[0] for kind in kinds) or (len(runs) > 1 and any(run.first is None for run in runs)):
        return None
    columns = list(zip(*(run.sizes for run in runs), strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    if not varying:
        return [""] * len(runs), [str(column[0]) for column in columns]
    widths = [min(sizes) for sizes in zip(*varying, strict=True)]
    shared = []
    for column in columns:
        multiple = column[0] // widths[0] if widths[0] else 0
        if column not in varying:
            shared.append(str(column[0]))
        elif all(size == multiple * width for size, width in zip(column, widths, strict=True)):
            shared.append("d" if multiple == 1 else f"{multiple}d")
        else:
            return None
    return [f"={width}" for width in widths], shared


def _write_part(runs: Sequence[_Run]) -> str:
    found = _shared_sizes(runs)
    assert found is not None
    widths, sizes = found[0], iter(found[1])
    texts = []
    for entry in runs[0].entries:
        shape = "x".join(next(sizes) for _ in entry.shape)
        texts.append(f"{entry.name}={shape}" + ("" if entry.bits == FLOAT_BITS else f"@{entry.bits}"))
    spans = [f"{run.first}-{run.last}{width}" for run, width in zip(runs, widths, strict=True)]
    return ("" if runs[0].first is None else ",".join(spans) + ":") + ",".join(texts)


def read_layout(text: str) -> list[Entry]:
    """The inverse of `write_layout`.

    Raises:
        ValueError: not a layout.
    """
    entries = []
    for part in filter(None, text.split(";")):
        spans, colon, body = part.rpartition(":")
        for prefix, width in _read_spans(spans) if colon else [("", None)]:
            entries += [_read_entry(prefix, item, width) for item in body.split(",")]
    return entries


def _read_spans(text: str) -> Iterator[tuple[str, str | None]]:
    """Prefix and width of each block in, for example, `0-1=128,2-3=256`."""
    for span in text.split(","):
        match = re.fullmatch(r"(\d{1,4})-(\d{1,4})(?:=(\d+))?", span)
        if match is None:
            raise ValueError(f"layout span {span!r} cannot be read")
        first, last, width = match.groups()
        for index in range(int(first), int(last) + 1):
            yield f"{index}.", width


def _read_entry(prefix: str, text: str, width: str | None) -> Entry:
    size = r"\d+" if width is None else r"(?:\d+|\d*d)"
    match = re.fullmatch(rf"([\w.]+)=({size}(?:x{size})*|)(?:@([1-8]))?", text)
    if match is None:
        raise ValueError(f"layout entry {text!r} cannot be read")
    name, shape, bits = match.groups()
    sizes = tuple(_read_size(part, width) for part in shape.split("x")) if shape else ()
    return Entry(prefix + name, sizes, int(bits or FLOAT_BITS))


def _read_size(text: str, width: str | None) -> int:
    if width is None or not text.endswith("d"):
        return int(text)
    return int(text[:-1] or 1) * int(width)
