"""The adapter file: one safetensors container with one byte tensor and a line of metadata.

    tensor `payload`   the adapter, then the head. For each matrix: packed codes, float32 shift, float32
                       spread; float32 where not quantized (order of tensors and bits as in the released
                       code's .bin files)
    metadata           one entry `petl-bench`: a URL query string, because safetensors keeps the order
                       of bytes within one entry but not the order of entries

The checksum covers metadata and payload, and a file must equal what writing its own content gives: any
change of any byte is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from petl_bench.errors import UserError
from petl_bench.packing.tensors import StoredTensor, read_layout, read_tensors, write_layout

FORMAT = "1"
MAX_OVERHEAD = 512
"""Bytes beyond the two payloads that a file of the built-in methods may take."""
_KEY = "petl-bench"
_HEAD = "|"
"""Stands between the layouts of adapter and head."""


@dataclass(frozen=True)
class AdapterFile:
    """A trained adapter and head, with the text metadata that rebuilding the model needs."""

    metadata: dict[str, str]
    adapter: list[StoredTensor]
    head: list[StoredTensor]

    @property
    def bytes_adapter(self) -> int:
        return sum(tensor.entry.nbytes for tensor in self.adapter)

    @property
    def bytes_head(self) -> int:
        return sum(tensor.entry.nbytes for tensor in self.head)

    @property
    def bits_per_weight(self) -> float | None:
        """8 * bytes_adapter / number of adapter weights; None where there is no adapter."""
        weights = sum(tensor.entry.count for tensor in self.adapter)
        return 8 * self.bytes_adapter / weights if weights else None

    @property
    def checksum(self) -> str:
        """SHA-256 of metadata and payload, base64url without padding."""
        return dict(parse_qsl(_text(self)))["sha256"]


def dump(file: AdapterFile) -> bytes:
    """The bytes of an adapter file; equal content gives equal bytes."""
    payload = np.frombuffer(_payload(file), np.uint8)
    return bytes(save({"payload": payload}, metadata={_KEY: _text(file)}))


def load(data: bytes, where: str) -> AdapterFile:
    """Read an adapter file.

    Args:
        data: the whole file.
        where: its path, for messages.

    Raises:
        UserError: truncated, altered, of another format version, or not an adapter file at all.
    """
    try:
        ((_, tensor),) = deserialize(data)
        length = int.from_bytes(data[:8], "little")
        text = json.loads(data[8 : 8 + length])["__metadata__"][_KEY]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: not a petl-bench adapter file, or a truncated one ({error})") from error
    metadata = dict(parse_qsl(text, keep_blank_values=True))
    if metadata.pop("format", None) != FORMAT:
        raise UserError(f"{where}: an adapter file of another version; this one reads format {FORMAT}")
    try:
        del metadata["sha256"]
        layouts = [read_layout(text) for text in metadata.pop("layout").split(_HEAD)]
        adapter, head = read_tensors(bytes(tensor["data"]), layouts)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: damaged adapter file: {error}") from error
    file = AdapterFile(metadata, adapter, head)
    if dump(file) != data:
        raise UserError(f"{where}: damaged adapter file: the checksum does not agree with the content")
    return file


def _payload(file: AdapterFile) -> bytes:
    return b"".join(tensor.to_bytes() for tensor in [*file.adapter, *file.head])


def _text(file: AdapterFile) -> str:
    """Metadata as a query string; its last value is the SHA-256 of all before it and the payload."""
    layout = _HEAD.join(write_layout([t.entry for t in part]) for part in (file.adapter, file.head))
    values = {"format": FORMAT} | file.metadata | {"layout": layout}
    text = "&".join(f"{quote(key)}={quote(value, safe=':;,=@/|[]')}" for key, value in values.items())
    digest = hashlib.sha256(text.encode() + _payload(file)).digest()
    return f"{text}&sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
