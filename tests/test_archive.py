"""Archives from strangers, killed and crowded prepares, and a stand-in hub: real files, real processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from petl_bench.data.archive import SUFFIXES, unpack
from petl_bench.data.arrange import LOCK, STAGING, mend_lists, prepare
from petl_bench.errors import UserError
from tests.conftest import mounted, wait_until

FOLDERS = {
    "cifar": ["cifar-100", "cifar100"],
    "dtd": [],
    "few-shot/fgvc-aircraft": ["few-shot_split/fgvc-aircraft"],
    "fgvc_aircraft/images": ["fgvc-aircraft"],
}

Files = Mapping[str, bytes]


def task(count: int = 3, suffix: str = ".jpg") -> dict[str, bytes]:
    """A task folder in the exact layout; every image has bytes of its own."""
    files = {}
    for split in ("train800", "test"):
        names = [f"images/{split}/{i:06}{suffix}" for i in range(count)]
        files |= {name: name.encode() * 9 for name in names}
        files[f"{split}.txt"] = "".join(f"{name} {i}\n" for i, name in enumerate(names)).encode()
    return files


def below(folder: str, files: Files) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def everything(folder: Path) -> list[str]:
    """All names below a folder, of whatever kind, but for the lock."""
    return sorted(str(path) for path in folder.rglob("*") if path.name != LOCK)


def write_tree(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path: Path, files: Files) -> Path:
    """An archive of the kind that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    compression = {"tar": "", "tgz": "gz"}.get(path.name.rpartition(".")[2], path.name.rpartition(".")[2])
    with tarfile.open(path, f"w:{compression}") as tar:
        for name, data in files.items():
            add(tar, name, data, mode=0o600)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **attributes: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def packed(name: str, files: Files, folder: Path) -> bytes:
    """The bytes of an archive, to be put inside another."""
    return pack(folder / name, files).read_bytes()


def silent(_: str) -> None:
    pass


def refusal(source: Path, root: Path) -> str:
    """The message with which prepare refuses; the root stays empty but for the lock."""
    with pytest.raises(UserError) as error:
        prepare(source, root, FOLDERS, silent)
    assert everything(root) == []
    return str(error.value)


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


# Finding and placing


def test_variants_are_found_below_any_folders_and_moved(tmp_path: Path) -> None:
    lists, images = {"annotations/test_meta.list": b"1.jpg 0\n"}, {"1.jpg": b"1"}
    source = pack(
        tmp_path / "drive.zip",
        below("Data/VTAB-1k/CIFAR-100", task())
        | below("Data/few-shot_split/fgvc-aircraft", lists)
        | below("Data/fgvc-aircraft", images)
        | {"Data/other/readme.txt": b""},
    )
    placed = prepare(source, tmp_path / "root", FOLDERS, silent)
    assert sorted(placed) == ["cifar", "few-shot/fgvc-aircraft", "fgvc_aircraft/images"]
    assert tree(tmp_path / "root") == below("cifar", task()) | below("few-shot/fgvc-aircraft", lists) | below(
        "fgvc_aircraft/images", images
    )
    assert not (tmp_path / "root" / STAGING).exists()


def test_an_enclosing_folder_of_the_same_name_is_not_taken_for_the_data(tmp_path: Path) -> None:
    source = pack(tmp_path / "cifar.zip", below("cifar", task()) | {"readme.txt": b"two things at the top"})
    assert prepare(source, tmp_path / "root", FOLDERS, silent) == ["cifar"]
    assert tree(tmp_path / "root") == below("cifar", task())


def test_the_archive_may_be_the_task_folder_itself(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "cifar100", task())
    assert prepare(source, tmp_path / "root", FOLDERS, silent) == ["cifar"]
    assert tree(tmp_path / "root") == below("cifar", task())
    assert tree(source) == task()


