"""`prepare`: folders found and placed, lists mended; killed and crowded prepares in real processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from petl_bench.data.prepare import LOCK, STAGING, mend_lists, prepare
from tests.archives import (
    FOLDERS,
    below,
    everything,
    pack,
    refusal,
    silent,
    start,
    task,
    tree,
    write_tree,
)
from tests.conftest import mounted
from tests.processes import wait_until

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
        f"{root / 'cifar'}: exists already, left alone"
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


def test_a_killed_prepare_places_nothing_half_and_the_next_completes(tmp_path: Path) -> None:
    files = below("vtab-1k/cifar", task(2000)) | below("vtab-1k/dtd", task(2000))
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
    assert tree(root) == below("cifar", task(2000)) | below("dtd", task(2000))
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
