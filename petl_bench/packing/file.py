"""The adapter file: a payload and a text in a container (petl_bench.packing.container).

    payload   The adapter's section, then the head's (petl_bench.packing.section). In raw sections the order
              of tensors and bits is that of the released code's .bin files.
    text      The metadata and the layout of the sections, a URL query string.

The checksum covers text and payload, so a file with any changed byte is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from urllib.parse import parse_qsl, quote

from petl_bench.errors import UserError
from petl_bench.packing.container import contained, opened
from petl_bench.packing.layout import (
    MAX_PLAIN_LAYOUT,
    compress_layout,
    decompress_layout,
    read_layout,
    write_layout,
)
from petl_bench.packing.section import Section, SectionFormat
from petl_bench.packing.statistics_in_bits import MOST_BITS
from petl_bench.packing.tensors import STATISTIC_SIZES, Entry, StoredTensor, round_statistic

FORMATS = {
    (compressed, shared, in_bits): str(2 + compressed + 2 * shared + 4 * in_bits)
    for compressed, shared, in_bits in product((False, True), repeat=3)
}
"""Versions of the format by whether the layout is compressed (petl_bench.packing.layout), and whether
statistics are shared and in bits (petl_bench.packing.section)."""
COMPRESSED = [form for (compressed, _, _), form in FORMATS.items() if compressed]
READABLE = ("1", *sorted(FORMATS.values()))
"""Version 1 has raw sections only. The short container has a version of its own and states none of these."""
MAX_OVERHEAD = 512
"""Maximum bytes of a file besides its two sections, for the built-in methods."""
_SHARED = "shared"
_IN_BITS = "m"
"""Beginning of the stated statistics if they are in bits; their bits of mantissa follow."""
_HEAD = "|"
"""Separator between the layouts of adapter and head."""


@dataclass(frozen=True)
class AdapterFile:
    """A trained adapter and head, with the text metadata that rebuilding the model needs.

    Attributes:
        metadata: entries as `describe` returns them; `seed` is the seed of the initialization.
        adapter: tensors of the adapter, in order.
        head: tensors of the head, in order.
        code: whether sections are entropy-coded where that makes them smaller.
        statistic_size: bytes of a mean or a std: 4, 3 or 2.
        short: whether the container is the short one.
        shared: whether tensors of the adapter may have the statistics of earlier ones.
        mantissa: bits of mantissa of means and stds, if these are stored in bits instead of bytes.
    """

    metadata: dict[str, str]
    adapter: list[StoredTensor]
    head: list[StoredTensor]
    code: bool = False
    statistic_size: int = 4
    short: bool = False
    shared: bool = False
    mantissa: int | None = None

    def with_statistic_size(self, statistic_size: int) -> AdapterFile:
        """Return the file with all means and stds rounded to `statistic_size` bytes."""
        adapter = [tensor.with_statistic_size(statistic_size) for tensor in self.adapter]
        head = [tensor.with_statistic_size(statistic_size) for tensor in self.head]
        return replace(self, adapter=adapter, head=head, statistic_size=statistic_size, mantissa=None)

    def with_fewest_exact_bytes(self) -> AdapterFile:
        """Return the file with all means and stds in the fewest bytes that change none of them."""
        values = [v for t in (*self.adapter, *self.head) if t.codes is not None for v in (t.mean, t.std)]
        sizes = sorted(STATISTIC_SIZES) if values else []
        fitting = (s for s in sizes if all(round_statistic(v, s) == v for v in values))
        return self.with_statistic_size(next(fitting, STATISTIC_SIZES[0]))

    def with_mantissa(self, bits: int) -> AdapterFile:
        """Return the file with all means and stds in bits, with `bits` bits of mantissa.

        Raises:
            ValueError: those of a tensor cannot be stored so.
        """
        adapter = [tensor.with_mantissa(bits) for tensor in self.adapter]
        head = [tensor.with_mantissa(bits) for tensor in self.head]
        return replace(self, adapter=adapter, head=head, statistic_size=4, mantissa=bits)

    @cached_property
    def sections(self) -> tuple[Section, Section]:
        """The sections of adapter and head."""
        forms = _formats(self.metadata, self.statistic_size, self.shared, self.mantissa)
        pairs = zip(forms, (self.adapter, self.head), strict=True)
        adapter, head = (form.write(tensors, self.code) for form, tensors in pairs)
        return adapter, head

    @property
    def bytes_adapter(self) -> int:
        """Bytes of the adapter's section."""
        return len(self.sections[0].data)

    @property
    def bytes_head(self) -> int:
        """Bytes of the head's section."""
        return len(self.sections[1].data)

    @property
    def bytes_adapter_raw(self) -> int:
        """Bytes of the adapter with packed codes, not entropy-coded, and four-byte statistics."""
        return sum(tensor.entry.nbytes for tensor in self.adapter)

    @property
    def packing(self) -> str:
        """`coded` if the section of the adapter or of the head is coded, else `raw`."""
        return "coded" if any(section.coded for section in self.sections) else "raw"

    @property
    def bits_per_weight(self) -> float | None:
        """8 * bytes_adapter / number of weights of the adapter; None if there is no adapter."""
        weights = sum(tensor.entry.count for tensor in self.adapter)
        return 8 * self.bytes_adapter / weights if weights else None

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of metadata and payload, base64url without padding; for a loaded file, the stated one."""
        return opened(dump(self), "this file").checksum


def dump(file: AdapterFile) -> bytes:
    """Return the bytes of an adapter file; equal content gives equal bytes.

    There are two exceptions. On processors whose float logarithms differ, two modes of a matrix whose costs
    are equal within rounding could be chosen differently; both files hold the same codes. The bytes of a
    compressed layout (format 3) and of a short container depend on the version of zlib.
    """
    payload = b"".join(section.data for section in file.sections)
    return contained(_text(file), payload, file.short)


@dataclass(frozen=True)
class VerifiedFile:
    """An adapter file whose checksum is correct and whose codes are not decoded.

    Attributes:
        length: bytes of the file.
        metadata: entries of the metadata, except for those of the format itself.
        checksum: stated checksum.
        payload: bytes of both sections.
        layouts: entries of the tensors of adapter and head.
        sizes: bytes of the sections of adapter and head.
        coded: for each of the two sections, whether the file states that it is coded.
        statistic_size: bytes of a mean or a std: 4, 3 or 2.
        short: whether the container is the short one.
        shared: whether tensors of the adapter may have the statistics of earlier ones.
        mantissa: bits of mantissa of means and stds, if these are stored in bits instead of bytes.
    """

    length: int
    metadata: dict[str, str]
    checksum: str
    payload: bytes
    layouts: list[list[Entry]]
    sizes: tuple[int, int]
    coded: tuple[bool, bool]
    statistic_size: int
    short: bool
    shared: bool
    mantissa: int | None


def load(data: bytes, where: str) -> AdapterFile:
    """Read an adapter file.

    Args:
        data: all bytes of the file.
        where: path of the file, for messages.

    Raises:
        UserError: the file is truncated, altered, of another format version, or not an adapter file.
    """
    verified = verify(data, where)
    try:
        return _read(verified)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: damaged adapter file: {error}") from error


def verify(data: bytes, where: str) -> VerifiedFile:
    """Verify the checksum of an adapter file without decoding its codes, which would take 100 times as long.

    Args:
        data: all bytes of the file.
        where: path of the file, for messages.

    Raises:
        UserError: the file is truncated, altered, of another format version, or not an adapter file.
    """
    found = opened(data, where)
    metadata = dict(parse_qsl(found.text, keep_blank_values=True))
    form = metadata.pop("format", None)
    if not found.short and form not in READABLE:
        readable = ", ".join(READABLE)
        raise UserError(f"{where}: an adapter file of another version; this one reads formats {readable}")
    try:
        layout = metadata.pop("layout")
        layout = decompress_layout(layout) if form in COMPRESSED else layout
        layouts = [read_layout(text) for text in layout.split(_HEAD)]
        stated_sizes = metadata.pop("packing", _HEAD).split(_HEAD)
        statistics = metadata.pop("statistics", "4")
        mantissa = int(statistics.removeprefix(_IN_BITS)) if statistics.startswith(_IN_BITS) else None
        statistic_size = int(statistics) if mantissa is None else STATISTIC_SIZES[0]
        shared = metadata.pop(_SHARED, "") != ""
        formats = _formats(metadata, statistic_size, shared, mantissa)
        sizes = _sizes(found.payload, layouts, stated_sizes, formats)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: damaged adapter file: {error}") from error
    coded = bool(stated_sizes[0]), bool(stated_sizes[1])
    facts = metadata, found.checksum, found.payload, layouts, sizes, coded, statistic_size
    return VerifiedFile(len(data), *facts, found.short, shared, mantissa)


def _sizes(
    payload: bytes,
    layouts: list[list[Entry]],
    stated: list[str],
    formats: tuple[SectionFormat, SectionFormat],
) -> tuple[int, int]:
    """Return the bytes of the two sections.

    Args:
        payload: bytes of both sections.
        layouts: entries of adapter and head.
        stated: sizes that the file states for the two sections; empty for a raw section.
        formats: formats of the two sections.

    Raises:
        ValueError: the sizes do not fit the payload.
    """
    if formats[0].statistic_size not in STATISTIC_SIZES:
        raise ValueError(f"statistics of {formats[0].statistic_size} bytes")
    if formats[0].mantissa not in (None, *range(MOST_BITS + 1)):
        raise ValueError(f"statistics with {formats[0].mantissa} bits of mantissa")
    if len(stated) != len(layouts) or not all(size.isdecimal() for size in stated if size):
        raise ValueError("the sizes of its sections cannot be read")
    end = int(stated[0]) if stated[0] else formats[0].raw_size(payload, layouts[0])
    if stated[1] and int(stated[1]) != len(payload) - end:
        raise ValueError(f"payload of {len(payload)} bytes, its sections say otherwise")
    return end, len(payload) - end


def _read(verified: VerifiedFile) -> AdapterFile:
    """Decode a verified file.

    Raises:
        ValueError: a section does not fit its layout.
    """
    end = verified.sizes[0]
    sections = (verified.payload[:end], verified.payload[end:])
    formats = _formats(verified.metadata, verified.statistic_size, verified.shared, verified.mantissa)
    pairs = zip(formats, sections, verified.layouts, verified.coded, strict=True)
    (adapter, first), (head, second) = (form.read(data, layout, coded) for form, data, layout, coded in pairs)
    coded = first.coded or second.coded
    form = (coded, verified.statistic_size, verified.short, verified.shared, verified.mantissa)
    file = AdapterFile(verified.metadata, adapter, head, *form)
    file.__dict__["checksum"] = verified.checksum
    file.__dict__["sections"] = (first, second)
    return file


def _formats(
    metadata: dict[str, str], statistic_size: int, shared: bool, mantissa: int | None
) -> tuple[SectionFormat, SectionFormat]:
    seed = int(metadata["seed"]) if "seed" in metadata else None
    adapter = SectionFormat("adapter", seed, statistic_size, shared, mantissa)
    return adapter, SectionFormat("head", seed, statistic_size, mantissa=mantissa)


def _text(file: AdapterFile) -> str:
    """Return metadata and layout as a query string. A short container compresses the whole text itself."""
    layout = _HEAD.join(write_layout([t.entry for t in tensors]) for tensors in (file.adapter, file.head))
    long = len(layout) > MAX_PLAIN_LAYOUT and not file.short
    values = {} if file.short else {"format": FORMATS[long, file.shared, file.mantissa is not None]}
    values |= file.metadata
    values["layout"] = compress_layout(layout) if long else layout
    if file.packing == "coded":
        sizes = (str(len(section.data)) if section.coded else "" for section in file.sections)
        values["packing"] = _HEAD.join(sizes)
    if file.shared:
        values[_SHARED] = "1"
    if file.statistic_size != STATISTIC_SIZES[0]:
        values["statistics"] = str(file.statistic_size)
    if file.mantissa is not None:
        values["statistics"] = f"{_IN_BITS}{file.mantissa}"
    return "&".join(f"{quote(key)}={quote(value, safe=':;,=@/|[]')}" for key, value in values.items())
