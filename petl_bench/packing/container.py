"""Containers of adapter files: a safetensors file, or the short container.

safetensors   One byte tensor `payload` and one entry of metadata `petl-bench`, the text: a URL query string,
              because safetensors preserves the order of bytes within an entry but not the order of entries.
              The text ends with the SHA-256 of all before it and the payload, and the file must be exactly
              what safetensors writes around both.
short         MAGIC, whose last byte is the version of the container and of its dictionary; the text, as raw
              DEFLATE (RFC 1951) with the preset dictionary of petl_bench.packing.dictionary; the payload; and
              the SHA-256 of all before it (32 bytes).

Both hold the same text, so that a short file says everything itself, and its reader needs no table of known
settings: usual settings take a few bytes, since the dictionary has them, and others a few more.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from petl_bench.errors import UserError
from petl_bench.packing.dictionary import dictionary

MAGIC = b"\x93PB\x04"
"""First bytes of a short container; a safetensors file begins with the length of its header instead."""
_KEY = "petl-bench"
_CHECKSUM = 32
_MOST = 1 << 24
"""Maximum bytes of a text, since few bytes could stand for any number."""
_ENDING = "&sha256="


@dataclass(frozen=True)
class Opened:
    """The contents of a container whose checksum is correct.

    Attributes:
        text: the metadata as a query string, without the checksum.
        payload: bytes of both sections.
        checksum: the SHA-256, base64url without padding.
        short: whether the container is the short one.
    """

    text: str
    payload: bytes
    checksum: str
    short: bool


def contained(text: str, payload: bytes, short: bool) -> bytes:
    """Return the bytes of a file; those of a short text may differ between versions of zlib.

    Args:
        text: the metadata as a query string, without a checksum.
        payload: bytes of both sections.
        short: whether to use the short container.
    """
    if not short:
        return _safetensors(text + _ENDING + _base64(text.encode() + payload), payload)
    deflate = zlib.compressobj(9, wbits=-15, memLevel=9, zdict=dictionary())
    data = MAGIC + deflate.compress(text.encode()) + deflate.flush() + payload
    return data + hashlib.sha256(data).digest()


def opened(data: bytes, where: str) -> Opened:
    """Open a file and verify its checksum.

    Args:
        data: all bytes of the file.
        where: path of the file, for messages.

    Raises:
        UserError: the file is truncated, altered, or not an adapter file.
    """
    if data.startswith(MAGIC):
        return _opened_short(data, where)
    if data.startswith(MAGIC[:-1]) and len(data) >= len(MAGIC):
        raise UserError(
            f"{where}: a short adapter file of another version, {data[len(MAGIC) - 1]}; this petl-bench "
            f"reads {MAGIC[-1]}"
        )
    try:
        ((_, tensor),) = deserialize(data)
        length = int.from_bytes(data[:8], "little")
        text = json.loads(data[8 : 8 + length])["__metadata__"][_KEY]
        payload = bytes(tensor["data"])
        stated, _, checksum = text.rpartition(_ENDING)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not a petl-bench adapter file, or a truncated one ({error})") from error
    if _base64(stated.encode() + payload) != checksum or _safetensors(text, payload) != data:
        raise _damaged(where, "the checksum does not agree with the content")
    return Opened(stated, payload, checksum, short=False)


def _opened_short(data: bytes, where: str) -> Opened:
    held, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if hashlib.sha256(held).digest() != checksum:
        raise _damaged(where, "the checksum does not agree with the content")
    inflate = zlib.decompressobj(wbits=-15, zdict=dictionary())
    try:
        text = inflate.decompress(held[len(MAGIC) :], _MOST).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise _damaged(where, f"its text cannot be read: {error}") from error
    if not inflate.eof:
        raise _damaged(where, "its text has no end")
    return Opened(text, inflate.unused_data, _base64(held), short=True)


def _damaged(where: str, why: str) -> UserError:
    return UserError(f"{where}: damaged adapter file: {why}")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _safetensors(text: str, payload: bytes) -> bytes:
    return bytes(save({"payload": np.frombuffer(payload, np.uint8)}, metadata={_KEY: text}))
