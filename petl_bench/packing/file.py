"""The adapter file: one safetensors container with one byte tensor and a line of metadata.

    tensor `payload`   the adapter's section, then the head's (petl_bench.packing.section; raw, the order of
                       tensors and bits is that of the released code's .bin files)
    metadata           one entry `petl-bench`: a URL query string, because safetensors keeps the order
                       of bytes within one entry but not the order of entries

The checksum covers metadata and payload, and the container must be what safetensors writes around these: any
change of any byte is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import parse_qsl, quote

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from petl_bench.errors import UserError
from petl_bench.packing.layout import MOST_LAYOUT, lengthened, read_layout, shortened, write_layout
from petl_bench.packing.section import Format, Section
from petl_bench.packing.tensors import STATISTIC_SIZES, Entry, StoredTensor

FORMAT = "2"
SHORT_LAYOUT = "3"
READABLE = ("1", FORMAT, SHORT_LAYOUT)
"""Version 1 had raw sections alone; 3 is 2 with its layout as `petl_bench.packing.layout.shortened`."""
MAX_OVERHEAD = 512
"""Bytes beyond the two payloads that a file of the built-in methods may take."""
_KEY = "petl-bench"
_HEAD = "|"
"""Stands between the layouts of adapter and head."""


@dataclass(frozen=True)
class AdapterFile:
    """A trained adapter and head, with the text metadata that rebuilding the model needs.

    Attributes:
        metadata: as `describe` makes it; `seed` is that of the initialization.
        code: whether sections are coded where that makes them smaller.
        statistics: bytes that a mean or a std takes: 4, 3 or 2.
    """

    metadata: dict[str, str]
    adapter: list[StoredTensor]
    head: list[StoredTensor]
    code: bool = False
    statistics: int = 4

    def shortened(self, statistics: int) -> AdapterFile:
        """The same with means and stds rounded to `statistics` bytes."""
        adapter, head = ([t.shortened(statistics) for t in part] for part in (self.adapter, self.head))
        return replace(self, adapter=adapter, head=head, statistics=statistics)

    @cached_property
    def sections(self) -> tuple[Section, Section]:
        """Adapter and head as bytes."""
        parts = zip(_formats(self.metadata, self.statistics), (self.adapter, self.head), strict=True)
        adapter, head = (form.write(tensors, self.code) for form, tensors in parts)
        return adapter, head

    @property
    def bytes_adapter(self) -> int:
        return len(self.sections[0].data)

    @property
    def bytes_head(self) -> int:
        return len(self.sections[1].data)

    @property
    def bytes_adapter_raw(self) -> int:
        """Bytes of the adapter with whole codes and four-byte statistics."""
        return sum(tensor.entry.nbytes for tensor in self.adapter)

    @property
    def packing(self) -> str:
        """`coded` where the adapter or the head is, else `raw`."""
        return "coded" if any(section.coded for section in self.sections) else "raw"

    @property
    def bits_per_weight(self) -> float | None:
        """8 * bytes_adapter / number of adapter weights; None where there is no adapter."""
        weights = sum(tensor.entry.count for tensor in self.adapter)
        return 8 * self.bytes_adapter / weights if weights else None

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of metadata and payload, base64url without padding; of a loaded file the one it has."""
        return dict(parse_qsl(_text(self)))["sha256"]


def dump(file: AdapterFile) -> bytes:
    """The bytes of an adapter file; equal content gives equal bytes.

    (On processors whose float logarithms differ, two modes of a matrix that cost the same within rounding
    could be chosen differently; either file holds the same codes. Layouts of format 3 follow zlib's version.)
    """
    return _contain(_text(file), _payload(file))


@dataclass(frozen=True)
class VerifiedFile:
    """An adapter file whose checksum agrees, its codes not decoded.

    Attributes:
        length: bytes of the file.
        sizes: bytes of the sections of adapter and head.
        coded: for each of them, whether the file says that it is coded.
    """

    length: int
    metadata: dict[str, str]
    checksum: str
    payload: bytes
    layouts: list[list[Entry]]
    sizes: tuple[int, int]
    coded: tuple[bool, bool]
    statistics: int


def load(data: bytes, where: str) -> AdapterFile:
    """Read an adapter file.

    Args:
        data: the whole file.
        where: its path, for messages.

    Raises:
        UserError: truncated, altered, of another format version, or not an adapter file at all.
    """
    sealed = verify(data, where)
    try:
        return _read(sealed)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: damaged adapter file: {error}") from error


