"""Archives as they should be, archives from strangers and damaged ones: unpacked whole or refused."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from petl_bench.data.archive import SUFFIXES, unpack
from petl_bench.data.prepare import prepare
from petl_bench.errors import UserError
from tests.archives import (
    FOLDERS,
    add,
    below,
    everything,
    pack,
    packed,
    refusal,
    silent,
    task,
    tree,
    write_tree,
)

# Archives that are what they should be


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("top", ["", "vtab-1k/", "./vtab-1k/"])
def test_every_format_comes_out_as_it_went_in(suffix: str, top: str, tmp_path: Path) -> None:
    files = below("cifar", task()) | below("dtd", task(2))
    source = pack(tmp_path / f"all{suffix}", {top + name: data for name, data in files.items()})
    before = os.umask(0o077)
    try:
        unpack(source, tmp_path / "out", silent)
    finally:
        os.umask(before)
    assert tree(tmp_path / "out") == below("vtab-1k" if top else "all", files)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*") if p.is_file()} == {0o644}
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*") if p.is_dir()} == {0o755}


def test_the_suffix_may_be_in_capitals_and_the_compression_other_than_named(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar.gz", below("cifar", task())).rename(tmp_path / "a.TAR")
    pack(tmp_path / "b.zip", below("dtd", task())).rename(tmp_path / "b.ZIP")
    for name in ("a.TAR", "b.ZIP"):
        prepare(tmp_path / name, tmp_path / "root", FOLDERS, silent)
    assert tree(tmp_path / "root") == below("cifar", task()) | below("dtd", task())


def test_archives_inside_an_archive_are_unpacked_one_level_deep(tmp_path: Path) -> None:
    innermost = packed("deep.zip", {"a": b"a"}, tmp_path)
    inner = packed("cifar.zip", task() | {"deep.zip": innermost}, tmp_path)
    dtd = packed("dtd.tar.gz", below("dtd", task()), tmp_path)
    source = pack(tmp_path / "o.zip", {"vtab/cifar.zip": inner, "vtab/x/dtd.tar.gz": dtd})
    unpack(source, tmp_path / "out", silent)
    expected = below("vtab/cifar", task() | {"deep.zip": innermost}) | below("vtab/x/dtd", task())
    assert tree(tmp_path / "out") == expected


def test_a_folder_of_archives_and_trees(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "got", below("more/dtd", task()))
    pack(source / "cifar.zip", task())
    pack(source / "part1.tar", below("fgvc-aircraft", {"1.jpg": b"1"}))
    pack(source / "part2.tar", below("fgvc-aircraft", {"2.jpg": b"2"}))
    before = tree(source)
    placed = prepare(source, tmp_path / "root", FOLDERS, silent)
    assert sorted(placed) == ["cifar", "dtd", "fgvc_aircraft/images"]
    aircraft = below("fgvc_aircraft/images", {"1.jpg": b"1", "2.jpg": b"2"})
    assert tree(tmp_path / "root") == below("cifar", task()) | below("dtd", task()) | aircraft
    assert tree(source) == before


def test_junk_is_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/cifar/._a": b"", "cifar/.DS_Store": b"", "cifar/images/._1.jpg": b"", "._cifar": b""}
    source = pack(tmp_path / "c.zip", below("cifar", task()) | junk)
    prepare(source, tmp_path / "root", FOLDERS, silent)
    assert tree(tmp_path / "root") == below("cifar", task())


def test_two_archives_that_hold_one_file_are_refused(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        pack(tmp_path / "got" / name, below("cifar", task()))
    message = refusal(tmp_path / "got", tmp_path / "root")
    assert "b.tar" in message
    assert "cifar/images/train800/000000.jpg" in message


# Archives that are not

EVIL_TAR: dict[str, tuple[str, dict[str, object]]] = {
    "absolute": ("{outside}/evil.jpg", {}),
    "dots": ("cifar/../../../evil.jpg", {}),
    "only dots": ("..", {"type": tarfile.DIRTYPE}),
    "drive": ("C:/evil.jpg", {}),
    "inner drive": ("cifar/C:evil.jpg", {}),
    "backslash": ("cifar\\..\\..\\evil.jpg", {}),
    "symlink": ("cifar/evil.jpg", {"type": tarfile.SYMTYPE, "linkname": "{outside}"}),
    "inner symlink": ("cifar/evil.jpg", {"type": tarfile.SYMTYPE, "linkname": "good.jpg"}),
    "hard link": ("cifar/evil.jpg", {"type": tarfile.LNKTYPE, "linkname": "cifar/good.jpg"}),
    "character device": ("cifar/evil.jpg", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
    "block device": ("cifar/evil.jpg", {"type": tarfile.BLKTYPE}),
    "pipe": ("cifar/evil.jpg", {"type": tarfile.FIFOTYPE}),
    "twice": ("cifar/./good.jpg", {}),
    "file and folder": ("cifar/good.jpg/evil.jpg", {}),
    "in junk": ("__MACOSX/../../evil.jpg", {}),
}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("evil", EVIL_TAR)
def test_an_evil_tar_is_refused_before_anything_is_written(evil: str, suffix: str, tmp_path: Path) -> None:
    name, attributes = EVIL_TAR[evil]
    (outside := tmp_path / "outside").mkdir()
    name = name.format(outside=outside)
    if "linkname" in attributes:
        attributes = attributes | {"linkname": str(attributes["linkname"]).format(outside=outside)}
    with tarfile.open(tmp_path / f"evil{suffix}", f"w:{suffix[5:]}") as tar:
        add(tar, "cifar/good.jpg", b"good")
        add(tar, name, **attributes)
        add(tar, "cifar/evil.jpg/through.jpg" if evil == "symlink" else "cifar/last.jpg", b"last")
    before = everything(tmp_path)
    message = refusal(tmp_path / f"evil{suffix}", tmp_path / "root")
    assert repr("cifar/good.jpg" if evil == "file and folder" else name) in message
    assert ("is a symbolic link" in message) == ("symlink" in evil)
    assert ("is a hard link" in message) == (evil == "hard link")
    assert everything(tmp_path) == sorted([*before, str(tmp_path / "root")])
    with pytest.raises(UserError):  # nor does unpack alone write a thing
        unpack(tmp_path / f"evil{suffix}", tmp_path / "out", silent)
    assert everything(tmp_path / "out") == everything(outside) == []


def evil_zip(path: Path, name: str, mode: int = 0, flags: int = 0, size: int | None = None) -> Path:
    """A zip with one good member and one of these facts."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cifar/good.jpg", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"/etc/passwd")
        info.flag_bits |= flags
        info.file_size = size or info.file_size
    return path


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("/evil.jpg", {}),
        ("cifar/../../evil.jpg", {}),
        ("C:/evil.jpg", {}),
        ("..\\evil.jpg", {}),
        ("cifar/evil.jpg", {"mode": 0o120777}),
        ("cifar/evil.jpg", {"mode": 0o010644}),
        ("cifar/evil.jpg", {"mode": 0o020644}),
        ("cifar/evil.jpg", {"flags": 1}),
        ("cifar//good.jpg", {}),
        ("cifar/good.jpg/evil.jpg", {}),
    ],
    ids=str,
)
def test_an_evil_zip_is_refused_before_anything_is_written(
    name: str, facts: dict[str, int], tmp_path: Path
) -> None:
    source = evil_zip(tmp_path / "evil.zip", name, **facts)
    before = everything(tmp_path)
    message = refusal(source, tmp_path / "root")
    assert repr(name) in message or repr("cifar/good.jpg") in message
    assert everything(tmp_path) == sorted([*before, str(tmp_path / "root")])
    assert ("encrypted;" in message) == ("flags" in facts)


