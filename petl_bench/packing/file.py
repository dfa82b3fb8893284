"""The adapter file: a safetensors container with one byte tensor and one entry of metadata.

    tensor `payload`   The adapter's section, then the head's (petl_bench.packing.section). In raw sections
                       the order of tensors and bits is that of the released code's .bin files.
    metadata           One entry `petl-bench`: a URL query string, because safetensors preserves the order of
                       bytes within an entry but not the order of entries.

The checksum covers metadata and payload, and the container must be exactly what safetensors writes around
them, so a file with any changed byte is refused.
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
from petl_bench.packing.layout import (
    MAX_PLAIN_LAYOUT,
    compress_layout,
    decompress_layout,
    read_layout,
    write_layout,
)
from petl_bench.packing.section import Section, SectionFormat
from petl_bench.packing.tensors import STATISTIC_SIZES, Entry, StoredTensor

FORMAT = "2"
COMPRESSED_LAYOUT = "3"
READABLE = ("1", FORMAT, COMPRESSED_LAYOUT)
"""Version 1 has raw sections only; 3 differs from 2 by a compressed layout (petl_bench.packing.layout)."""
MAX_OVERHEAD = 512
"""Maximum bytes of a file besides its two sections, for the built-in methods."""
_KEY = "petl-bench"
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
    """

    metadata: dict[str, str]
    adapter: list[StoredTensor]
    head: list[StoredTensor]
    code: bool = False
    statistic_size: int = 4

    def with_statistic_size(self, statistic_size: int) -> AdapterFile:
        """Return the file with all means and stds rounded to `statistic_size` bytes."""
        adapter = [tensor.with_statistic_size(statistic_size) for tensor in self.adapter]
        head = [tensor.with_statistic_size(statistic_size) for tensor in self.head]
        return replace(self, adapter=adapter, head=head, statistic_size=statistic_size)

    @cached_property
    def sections(self) -> tuple[Section, Section]:
        """The sections of adapter and head."""
        pairs = zip(_formats(self.metadata, self.statistic_size), (self.adapter, self.head), strict=True)
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
        return dict(parse_qsl(_text(self)))["sha256"]


def dump(file: AdapterFile) -> bytes:
    """Return the bytes of an adapter file; equal content gives equal bytes.

    There are two exceptions. On processors whose float logarithms differ, two modes of a matrix whose costs
    are equal within rounding could be chosen differently; both files hold the same codes. The bytes of a
    compressed layout (format 3) depend on the version of zlib.
    """
    return _contain(_text(file), _payload(file))


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
    """

    length: int
    metadata: dict[str, str]
    checksum: str
    payload: bytes
    layouts: list[list[Entry]]
    sizes: tuple[int, int]
    coded: tuple[bool, bool]
    statistic_size: int


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
        layout = decompress_layout(layout) if form == COMPRESSED_LAYOUT else layout
        layouts = [read_layout(text) for text in layout.split(_HEAD)]
        stated_sizes = metadata.pop("packing", _HEAD).split(_HEAD)
        statistic_size = int(metadata.pop("statistics", "4"))
        sizes = _sizes(payload, layouts, stated_sizes, statistic_size)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: damaged adapter file: {error}") from error
    coded = bool(stated_sizes[0]), bool(stated_sizes[1])
    return VerifiedFile(len(data), metadata, checksum, payload, layouts, sizes, coded, statistic_size)


def _sizes(
    payload: bytes, layouts: list[list[Entry]], stated: list[str], statistic_size: int
) -> tuple[int, int]:
    """Return the bytes of the two sections.

    Args:
        payload: bytes of both sections.
        layouts: entries of adapter and head.
        stated: sizes that the file states for the two sections; empty for a raw section.
        statistic_size: bytes of a mean or a std.

    Raises:
        ValueError: the sizes do not fit the payload.
    """
    if statistic_size not in STATISTIC_SIZES:
        raise ValueError(f"statistics of {statistic_size} bytes")
    if len(stated) != len(layouts) or not all(size.isdecimal() for size in stated if size):
        raise ValueError("the sizes of its sections cannot be read")
    raw = [
        sum(entry.body_size + entry.statistics_size(statistic_size) for entry in layout) for layout in layouts
    ]
    end = int(stated[0] or raw[0])
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
    formats = _formats(verified.metadata, verified.statistic_size)
    pairs = zip(formats, sections, verified.layouts, verified.coded, strict=True)
    (adapter, first), (head, second) = (form.read(data, layout, coded) for form, data, layout, coded in pairs)
    file = AdapterFile(verified.metadata, adapter, head, first.coded or second.coded, verified.statistic_size)
    file.__dict__["checksum"] = verified.checksum
    file.__dict__["sections"] = (first, second)
    return file


def _formats(metadata: dict[str, str], statistic_size: int) -> tuple[SectionFormat, SectionFormat]:
    seed = int(metadata["seed"]) if "seed" in metadata else None
    return SectionFormat("adapter", seed, statistic_size), SectionFormat("head", seed, statistic_size)


def _payload(file: AdapterFile) -> bytes:
    return b"".join(section.data for section in file.sections)


def _text(file: AdapterFile) -> str:
    """Return the metadata as a query string that ends with the SHA-256 of all before it and the payload."""
    layout = _HEAD.join(write_layout([t.entry for t in tensors]) for tensors in (file.adapter, file.head))
    long = len(layout) > MAX_PLAIN_LAYOUT
    values = {"format": COMPRESSED_LAYOUT if long else FORMAT} | file.metadata
    values["layout"] = compress_layout(layout) if long else layout
    if file.packing == "coded":
        sizes = (str(len(section.data)) if section.coded else "" for section in file.sections)
        values["packing"] = _HEAD.join(sizes)
    if file.statistic_size != STATISTIC_SIZES[0]:
        values["statistics"] = str(file.statistic_size)
    text = "&".join(f"{quote(key)}={quote(value, safe=':;,=@/|[]')}" for key, value in values.items())
    return _signed(text, _payload(file))


def _signed(text: str, payload: bytes) -> str:
    digest = hashlib.sha256(text.encode() + payload).digest()
    return f"{text}&sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _contain(text: str, payload: bytes) -> bytes:
    return bytes(save({"payload": np.frombuffer(payload, np.uint8)}, metadata={_KEY: text}))