def test_what_is_in_the_root_stays(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"cifar/mine.txt": b"mine"})
    source = pack(tmp_path / "a.zip", below("cifar", task()) | below("dtd", task()))
    said: list[str] = []
    assert prepare(source, root, FOLDERS, said.append) == ["dtd"]
    assert tree(root) == {"cifar/mine.txt": b"mine"} | below("dtd", task())
    assert [line for line in said if "left alone" in line] == [
        f"{root / 'cifar'}: is there already, left alone"
    ]
    assert prepare(tmp_path / "absent.zip", root, {"cifar": [], "dtd": []}, silent) == []


def test_nothing_found_names_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    source = pack(tmp_path / "a.zip", {"data/mnist/1.jpg": b"", "data/svhn/1.jpg": b""})
    message = refusal(source, tmp_path / "root")
    assert all(name in message for name in (*FOLDERS, "data/mnist", "data/svhn"))


def test_a_folder_found_twice_is_refused(tmp_path: Path) -> None:
    source = pack(tmp_path / "a.zip", below("x/cifar", task()) | below("y/cifar100", task()))
    assert "a/x/cifar and a/y/cifar100" in refusal(source, tmp_path / "root")


def test_an_archive_folder_around_the_root_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, below("cifar", task()))
    assert "overlap" in refusal(tmp_path, tmp_path / "root")


# Lists

