"""One part of a payload, adapter or head, as bytes: raw, or with the codes of some matrices coded.

    raw      the tensors in order: a matrix is its packed codes and its statistics, others are float32
    coded    modes of the tensors (4 bits each), then the tensors as above but without the codes of matrices
             whose mode is not 0, then the stream of these (petl_bench.packing.coded)

Statistics are the upper 4, 3 or 2 bytes of float32 numbers, mean before std.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from petl_bench import initialization
from petl_bench.packing import coded
from petl_bench.packing.bits import pack, packed_size, unpack
from petl_bench.packing.tensors import Entry, StoredTensor, read_tensor
from petl_bench.types import FLOAT_BITS

MODE_BITS = 4


@dataclass(frozen=True)
class Section:
    """The bytes of a part.

    Attributes:
        sizes: bytes of each tensor; they add up to the data. A tensor's share of a stream is rounded.
        packings: `raw` or `coded`, of each tensor.
    """

    data: bytes
    sizes: list[int]
    packings: list[str]

    @property
    def coded(self) -> bool:
        return "coded" in self.packings


@dataclass(frozen=True)
class Format:
    """How the tensors of a part lie in its section.

    Attributes:
        name: `adapter` or `head`; with the seed and a tensor's name it gives the initial values.
        seed: of the initialization; None where unknown.
        statistics: bytes of a mean or a std: 4, 3 or 2.
    """

    name: str
    seed: int | None
    statistics: int

    def write(self, tensors: Sequence[StoredTensor], code: bool) -> Section:
        """The section of tensors; with `code`, coded where that makes it smaller.

        Raises:
            ValueError: a statistic does not fit its bytes.
        """
        raw = self._join(tensors, [0] * len(tensors), b"")
        if not code:
            return raw
        matrices = [self._matrix(tensor.entry) for tensor in tensors]
        modes, stream, costs = coded.encode(matrices, [tensor.codes for tensor in tensors])
        short = self._join(tensors, modes, stream)
        if len(short.data) >= len(raw.data):
            return raw
        return replace(short, sizes=_with_shares(short, costs))

    def _join(self, tensors: Sequence[StoredTensor], modes: Sequence[int], stream: bytes) -> Section:
        parts = [
            (b"" if mode else tensor.body()) + tensor.tail(self.statistics)
            for tensor, mode in zip(tensors, modes, strict=True)
        ]
        head = pack(np.array(modes, np.uint8), MODE_BITS) if any(modes) else b""
        return Section(head + b"".join(parts) + stream, list(map(len, parts)), _packings(modes))

    def read(self, data: bytes, entries: Sequence[Entry], code: bool) -> tuple[list[StoredTensor], Section]:
        """The tensors of a section, and the section.

        Raises:
            ValueError: its size, its modes or its stream do not fit the entries.
        """
        modes, start = [0] * len(entries), 0
        if code:
            start = packed_size(len(entries), MODE_BITS)
            modes = unpack(data[:start], MODE_BITS, len(entries)).tolist()
        bodies = [0 if mode else entry.body for entry, mode in zip(entries, modes, strict=True)]
        tails = [entry.tail(self.statistics) for entry in entries]
        sizes = [body + tail for body, tail in zip(bodies, tails, strict=True)]
        end = start + sum(sizes)
        if len(data) < end or (len(data) > end and not code):
            raise ValueError(f"payload of {len(data)} bytes, its layout says {end}")
        if code:
            self._check(entries, modes, len(data) - end)
        matrices = [
            self._matrix(entry, mode >= coded.SEEDED) for entry, mode in zip(entries, modes, strict=True)
        ]
        found = coded.decode(matrices, modes, data[end:])
        rest = io.BytesIO(data[start:end])
        tensors = []
        for index, entry in enumerate(entries):
            body, tail = rest.read(bodies[index]), rest.read(tails[index])
            tensors.append(read_tensor(entry, found[index][0] if modes[index] else body, tail))
        section = Section(data, sizes, _packings(modes))
        costs = [found[index][1] if mode else 0.0 for index, mode in enumerate(modes)]
        return tensors, replace(section, sizes=_with_shares(section, costs)) if code else section

    def _check(self, entries: Sequence[Entry], modes: Sequence[int], stream: int) -> None:
        """Refuse what `write` never gives and what would ask for any amount of time and memory."""
        inside = [entry for entry, mode in zip(entries, modes, strict=True) if mode]
        if not inside or any(entry.bits == FLOAT_BITS or not entry.count for entry in inside):
            raise ValueError("a coded section without codes, or with those of a float32 or empty tensor")
        if max(modes) >= coded.MODES or (max(modes) >= coded.SEEDED and self.seed is None):
            raise ValueError("a tensor has a mode that does not exist, or needs a seed that is not stated")
        codes = sum(entry.count * entry.bits for entry in inside)
        positions = max(max(coded.Matrix(entry.shape, entry.bits, None).table) for entry in inside)
        if codes > coded.MOST_BITS * (stream + 16) or positions > coded.MOST_POSITIONS:
            raise ValueError("its stream is too short for its layout")

    def _matrix(self, entry: Entry, seeded: bool = True) -> coded.Matrix:
        if not seeded or self.seed is None or entry.bits == FLOAT_BITS:
            return coded.Matrix(entry.shape, entry.bits, None)
        words = initialization.words(self.seed, f"{self.name}.{entry.name}", entry.shape)
        return coded.Matrix(entry.shape, entry.bits, words)


def _packings(modes: Sequence[int]) -> list[str]:
    return ["coded" if mode else "raw" for mode in modes]


def _with_shares(section: Section, costs: Sequence[float]) -> list[int]:
    """Sizes of the tensors with their shares of the modes and the stream."""
    shared = len(section.data) - sum(section.sizes)
    edges = np.cumsum([0.0, *(cost + MODE_BITS for cost in costs)])
    shares = np.diff(np.rint(edges / edges[-1] * shared)).astype(int).tolist()
    return [size + share for size, share in zip(section.sizes, shares, strict=True)]
