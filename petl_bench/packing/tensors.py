"""Stored tensors, their bytes, and the compact text that describes their layout.

A layout names tensors in order with shape and bits: `0-11:down=32x768@1,up=768x32@1;bias=10`. A part
`A-B:` repeats its list for each index from A to B (names "0.down", "0.up", "1.down", ...); a tensor
without `@` is float32.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petl_bench.packing.bits import Codes, pack, packed_size, unpack
from petl_bench.types import FLOAT_BITS

STATISTICS = np.dtype("<f4")


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
    def nbytes(self) -> int:
        """Codes plus two float32 statistics; or float32 values."""
        if self.bits == FLOAT_BITS:
            return 4 * self.count
        return packed_size(self.count, self.bits) + 8


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as stored: float32 `values`, or `codes` with their shift and spread."""

    entry: Entry
    values: NDArray[np.float32] | None = None
    codes: Codes | None = None
    shift: float = 0.0
    spread: float = 0.0

    def to_bytes(self) -> bytes:
        if self.values is not None:
            return self.values.astype("<f4").tobytes()
        assert self.codes is not None
        statistics = np.array([self.shift, self.spread], STATISTICS).tobytes()
        return pack(self.codes, self.entry.bits) + statistics


def read_tensors(data: bytes, layouts: Sequence[Sequence[Entry]]) -> list[list[StoredTensor]]:
    """Cut a payload into the tensors of its parts, one part a layout.

    Raises:
        ValueError: the payload is shorter or longer than its layouts say.
    """
    expected = sum(entry.nbytes for part in layouts for entry in part)
    if len(data) != expected:
        raise ValueError(f"payload of {len(data)} bytes, its layout says {expected}")
    rest = io.BytesIO(data)
    return [[_read_tensor(rest.read(entry.nbytes), entry) for entry in part] for part in layouts]


def _read_tensor(data: bytes, entry: Entry) -> StoredTensor:
    if entry.bits == FLOAT_BITS:
        values = np.frombuffer(data, "<f4").astype(np.float32).reshape(entry.shape)
        return StoredTensor(entry, values=values)
    codes = unpack(data[:-8], entry.bits, entry.count).reshape(entry.shape)
    shift, spread = np.frombuffer(data[-8:], STATISTICS).tolist()
    return StoredTensor(entry, codes=codes, shift=shift, spread=spread)


def write_layout(entries: Sequence[Entry]) -> str:
    """The layout text of entries; runs of equal blocks become one part."""
    parts: list[tuple[int | None, int | None, str]] = []
    for index, text in _blocks(entries):
        first, last, previous = parts[-1] if parts else (None, None, "")
        if index is not None and last is not None and index == last + 1 and text == previous:
            parts[-1] = (first, index, text)
        else:
            parts.append((index, index, text))
    return ";".join(text if a is None else f"{a}-{b}:{text}" for a, b, text in parts)


def _blocks(entries: Sequence[Entry]) -> Iterator[tuple[int | None, str]]:
    """Neighbouring entries of one block index as (index, text without the index)."""
    current: int | None = None
    texts: list[str] = []
    for entry in entries:
        match = re.fullmatch(r"(\d+)\.(.+)", entry.name)
        index, name = (int(match[1]), match[2]) if match else (None, entry.name)
        if texts and index != current:
            yield current, ",".join(texts)
            texts = []
        current = index
        bits = "" if entry.bits == FLOAT_BITS else f"@{entry.bits}"
        texts.append(f"{name}={'x'.join(map(str, entry.shape))}{bits}")
    if texts:
        yield current, ",".join(texts)


def read_layout(text: str) -> list[Entry]:
    """The inverse of `write_layout`.

    Raises:
        ValueError: not a layout.
    """
    entries = []
    for part in filter(None, text.split(";")):
        span = re.fullmatch(r"(?:(\d{1,4})-(\d{1,4}):)?([^\n:]*)", part)
        if span is None:
            raise ValueError(f"layout part {part!r} cannot be read")
        first, last, body = span.groups()
        prefixes = [""] if first is None else [f"{i}." for i in range(int(first), int(last) + 1)]
        for prefix in prefixes:
            entries += [_read_entry(prefix, item) for item in body.split(",")]
    return entries


def _read_entry(prefix: str, text: str) -> Entry:
    match = re.fullmatch(r"([\w.]+)=(\d+(?:x\d+)*|)(?:@([1-8]))?", text)
    if match is None:
        raise ValueError(f"layout entry {text!r} cannot be read")
    name, shape, bits = match.groups()
    sizes = tuple(map(int, shape.split("x"))) if shape else ()
    return Entry(prefix + name, sizes, int(bits or FLOAT_BITS))