EXACT = b"images/test/000000.jpg 0\nimages/test/000001.jpg 1\nimages/test/000002.jpg 2\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b".jpg", b".png"),
        lambda text: text.replace(b"images/", b"cifar/images/"),
        lambda text: text.replace(b"images/", b"./images/"),
        lambda text: text.replace(b"images/", b""),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: (
            text.replace(b"\n", b"\r\n").replace(b"images/", b"/home/a b/vtab/").replace(b"jpg", b"png")
        ),
    ],
    ids=["suffix", "folder", "dot", "no images", "CRLF", "all"],
)
def test_a_list_that_is_certain_is_mended(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    files = task()
    assert files["test.txt"] == EXACT
    source = write_tree(tmp_path / "got", below("cifar", files | {"test.txt": change(EXACT)}))
    said: list[str] = []
    prepare(source, tmp_path / "root", FOLDERS, said.append)
    assert tree(tmp_path / "root") == below("cifar", files)
    assert [line.partition(":")[0] for line in said if "rewritten" in line] == ["cifar/test.txt"]
    assert (source / "cifar/test.txt").read_bytes() == change(EXACT)


def test_lists_that_say_jpg_follow_files_that_are_png(tmp_path: Path) -> None:
    files = task(suffix=".png")
    jpg = {name: d.replace(b".png", b".jpg") if name.endswith("txt") else d for name, d in files.items()}
    prepare(pack(tmp_path / "a.zip", below("cifar", jpg)), tmp_path / "root", FOLDERS, silent)
    assert tree(tmp_path / "root") == below("cifar", files)


@pytest.mark.parametrize(
    "text",
    [
        EXACT,
        EXACT.rstrip(),
        EXACT.replace(b".jpg", b".png") + b"images/test/000009.png 3\n",
        EXACT.replace(b".jpg", b".png") + b"images/test/000002.png three\n",
        b"old/test/000000.jpg 0\r\n",
        b"",
        b"\xff\xfe\x00\n",
    ],
    ids=["right", "no last newline", "one missing", "no label", "names another file", "empty", "no text"],
)
def test_a_list_that_is_right_or_uncertain_stays(text: bytes, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "cifar", task() | {"test.txt": text, "old/test/000000.jpg": b""})
    said: list[str] = []
    mend_lists(folder, "cifar", said.append)
    assert (folder / "test.txt").read_bytes() == text
    assert said == []


# Processes

SCRIPT = """
import json, sys
from pathlib import Path
from petl_bench.data import arrange, hub
source, root, folders = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
def report(line): print(line, file=sys.stderr, flush=True)
try:
    if source.startswith("hub:"):
        placed = hub.prepare_from_hub(source[4:], root, folders, report)
    elif source.startswith("fetch:"):
        placed = hub.fetch(source[6:], root, report)
    else:
        placed = arrange.prepare(Path(source), root, folders, report)
except arrange.UserError as error:
    sys.exit(f"UserError: {error}")
print(json.dumps(placed))
"""


def start(source: object, root: Path, **environment: str) -> subprocess.Popen[str]:
    """prepare, fetch or prepare_from_hub in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(root), json.dumps(FOLDERS)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_prepare_places_nothing_half_and_the_next_completes(tmp_path: Path) -> None:
    files = below("vtab-1k/cifar", task(4000)) | below("vtab-1k/dtd", task(4000))
    source, root = pack(tmp_path / "a.tar", files), tmp_path / "root"
    process = start(source, root)
    wait_until(
        lambda: any((root / STAGING).glob("vtab-1k/cifar/images/*/*.jpg")) or process.poll() is not None
    )
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert set(os.listdir(root)) <= {STAGING, LOCK}
    assert 0 < len(tree(root / STAGING)) < len(files)
    said: list[str] = []
    assert sorted(prepare(source, root, FOLDERS, said.append)) == ["cifar", "dtd"]
    assert tree(root) == below("cifar", task(4000)) | below("dtd", task(4000))
    assert any("interrupted" in line for line in said)
    assert not (root / STAGING).exists()


def test_two_prepares_on_one_root_take_turns(tmp_path: Path) -> None:
    source, root = pack(tmp_path / "a.zip", below("cifar", task()) | below("dtd", task())), tmp_path / "root"
    root.mkdir()
    with FileLock(root / LOCK):
        processes = [start(source, root) for _ in range(2)]
        for process in processes:
            assert process.stderr is not None
            assert "waiting" in process.stderr.readline()
        assert everything(root) == []
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert sorted(len(json.loads(out)) for out, _ in results) == [0, 2]
    assert tree(root) == below("cifar", task()) | below("dtd", task())


@pytest.fixture
def small_root(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, sixteen pages."""
    yield from mounted(tmp_path / "root", "size=64k")


def test_a_full_disk_leaves_no_staging_folder(small_root: Path, tmp_path: Path) -> None:
    files = {f"cifar/images/test/{i}.jpg": b"a page each" for i in range(40)}
    message = refusal(pack(tmp_path / "a.zip", files), small_root)
    assert "the disk is full" in message
    assert str(small_root) in message


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file, not a folder")
    with pytest.raises(FileExistsError):
        prepare(pack(tmp_path / "a.zip", below("cifar", task())), tmp_path / "root", FOLDERS, silent)


# The hub

COMMIT = "5" * 40


class Hub(ThreadingHTTPServer):
    """What huggingface_hub 2.4 asks for a snapshot: the repository, its tree, HEAD and GET of files."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Files]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories = repositories
        self.broken: set[str] = set()
        """Files whose GET answers 500."""
        self.cut: set[str] = set()
        """Files whose first GET ends half way."""
        self.gets: list[tuple[str, str | None]] = []
        """Files that were asked for, with the range."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        kind, _, path = self.path.partition("?")[0].lstrip("/").removeprefix("api/").partition("/")
        repo, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        if repo == "some/gated":
            self.answer(403, X_Error_Code="GatedRepo")
        elif repo == "some/private":
            self.answer(401)
        elif kind != "datasets" or repo not in self.server.repositories:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif rest[:1] == ["resolve"]:
            self.file("/".join(rest[2:]), self.server.repositories[repo])
        else:
            self.facts(repo, rest[:1] == ["tree"])

    do_HEAD = do_GET

    def facts(self, repo: str, as_tree: bool) -> None:
        files = self.server.repositories[repo]
        entries = [
            {"type": "file", "path": n, "size": len(d), "oid": f"{len(d):040}"} for n, d in files.items()
        ]
        siblings = [{"rfilename": name} for name in files]
        info = {"id": repo, "sha": COMMIT, "siblings": siblings}
        self.answer(200, json.dumps(entries if as_tree else info).encode(), Content_Type="application/json")

    def file(self, name: str, files: Files) -> None:
        data, span = files[name], self.headers.get("Range")
        headers = {"ETag": f'"{len(data):040}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        if self.command == "GET":
            self.server.gets.append((name, span))
            if name in self.server.broken:
                self.answer(500)
                return
            if name in self.server.cut:
                self.server.cut.remove(name)
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
        if span is not None:
            first = int(span.removeprefix("bytes=").partition("-")[0])
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[first:], **headers)
        else:
            self.answer(200, data, **headers)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    archive = packed("vtab-1k.zip", below("vtab-1k/cifar", task()) | below("vtab-1k/dtd", task()), tmp_path)
    with Hub({"owner/vtab": {"README.md": b"facts", "data/vtab-1k.zip": archive}}) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(source: str, target: Path, hub: Hub | str, **environment: str) -> tuple[str, str]:
    """stdout and stderr of a process with this hub as its HF_ENDPOINT and a cache of its own."""
    url = hub if isinstance(hub, str) else hub.url
    home = str(target.parent / "hf-home")
    process = start(
        source, target, HF_ENDPOINT=url, HF_HOME=home, HF_TOKEN="", NO_PROXY="127.0.0.1", **environment
    )
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    assert (process.returncode == 0) == ("UserError" not in err)
    return out, err


def test_a_data_set_of_the_hub_is_downloaded_and_placed(hub: Hub, tmp_path: Path) -> None:
    out, err = ask("hub:owner/vtab", tmp_path / "root", hub)
    assert sorted(json.loads(out)) == ["cifar", "dtd"], err
    assert tree(tmp_path / "root") == below("cifar", task()) | below("dtd", task())
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"cifar", "dtd", LOCK}