def test_an_evil_archive_inside_an_archive_is_refused(tmp_path: Path) -> None:
    evil = evil_zip(tmp_path / "e.zip", "../evil.jpg").read_bytes()
    source = pack(tmp_path / "outer.tar", {"a/cifar.zip": packed("c.zip", task(), tmp_path), "a/e.zip": evil})
    message = refusal(source, tmp_path / "root")
    assert "outer.tar: a/e.zip" in message
    assert "'../evil.jpg'" in message
    assert not list(tmp_path.rglob("evil.jpg"))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    message = refusal(evil_zip(tmp_path / "bomb.zip", "cifar/b.jpg", size=2**60), tmp_path / "root")
    assert f"{2**60 + 4:,} bytes unpacked" in message
    assert "free" in message


@pytest.mark.parametrize("kind", ["symlink", "folder symlink", "pipe"])
def test_links_and_pipes_in_a_folder_are_refused(kind: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "got", below("cifar", task()))
    if kind == "pipe":
        os.mkfifo(source / "cifar" / "odd")
    else:
        (source / "cifar" / "odd").symlink_to("/etc" if kind == "folder symlink" else "/etc/passwd")
    assert "'cifar/odd'" in refusal(source, tmp_path / "root")


# Damage


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_archive_is_refused_or_harmless(suffix: str, tmp_path: Path) -> None:
    """Cut anywhere, or one byte turned: a clear message, or all files whole (as when padding is hit)."""
    noise = {"cifar/noise": bytes((i * i * 37 >> 4) & 255 for i in range(9000))}
    files = below("cifar", task()) | noise
    whole = pack(tmp_path / f"a{suffix}", files).read_bytes()
    places = [len(whole) * k // 40 for k in range(40)] + [len(whole) - k for k in (1, 2, 4, 8, 16, 22)]
    damaged = [whole[:place] for place in places]
    if suffix != ".tar":  # has no checksum of its files
        damaged += [whole[:p] + bytes([whole[p] ^ 0x55]) + whole[p + 1 :] for p in places]
    messages: list[str] = []
    for i, data in enumerate(damaged):
        source = tmp_path / f"damaged{i}{suffix}"
        source.write_bytes(data)
        try:
            unpack(source, tmp_path / f"out{i}", silent)
        except UserError as error:
            messages.append(str(error))
        else:
            assert tree(tmp_path / f"out{i}") == files, (i, len(data))
    assert len(messages) >= len(damaged) * 0.7
    assert all(message.startswith(f"{tmp_path}/damaged") for message in messages)


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    """The standard library reads such an archive without a complaint, up to the cut."""
    files = {f"cifar/{i}": b"a" * 512 for i in range(4)}
    whole = pack(tmp_path / "a.tar", files).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:2048])
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert len(tar.getnames()) == 2
    message = refusal(tmp_path / "a.tar", tmp_path / "root")
    assert "damaged or incomplete" in message


def test_a_zip_whose_damaged_directory_hides_members_is_refused(tmp_path: Path) -> None:
    """The standard library takes the entries after a damaged comment length for the comment."""
    data = bytearray(packed("a.zip", below("cifar", task()), tmp_path))
    data[data.index(b"PK\1\2") + 33] = 0xFF  # the high byte of the first entry's comment length
    (tmp_path / "a.zip").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert len(archive.namelist()) == 1
    assert "directory is damaged" in refusal(tmp_path / "a.zip", tmp_path / "root")


@pytest.mark.parametrize(
    ("name", "said"),
    [("absent.zip", "no such archive"), ("a.rar", "known are .zip"), ("text.zip", "damaged or incomplete")],
)
def test_what_is_no_archive_is_said(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    (tmp_path / "text.zip").write_text("<html>quota exceeded</html>")
    message = refusal(tmp_path / name, tmp_path / "root")
    assert said in message
    assert name in message
    assert "\n" not in message
