"""Reading of files that others made: refused by kind and size before they are read, text decoded one way."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from petl_bench.errors import UserError

MB = 10**6
SETTINGS_LIMIT = 1 * MB
"""Maximum bytes of a file of settings: YAML of conf/, manifests, `data.override`."""
RECORD_LIMIT = 100 * MB
"""Maximum bytes of a JSON file of a store."""
ADAPTER_LIMIT = 2000 * MB
"""Maximum bytes of an adapter file or a .bin file of PETL-ViT."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def flaw(path: str | Path, limit: int) -> str:
    """Return why a file is not read, without opening it: not a regular file, or too large; empty if neither.

    Links are followed. Opening a pipe waits for its writer, and a device such as /dev/zero never ends.

    Args:
        limit: maximum number of bytes.

    Raises:
        OSError: the file does not exist or cannot be looked at.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'of another kind')}, not a regular file"
    if status.st_size > limit:
        return f"has {status.st_size:,} bytes, more than the {limit:,} that such a file may have"
    return ""


def content(path: str | Path, limit: int) -> bytes:
    """Return the content of a file; quicker than `read_bytes`, for files of which there are thousands.

    Args:
        limit: maximum number of bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or too large; the text begins with `it`.
    """
    if problem := flaw(path, limit):
        raise ValueError(f"it {problem}")
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def regular(path: Path, limit: int, where: str = "") -> Path:
    """Return the path of a file that may be read.

    Args:
        limit: maximum number of bytes.
        where: name of the file in messages, for example `data.override=sizes.yaml`; empty: its path.

    Raises:
        UserError: it does not exist, is not a regular file (but a pipe, a device, a directory), or is too
            large.
    """
    where = where or str(path)
    try:
        problem = flaw(path, limit)
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null byte in the path
        raise UserError(f"{where}: cannot be read: {error}") from error
    if problem:
        raise UserError(f"{where}: {problem}")
    return path


def read_bytes(path: Path, limit: int, where: str = "") -> bytes:
    """Return the content of a file; see `regular`.

    Raises:
        UserError: it cannot be read, is not a regular file, or is too large.
    """
    try:
        return regular(path, limit, where).read_bytes()
    except OSError as error:
        raise UserError(f"{where or path}: cannot be read: {error.strerror}") from error


def read_text(path: Path, limit: int, where: str = "") -> str:
    """Return the text of a file; see `regular`.

    Raises:
        UserError: it cannot be read, is not a regular file, is too large, or is not text.
    """
    return decoded(read_bytes(path, limit, where), where or str(path))


def decoded(data: bytes, where: str) -> str:
    """Return the text of some bytes: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        UserError: the bytes are neither.
    """
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}, line {line}: is not UTF-8 text ({error.reason})") from error


MOST_VALUES = 100_000
"""Maximum number of values of a YAML file once its aliases are written out."""
_FOREIGN = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
"""Errors of YAML's constructors."""


def read_yaml(path: Path, where: str = "", loader: type[Any] = yaml.SafeLoader) -> Any:
    """Return the content of a YAML file of settings.

    Args:
        where: name of the file in messages; empty: its path.
        loader: loader of the yaml package.

    Raises:
        UserError: the file cannot be read or is not valid YAML; the message states the line.
    """
    where = where or str(path)
    return parse_yaml(read_text(path, SETTINGS_LIMIT, where), where, loader)


def parse_yaml(text: str, where: str, loader: type[Any] = yaml.SafeLoader) -> Any:
    """Return the content of a YAML text; see `read_yaml`.

    Raises:
        UserError: it is not valid YAML, or its aliases stand for too much.
    """
    try:
        content = yaml.load(text, loader)  # noqa: S506 - SafeLoader or a subclass of it
        values = _count(content, {})
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{where}: not valid YAML: it is nested too deeply, or contains itself") from error
    except _FOREIGN as error:
        raise UserError(f"{where}: not valid YAML: {error}") from error
    if values > MOST_VALUES:
        raise UserError(f"{where}: has more than {MOST_VALUES:,} values, counting each alias")
    return content


def _count(value: Any, known: dict[int, int]) -> int:
    """Return the number of values in nested lists and dictionaries, each alias counted.

    Raises:
        RecursionError: a value contains itself.
    """
    if not isinstance(value, list | dict):
        return 1
    if id(value) not in known:
        parts = value if isinstance(value, list) else [*value, *value.values()]
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
