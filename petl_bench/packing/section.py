"""Sections of an adapter file: the bytes of the adapter or of the head, raw or entropy-coded.

    raw      The tensors in order. A matrix is its packed codes and its statistics; others are float32 values.
    coded    The modes of all tensors (4 bits each), then the tensors as above but without the codes of
             matrices whose mode is not 0, then the coded stream of these (petl_bench.packing.coded).

Statistics are the mean and then the std, each as the upper 4, 3 or 2 bytes of a float32 number. A section
of shared statistics begins with one bit per tensor of codes: 1 if its statistics follow, 0 if they are those
of an earlier tensor, the last one of the same role, or the last one of all if there is none of its role.
Statistics in bits (petl_bench.packing.statistics_in_bits) stand together before the tensors.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from petl_bench import initialization
from petl_bench.packing.bits import pack, packed_size, unpack
from petl_bench.packing.coded import MAX_BITS_PER_BYTE, MAX_POSITIONS, MODES, decode, encode
from petl_bench.packing.pieces import SEEDED, CodeMatrix
from petl_bench.packing.statistics_in_bits import pack_statistics, packed_statistics_size, unpack_statistics
from petl_bench.packing.tensors import Entry, StoredTensor, read_tensor
from petl_bench.types import FLOAT_BITS

MODE_BITS = 4
"""Bits of the mode of a tensor in a coded section."""


@dataclass(frozen=True)
class Section:
    """The bytes of the adapter or of the head.

    Attributes:
        data: all bytes.
        sizes: bytes of each tensor, which add up to the length of `data` in a file that was read or written;
            the share of a tensor in a coded stream is rounded.
        packings: `raw` or `coded` for each tensor.
    """

    data: bytes
    sizes: list[int]
    packings: list[str]

    @property
    def coded(self) -> bool:
        """True if the codes of any tensor are entropy-coded."""
        return "coded" in self.packings


@dataclass(frozen=True)
class SectionFormat:
    """Format of a section.

    Attributes:
        name: `adapter` or `head`; together with the seed and the names of tensors it determines the initial
            values.
        seed: seed of the initialization; None where unknown.
        statistic_size: bytes of a mean or a std: 4, 3 or 2.
        shared: whether tensors may have the statistics of earlier ones.
        mantissa: bits of mantissa of statistics in bits; None: they have `statistic_size` bytes each.
    """

    name: str
    seed: int | None
    statistic_size: int
    shared: bool = False
    mantissa: int | None = None

    def write(self, tensors: Sequence[StoredTensor], code: bool) -> Section:
        """Return the section of tensors.

        Args:
            tensors: tensors in the order of the file.
            code: whether codes are entropy-coded if that makes the section smaller.

        Raises:
            ValueError: a mean or std is not representable in `statistic_size` bytes, or in `mantissa` bits.
        """
        raw = self._join(tensors, [0] * len(tensors), b"")
        if self._has_common_bytes and tensors:
            raw = replace(raw, sizes=_with_shares(raw, [0.0] * len(tensors)))
        if not code:
            return raw
        matrices = [self._matrix(tensor.entry) for tensor in tensors]
        modes, stream, costs = encode(matrices, [tensor.codes for tensor in tensors])
        section = self._join(tensors, modes, stream)
        if len(section.data) >= len(raw.data):
            return raw
        return replace(section, sizes=_with_shares(section, costs))

    def _join(self, tensors: Sequence[StoredTensor], modes: Sequence[int], stream: bytes) -> Section:
        own = self._own(tensors)
        beside = [fresh and self.mantissa is None for fresh in own]
        pieces = [
            (b"" if mode else tensor.body()) + (tensor.statistics(self.statistic_size) if follow else b"")
            for tensor, mode, follow in zip(tensors, modes, beside, strict=True)
        ]
        marks = [fresh for tensor, fresh in zip(tensors, own, strict=True) if tensor.codes is not None]
        head = pack(np.array(marks, np.uint8), 1) if self.shared else b""
        head += pack(np.array(modes, np.uint8), MODE_BITS) if any(modes) else b""
        if self.mantissa is not None:
            coded = zip(tensors, own, strict=True)
            pairs = [(t.mean, t.std) for t, fresh in coded if fresh and t.codes is not None]
            head += pack_statistics(pairs, self.mantissa)
        return Section(head + b"".join(pieces) + stream, list(map(len, pieces)), _packings(modes))

    @property
    def _has_common_bytes(self) -> bool:
        """Return whether a raw section has bytes that belong to several tensors."""
        return self.shared or self.mantissa is not None

    def _own(self, tensors: Sequence[StoredTensor]) -> list[bool]:
        """Return whether each tensor of codes has statistics of its own; True for those without codes."""
        before = earlier([tensor.entry for tensor in tensors])
        return [
            not self.shared
            or place is None
            or (tensor.mean, tensor.std) != (tensors[place].mean, tensors[place].std)
            for tensor, place in zip(tensors, before, strict=True)
        ]

    def _read_own(self, data: bytes, entries: Sequence[Entry]) -> tuple[list[bool], int]:
        """Return what `_own` has returned, and the bytes at the beginning of a section that say so."""
        if not self.shared:
            return [True] * len(entries), 0
        count = sum(entry.bits != FLOAT_BITS for entry in entries)
        size = packed_size(count, 1)
        if len(data) < size:
            raise ValueError("its section of shared statistics ends early")
        marks = iter(unpack(data[:size], 1, count).tolist())
        own = [entry.bits == FLOAT_BITS or bool(next(marks)) for entry in entries]
        if any(not fresh and place is None for fresh, place in zip(own, earlier(entries), strict=True)):
            raise ValueError("its first tensor has the statistics of an earlier one")
        return own, size

    def raw_size(self, data: bytes, entries: Sequence[Entry]) -> int:
        """Return the bytes of a raw section.

        Args:
            data: bytes that begin with the section.
            entries: names, shapes and bits of its tensors, in order.

        Raises:
            ValueError: the data end early.
        """
        own, start = self._read_own(data, entries)
        if self.mantissa is not None:
            start += packed_statistics_size(data[start:], self.mantissa, _with_codes(entries, own))
        return start + sum(self._sizes_beside(entries, own)) + sum(entry.body_size for entry in entries)

    def _sizes_beside(self, entries: Sequence[Entry], own: Sequence[bool]) -> list[int]:
        """Return the bytes of statistics that follow each tensor."""
        if self.mantissa is not None:
            return [0] * len(entries)
        return [e.statistics_size(self.statistic_size) * fresh for e, fresh in zip(entries, own, strict=True)]

    def read(self, data: bytes, entries: Sequence[Entry], coded: bool) -> tuple[list[StoredTensor], Section]:
        """Read the tensors of a section.

        Args:
            data: all bytes of the section.
            entries: names, shapes and bits of the tensors, in order.
            coded: whether the section is coded.

        Returns:
            The tensors, and the section with the sizes of the tensors.

        Raises:
            ValueError: size, modes or stream do not fit the entries.
        """
        own, begin = self._read_own(data, entries)
        modes, start = [0] * len(entries), begin
        if coded:
            start += packed_size(len(entries), MODE_BITS)
            modes = unpack(data[begin:start], MODE_BITS, len(entries)).tolist()
        pairs, size = self._read_pairs(data[start:], entries, own)
        start += size
        bodies = [0 if mode else entry.body_size for entry, mode in zip(entries, modes, strict=True)]
        statistics = self._sizes_beside(entries, own)
        sizes = [body + size for body, size in zip(bodies, statistics, strict=True)]
        end = start + sum(sizes)
        if len(data) < end or (len(data) > end and not coded):
            raise ValueError(f"payload of {len(data)} bytes, its layout says {end}")
        if coded:
            self._check(entries, modes, len(data) - end)
        matrices = [self._matrix(entry, mode >= SEEDED) for entry, mode in zip(entries, modes, strict=True)]
        decoded = decode(matrices, modes, data[end:])
        rest = io.BytesIO(data[start:end])
        tensors: list[StoredTensor] = []
        tails: list[bytes] = []
        before = earlier(entries)
        for index, entry in enumerate(entries):
            body, place = rest.read(bodies[index]), before[index]
            in_bits = own[index] and self.mantissa is not None and entry.bits != FLOAT_BITS
            tail = next(pairs) if in_bits else rest.read(statistics[index])
            tails.append(tail if own[index] or place is None else tails[place])
            tail = tails[index]
            tensors.append(read_tensor(entry, decoded[index][0] if modes[index] else body, tail))
        section = Section(data, sizes, _packings(modes))
        costs = [decoded[index][1] if mode else 0.0 for index, mode in enumerate(modes)]
        if coded or (self._has_common_bytes and tensors):
            section = replace(section, sizes=_with_shares(section, costs))
        return tensors, section

    def _read_pairs(
        self, data: bytes, entries: Sequence[Entry], own: Sequence[bool]
    ) -> tuple[Iterator[bytes], int]:
        """Return statistics in bits, each as a mean and a std in float32, and the bytes that hold them."""
        if self.mantissa is None:
            return iter(()), 0
        count = _with_codes(entries, own)
        pairs = unpack_statistics(data, self.mantissa, count)
        size = packed_statistics_size(data, self.mantissa, count)
        return (np.array(pair, "<f4").tobytes() for pair in pairs), size

    def _check(self, entries: Sequence[Entry], modes: Sequence[int], stream: int) -> None:
        """Refuse modes that `write` never gives, and sections that would need unlimited time or memory."""
        inside = [entry for entry, mode in zip(entries, modes, strict=True) if mode]
        if not inside or any(entry.bits == FLOAT_BITS or not entry.count for entry in inside):
            raise ValueError("a coded section without codes, or with those of a float32 or empty tensor")
        if max(modes) >= MODES or (max(modes) >= SEEDED and self.seed is None):
            raise ValueError("a tensor has a mode that does not exist, or needs a seed that is not stated")
        codes = sum(entry.count * entry.bits for entry in inside)
        positions = max(max(CodeMatrix(entry.shape, entry.bits, None).table) for entry in inside)
        if codes > MAX_BITS_PER_BYTE * (stream + 16) or positions > MAX_POSITIONS:
            raise ValueError("its stream is too short for its layout")

    def _matrix(self, entry: Entry, seeded: bool = True) -> CodeMatrix:
        if not seeded or self.seed is None or entry.bits == FLOAT_BITS:
            return CodeMatrix(entry.shape, entry.bits, None)
        words = initialization.words(self.seed, f"{self.name}.{entry.name}", entry.shape)
        return CodeMatrix(entry.shape, entry.bits, words)


def _with_codes(entries: Sequence[Entry], own: Sequence[bool]) -> int:
    """Return the number of tensors of codes with statistics of their own."""
    return sum(fresh and entry.bits != FLOAT_BITS for entry, fresh in zip(entries, own, strict=True))


def role_of(name: str) -> str:
    """Return the name of a tensor without numbers, such as that of its block."""
    return ".".join(word for word in name.split(".") if not word.isdecimal())


def earlier(entries: Sequence[Entry]) -> list[int | None]:
    """Return the index of the tensor whose statistics each tensor of codes may share; None: there is none."""
    found: list[int | None] = []
    last: dict[str, int] = {}
    for index, entry in enumerate(entries):
        codes = entry.bits != FLOAT_BITS
        found.append(last.get(role_of(entry.name), last.get("")) if codes else None)
        if codes:
            last[role_of(entry.name)] = last[""] = index
    return found


def _packings(modes: Sequence[int]) -> list[str]:
    return ["coded" if mode else "raw" for mode in modes]


def _with_shares(section: Section, costs: Sequence[float]) -> list[int]:
    """Return the sizes of the tensors with their shares of the modes and the stream."""
    shared = len(section.data) - sum(section.sizes)
    edges = np.cumsum([0.0, *(cost + MODE_BITS for cost in costs)])
    shares = np.diff(np.rint(edges / edges[-1] * shared)).astype(int).tolist()
    return [size + share for size, share in zip(section.sizes, shares, strict=True)]