def verify(data: bytes, where: str) -> VerifiedFile:
    """As `load`, but without decoding the codes, which takes a hundred times as long.

    Raises:
        UserError: as `load`.
    """
    try:
        ((_, tensor),) = deserialize(data)
        length = int.from_bytes(data[:8], "little")
        text = json.loads(data[8 : 8 + length])["__metadata__"][_KEY]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: not a petl-bench adapter file, or a truncated one ({error})") from error
    metadata = dict(parse_qsl(text, keep_blank_values=True))
    form = metadata.pop("format", None)
    if form not in READABLE:
        readable = ", ".join(READABLE)
        raise UserError(f"{where}: an adapter file of another version; this one reads formats {readable}")
    payload = bytes(tensor["data"])
    stated, _, _ = text.rpartition("&sha256=")
    if _signed(stated, payload) != text or _contain(text, payload) != data:
        raise UserError(f"{where}: damaged adapter file: the checksum does not agree with the content")
    try:
        checksum = metadata.pop("sha256")
        layout = metadata.pop("layout")
        layout = lengthened(layout) if form == SHORT_LAYOUT else layout
        layouts = [read_layout(part) for part in layout.split(_HEAD)]
        stated_sizes = metadata.pop("packing", _HEAD).split(_HEAD)
        statistics = int(metadata.pop("statistics", "4"))
        sizes = _sizes(payload, layouts, stated_sizes, statistics)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: damaged adapter file: {error}") from error
    coded = bool(stated_sizes[0]), bool(stated_sizes[1])
    return VerifiedFile(len(data), metadata, checksum, payload, layouts, sizes, coded, statistics)


def _sizes(payload: bytes, layouts: list[list[Entry]], stated: list[str], statistics: int) -> tuple[int, int]:
    """Bytes of the two sections; `stated` is empty where a section is raw.

    Raises:
        ValueError: they are not those of the payload.
    """
    if statistics not in STATISTIC_SIZES:
        raise ValueError(f"statistics of {statistics} bytes")
    if len(stated) != len(layouts) or not all(size.isdecimal() for size in stated if size):
        raise ValueError("the sizes of its sections cannot be read")
    raw = [sum(entry.body + entry.tail(statistics) for entry in layout) for layout in layouts]
    end = int(stated[0] or raw[0])
    if stated[1] and int(stated[1]) != len(payload) - end:
        raise ValueError(f"payload of {len(payload)} bytes, its sections say otherwise")
    return end, len(payload) - end


def _read(sealed: VerifiedFile) -> AdapterFile:
    """The file of a payload.

    Raises:
        ValueError: a section does not fit its layout.
    """
    end = sealed.sizes[0]
    sections = (sealed.payload[:end], sealed.payload[end:])
    formats = _formats(sealed.metadata, sealed.statistics)
    parts = zip(formats, sections, sealed.layouts, sealed.coded, strict=True)
    (adapter, first), (head, second) = (form.read(data, layout, coded) for form, data, layout, coded in parts)
    file = AdapterFile(sealed.metadata, adapter, head, first.coded or second.coded, sealed.statistics)
    file.__dict__["checksum"] = sealed.checksum
    file.__dict__["sections"] = (first, second)
    return file


def _formats(metadata: dict[str, str], statistics: int) -> tuple[Format, Format]:
    seed = int(metadata["seed"]) if "seed" in metadata else None
    return Format("adapter", seed, statistics), Format("head", seed, statistics)


def _payload(file: AdapterFile) -> bytes:
    return b"".join(section.data for section in file.sections)


def _text(file: AdapterFile) -> str:
    """Metadata as a query string; its last value is the SHA-256 of all before it and the payload."""
    layout = _HEAD.join(write_layout([t.entry for t in part]) for part in (file.adapter, file.head))
    long = len(layout) > MOST_LAYOUT
    values = {"format": SHORT_LAYOUT if long else FORMAT} | file.metadata
    values["layout"] = shortened(layout) if long else layout
    if file.packing == "coded":
        sizes = (str(len(section.data)) if section.coded else "" for section in file.sections)
        values["packing"] = _HEAD.join(sizes)
    if file.statistics != STATISTIC_SIZES[0]:
        values["statistics"] = str(file.statistics)
    text = "&".join(f"{quote(key)}={quote(value, safe=':;,=@/|[]')}" for key, value in values.items())
    return _signed(text, _payload(file))


def _signed(text: str, payload: bytes) -> str:
    digest = hashlib.sha256(text.encode() + payload).digest()
    return f"{text}&sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _contain(text: str, payload: bytes) -> bytes:
    return bytes(save({"payload": np.frombuffer(payload, np.uint8)}, metadata={_KEY: text}))