def test_a_broken_download_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.broken.add("data/vtab-1k.zip")
    _, err = ask("fetch:owner/vtab", tmp_path / "got", hub)
    assert "the download failed" in err
    assert hub.url in err
    assert tree(tmp_path / "got")["README.md"] == b"facts"
    hub.broken.clear()
    hub.gets.clear()
    _, err = ask("fetch:owner/vtab", tmp_path / "got", hub)
    assert (tmp_path / "got/data/vtab-1k.zip").read_bytes() == (tmp_path / "vtab-1k.zip").read_bytes(), err
    assert [name for name, _ in hub.gets] == ["data/vtab-1k.zip"]


def test_a_connection_cut_in_a_file_goes_on_from_there(hub: Hub, tmp_path: Path) -> None:
    large = bytes(range(256)) * (21 << 12)  # 21 MiB: the client keeps what it has in pieces of 10 MiB
    hub.repositories = {"owner/large": {"large": large}}
    hub.cut.add("large")
    _, err = ask("fetch:owner/large", tmp_path / "got", hub)
    assert (tmp_path / "got/large").read_bytes() == large, err
    assert hub.gets == [("large", None), ("large", f"bytes={10 << 20}-")]


def test_a_half_filled_folder_is_not_passed_off_as_complete(hub: Hub, tmp_path: Path) -> None:
    """snapshot_download alone returns such a folder, with a warning, when the hub cannot be reached."""
    write_tree(tmp_path / "got", {"README.md": b"facts"})
    _, err = ask("fetch:owner/vtab", tmp_path / "got", "http://127.0.0.1:9")
    assert "UserError" in err


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("owner/absent", "no such data set"),
        ("some/gated", "it is gated"),
        ("some/private", "hf auth login"),
        ("no//name", "owner/name"),
    ],
)
def test_a_repository_that_is_not_given_out_is_one_clear_message(
    repo: str, said: str, hub: Hub, tmp_path: Path
) -> None:
    _, err = ask(f"hub:{repo}", tmp_path / "root", hub)
    message = err.partition("UserError: ")[2]
    assert said in message
    assert repo in message
    assert message.count("\n") == 1


def test_a_hub_that_cannot_be_reached_is_one_clear_message(tmp_path: Path) -> None:
    _, err = ask("hub:owner/vtab", tmp_path / "root", "http://127.0.0.1:9")
    message = err.partition("UserError: ")[2]
    assert "http://127.0.0.1:9" in message
    assert "HF_ENDPOINT" in message
    assert "ConnectError" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "root" / STAGING).exists()
