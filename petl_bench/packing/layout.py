"""Layouts: compact text that states which tensors a section holds.

A layout lists tensors in order with shape and bits: `0-11:down=32x768@1,up=768x32@1;bias=10`. A group
`A-B:` repeats its list for each index from A to B (names "0.down", "0.up", "1.down", ...); a tensor
without `@` is float32. Blocks that differ only in width share one list, in which `d` stands for the width
and `4d` for four times the width: `0-1=128,2-3=256:down=8xd@1,up=dx8@1`. `down.0-3=` stands for down.0,
down.1, down.2 and down.3 with equal shapes and bits.

Layouts of methods with many kinds of matrices are longer than all other metadata. These are compressed by
DEFLATE with a preset dictionary.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from petl_bench.packing.tensors import Entry
from petl_bench.types import FLOAT_BITS

MAX_PLAIN_LAYOUT = 100
"""Maximum characters of a layout that a file states uncompressed."""
_MAX_TEXT = 1 << 20
"""Maximum characters of a decompressed layout."""
_MAX_ENTRIES = 1 << 16
"""Maximum tensors of a layout, since a short text could stand for any number."""
_DICTIONARY = (
    b"0-11:proj.fc1.fc2.parallel.sequential.left.right.start=768x16@1,down.start=16x768@1,"
    b"qkv.up=768x16@1,qkv.down=16x768@1|weight=100x768,bias=100"
)
"""Preset dictionary; it is part of the file format and must never change."""


def compress_layout(layout: str) -> str:
    """Compress a layout to base64url without padding; the result may differ between versions of zlib."""
    return deflated(layout.encode(), _DICTIONARY)


def decompress_layout(text: str) -> str:
    """Return the layout that `compress_layout` has compressed.

    Raises:
        ValueError: the text is not a compressed layout, or the layout is too long.
    """
    try:
        return inflated(text, _MAX_TEXT, _DICTIONARY).decode()
    except ValueError as error:
        raise ValueError(f"its layout cannot be read: {error}") from error


def deflated(data: bytes, dictionary: bytes = b"") -> str:
    """Return bytes as text: DEFLATE of level 9, base64url without padding."""
    deflate = zlib.compressobj(9, wbits=-15, zdict=dictionary)
    return base64.urlsafe_b64encode(deflate.compress(data) + deflate.flush()).decode().rstrip("=")


def inflated(text: str, most: int, dictionary: bytes = b"") -> bytes:
    """Return the bytes of which `deflated` has made a text.

    Args:
        most: maximum number of bytes, since a short text could stand for any number.

    Raises:
        ValueError: the text is no such text, or stands for more bytes.
    """
    inflate = zlib.decompressobj(wbits=-15, zdict=dictionary)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = inflate.decompress(data, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("its compressed text ends early or late")
    return found


@dataclass(frozen=True)
class _Run:
    """Consecutive blocks with equal entries, or entries outside of blocks.

    Attributes:
        first: index of the first block; None for entries outside of blocks.
        last: index of the last block, likewise.
        entries: entries of one block, named without its index.
    """

    first: int | None
    last: int | None
    entries: list[Entry]

    @property
    def sizes(self) -> list[int]:
        """All dimensions of all entries."""
        return [size for entry in self.entries for size in entry.shape]


def write_layout(entries: Sequence[Entry]) -> str:
    """Return the layout of entries; runs of blocks that differ only in width become one group."""
    groups: list[list[_Run]] = []
    for run in _runs(entries):
        if groups and _shared_sizes([*groups[-1], run]) is not None:
            groups[-1].append(run)
        else:
            groups.append([run])
    return ";".join(map(_write_group, groups))


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
    """Return `=WIDTH` of each run, and all dimensions in terms of the width.

    Widths are empty if the runs do not differ. The result is None if they differ in more than a width.
    """
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


def _write_group(runs: Sequence[_Run]) -> str:
    found = _shared_sizes(runs)
    assert found is not None
    widths, sizes = found[0], iter(found[1])
    items = []
    for entry in runs[0].entries:
        shape = "x".join(next(sizes) for _ in entry.shape)
        items.append((entry.name, f"{shape}" + ("" if entry.bits == FLOAT_BITS else f"@{entry.bits}")))
    texts = [f"{name}={rest}" for name, rest in _numbered(items)]
    spans = [f"{run.first}-{run.last}{width}" for run, width in zip(runs, widths, strict=True)]
    return ("" if runs[0].first is None else ",".join(spans) + ":") + ",".join(texts)


def _numbered(items: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Merge items that are equal except for consecutive last numbers of their names into one item."""

    def kind(place: int) -> tuple[object, ...]:
        name, rest = items[place]
        stem, _, last = name.rpartition(".")
        return (stem, rest, int(last) - place) if stem and re.fullmatch(r"0|[1-9]\d{0,3}", last) else (place,)

    for _, places in groupby(range(len(items)), key=kind):
        first, *others = places
        name, rest = items[first]
        yield (f"{name}-{items[others[-1]][0].rpartition('.')[2]}" if others else name), rest


def read_layout(text: str) -> list[Entry]:
    """Return the entries of a layout.

    Raises:
        ValueError: the text is not a layout, or has too many entries.
    """
    entries: list[Entry] = []
    for group in filter(None, text.split(";")):
        spans, colon, body = group.rpartition(":")
        for prefix, width in _read_spans(spans) if colon else [("", None)]:
            for item in body.split(","):
                entries += _read_entries(prefix, item, width)
                if len(entries) > _MAX_ENTRIES:
                    raise ValueError(f"layout of more than {_MAX_ENTRIES} tensors cannot be read")
    return entries


def _read_spans(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the prefix and the width of each block of spans such as `0-1=128,2-3=256`."""
    for span in text.split(","):
        match = re.fullmatch(r"(\d{1,4})-(\d{1,4})(?:=(\d+))?", span)
        if match is None:
            raise ValueError(f"layout span {span!r} cannot be read")
        first, last, width = match.groups()
        for index in range(int(first), int(last) + 1):
            yield f"{index}.", width


def _read_entries(prefix: str, text: str, width: str | None) -> list[Entry]:
    size = r"\d+" if width is None else r"(?:\d+|\d*d)"
    match = re.fullmatch(rf"([\w.]+)(?:-(\d{{1,4}}))?=({size}(?:x{size})*|)(?:@([1-8]))?", text)
    if match is None:
        raise ValueError(f"layout entry {text!r} cannot be read")
    name, last, shape, bits = match.groups()
    sizes = tuple(_read_size(part, width) for part in shape.split("x")) if shape else ()
    stem, _, first = name.rpartition(".")
    if last is None:
        names = [name]
    elif re.fullmatch(r"\d{1,4}", first):
        names = [f"{stem}.{number}" for number in range(int(first), int(last) + 1)]
    else:
        raise ValueError(f"layout entry {text!r} counts from no number")
    return [Entry(prefix + each, sizes, int(bits or FLOAT_BITS)) for each in names]


def _read_size(text: str, width: str | None) -> int:
    if width is None or not text.endswith("d"):
        return int(text)
    return int(text[:-1] or 1) * int(width)
