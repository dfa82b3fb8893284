"""Files of the user are refused by their kind and size before they are read; text is decoded in one way."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from petl_bench.errors import UserError
from petl_bench.files import decoded, read_bytes, read_text, regular


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)


def _socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a pipe, not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a regular file"),
    "directory": (Path.mkdir, "is a directory, not a regular file"),
    "socket": (_socket, "is a socket, not a regular file"),
    "sparse giant": (_sparse, "has 1,000,000,000,000 bytes, more than the 1,000 that such a file may have"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    "missing": (lambda path: None, "cannot be read: No such file or directory"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file_of_usual_size_is_refused_unread(kind: str, tmp_path: Path) -> None:
    make, message = KINDS[kind]
    path = tmp_path / "x"
    make(path)
    for read in (regular, read_bytes, read_text):
        with pytest.raises(UserError) as caught:
            read(path, 1000)
        assert str(caught.value) == f"{path}: {message}"


def test_a_link_to_a_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 1000) == b"x" * 1000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_with_and_without_byte_order_mark(encoding: str) -> None:
    assert decoded("müde: 1\n".encode(encoding), "x") == "müde: 1\n"


def test_bytes_that_are_no_text_are_named_with_their_line() -> None:
    with pytest.raises(UserError, match=r"^sizes.yaml, line 2: is not UTF-8 text \(invalid start byte\)$"):
        decoded(b"a: 1\nb: \xff\n", "sizes.yaml")
