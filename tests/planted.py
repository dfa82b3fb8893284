"""Faults that are planted in a clean tree, for tests of `petl-bench data verify`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.verifying import (
    BOTH,
    LISTS,
    TEST,
    TESTS,
    TRAIN,
    TRAINS,
    VAL,
    VALS,
    copy_over,
    edit,
    label,
    new_image,
    swap,
    write,
)

CLASSES = 47  # of dtd


@dataclass(frozen=True)
class Planted:
    """A change of dtd's folder, and what must be found.

    Attributes:
        plant: makes the change.
        finds: split, kind, path below dtd's folder and a pattern of the message, of each problem ...
        also: ... but for those of these kinds, which follow from it in any number.
    """

    plant: Callable[[Path], object]
    finds: list[tuple[str, str, str, str]]
    also: set[str] = field(default_factory=set)


def malformed(line: str) -> Planted:
    """The fourth line of train800.txt is this, so that nothing lists 000003.jpg any more."""
    return Planted(
        lambda task: edit(task / "train800.txt", lambda lines: [*lines[:3], line, *lines[4:]]),
        [
            (
                TRAIN,
                "malformed_line",
                "train800.txt",
                "line 4 .*label.*" + re.escape(line[:30]),
            ),
            (TRAIN, "count", "train800.txt", f"{TRAINS - 1} images.* {TRAINS}"),
            (TRAIN, "extra_file", "images/train800/000003.jpg", "no list names"),
        ],
    )


def escaping(path: str) -> Planted:
    """The fourth line of train800.txt names a file elsewhere, which is there."""

    def plant(task: Path) -> None:
        new_image(task.parents[1] / "outside.jpg")
        line = path.replace("OUTSIDE", str(task.parents[1])) + " 3"
        edit(task / "train800.txt", lambda lines: [*lines[:3], line, *lines[4:]])

    return Planted(
        plant,
        [
            (TRAIN, "escaping_path", "train800.txt", "line 4 leads out of the data folder.*outside.jpg 3"),
            (TRAIN, "count", "train800.txt", f"{TRAINS - 1} images.* {TRAINS}"),
            (TRAIN, "extra_file", "images/train800/000003.jpg", "no list names"),
        ],
    )


def broken(change: Callable[[bytes], bytes], message: str) -> Planted:
    """A test image with other bytes."""
    path = "images/test/000007.jpg"
    return Planted(
        lambda task: write(task / path, change((task / path).read_bytes())),
        [(TEST, "undecodable", path, message)],
    )


def relabelled(line: int, new: int) -> Planted:
    """A label of test.txt."""
    pattern = (
        rf"1 label.* out of range(?=[^;]* {new}\b)(?=[^;]*images/test/{line:06d}\.jpg)"
        rf".*{CLASSES} classes are 0 to {CLASSES - 1}"
    )
    return Planted(
        lambda task: edit(
            task / "test.txt", lambda lines: [*lines[:line], label(lines[line], new), *lines[line + 1 :]]
        ),
        [(TEST, "label_range", "test.txt", pattern)],
    )


def link_out(task: Path) -> None:
    path, outside = task / "images/train800/000005.jpg", task.parents[1] / "outside.jpg"
    path.rename(outside)
    path.symlink_to(outside)


def dangling(task: Path) -> None:
    path = task / "images/train800/000005.jpg"
    path.unlink()
    path.symlink_to(task.parents[1] / "nowhere.jpg")


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


PLANTED = {
    "missing file": Planted(
        lambda task: (task / "images/train800/000005.jpg").unlink(),
        [(TRAIN, "missing_file", "images/train800/000005.jpg", "is not there, train800.txt lists it")],
    ),
    "missing test file": Planted(
        lambda task: (task / "images/test/000093.jpg").unlink(),
        [(TEST, "missing_file", "images/test/000093.jpg", "is not there, test.txt lists it")],
    ),
    "missing list": Planted(
        lambda task: (task / "val200.txt").unlink(),
        [(VAL, "missing_list", "val200.txt", "not there")],
        also={"extra_file"},  # of images/val200/
    ),
    "empty list": Planted(
        lambda task: write(task / "val200.txt", b""),
        [(VAL, "empty_list", "val200.txt", "empty")],
        also={"extra_file"},
    ),
    "list of no text": Planted(
        lambda task: write(task / "val200.txt", bytes(range(128, 256))),
        [(VAL, "unreadable_list", "val200.txt", "cannot be read")],
        also={"extra_file"},
    ),
    "extra line without a file": Planted(
        lambda task: edit(task / "train800.txt", lambda lines: [*lines, "images/train800/000800.jpg 3"]),
        [
            (TRAIN, "count", "train800.txt", f"{TRAINS + 1} images.* {TRAINS}"),
            (TRAIN, "missing_file", "images/train800/000800.jpg", "is not there, train800.txt lists it"),
        ],
    ),
    "extra line with its file": Planted(
        lambda task: (
            new_image(task / "images/test/000094.jpg"),
            edit(task / "test.txt", lambda lines: [*lines, "images/test/000094.jpg 3"]),
        ),
        [(TEST, "count", "test.txt", f"{TESTS + 1} images.* {TESTS}")],
    ),
    "repeated line": Planted(
        lambda task: edit(task / "test.txt", lambda lines: [*lines, lines[4]]),
        [
            (TEST, "count", "test.txt", f"{TESTS + 1} images.* {TESTS}"),
            (TEST, "repeated_line", "test.txt", r"images/test/000004\.jpg 2 times"),
        ],
    ),
    "line in the place of another": Planted(
        lambda task: edit(task / "test.txt", lambda lines: [*lines[:-1], lines[4]]),
        [
            (TEST, "repeated_line", "test.txt", r"images/test/000004\.jpg 2 times"),
            (TEST, "extra_file", "images/test/000093.jpg", "no list names"),
        ],
    ),
    "label too big": relabelled(8, CLASSES),
    "label negative": relabelled(9, -1),
    "line without a label": malformed("images/train800/000003.jpg"),
    "label of letters": malformed("images/train800/000003.jpg three"),
    "label with a point": malformed("images/train800/000003.jpg 3.0"),
    "label without a file": malformed("3"),
    "blank line": malformed(""),
    "truncated": broken(lambda data: data[:-60], "cannot be decoded: .*truncated"),
    "cut in its header": broken(lambda data: data[:30], "decoded|recognized"),
    "text": broken(lambda data: b"This image has moved.", "no image that can be recognized"),
    "empty file": broken(lambda data: b"", "empty|no image"),
    "test image in train": Planted(
        lambda task: copy_over(task, "images/test/000004.jpg", TRAIN, 5),
        [
            (
                TEST,
                "duplicate",
                "images/test/000004.jpg",
                r"same image as images/train800(val200)?/000005\.jpg",
            )
        ],
    ),
    "test image in val": Planted(
        lambda task: copy_over(task, "images/test/000004.jpg", VAL, 5),
        [
            (
                TEST,
                "duplicate",
                "images/test/000004.jpg",
                rf"same image as images/(val200/000005|train800val200/{TRAINS + 5:06d})\.jpg",
            )
        ],
    ),
    "val image in train": Planted(
        lambda task: copy_over(task, "images/val200/000004.jpg", TRAIN, 5),
        [(VAL, "duplicate", "images/val200/000004.jpg", r"same image as images/train800/000005\.jpg")],
    ),
    "train and val lists swapped": Planted(
        lambda task: swap(task / "train800.txt", task / "val200.txt"),
        [
            (TRAIN, "swapped_lists", "train800.txt", f"{VALS} of {VALS} lines .*images/val200/.*swapped"),
            (VAL, "swapped_lists", "val200.txt", f"{TRAINS} of {TRAINS} lines .*images/train800/.*swapped"),
            (TRAIN, "count", "train800.txt", f"{VALS} images.* {TRAINS}"),
            (VAL, "count", "val200.txt", f"{TRAINS} images.* {VALS}"),
        ],
    ),
    "train and test lists swapped": Planted(
        lambda task: swap(task / "train800.txt", task / "test.txt"),
        [
            (TRAIN, "swapped_lists", "train800.txt", f"{TESTS} of {TESTS} lines .*images/test/.*swapped"),
            (TEST, "swapped_lists", "test.txt", f"{TRAINS} of {TRAINS} lines .*images/train800/.*swapped"),
            (TRAIN, "count", "train800.txt", f"{TESTS} images.* {TRAINS}"),
            (TEST, "count", "test.txt", f"{TRAINS} images.* {TESTS}"),
        ],
        also={"duplicate", "trainval_differs"},  # what test now lists is in train800val200 too
    ),
    "a line of another split's folder": Planted(
        lambda task: edit(
            task / "val200.txt",
            lambda lines: [f"images/train800val200/{TRAINS:06d}.jpg {TRAINS % CLASSES}", *lines[1:]],
        ),
        [
            (VAL, "swapped_lists", "val200.txt", f"1 of {VALS} lines .*images/train800val200/"),
            (VAL, "extra_file", "images/val200/000000.jpg", "no list names"),
        ],
        # it is the same image in VTAB's union, and of the same class
    ),
    "folder of no split": Planted(
        lambda task: (
            (task / "pictures").mkdir(),
            (task / "images/test/000000.jpg").rename(task / "pictures/0.jpg"),
            edit(task / "test.txt", lambda lines: [f"pictures/0.jpg {lines[0].split()[1]}", *lines[1:]]),
        ),
        [(TEST, "wrong_folder", "test.txt", "1 of 94 lines .*pictures/.*images/test/")],
    ),
    "path that climbs": escaping("../../outside.jpg"),
    "path that goes in and climbs": escaping("images/train800/../../../../outside.jpg"),
    "absolute path": escaping("OUTSIDE/outside.jpg"),
    "path of another system": escaping(r"..\..\outside.jpg"),
    "link that leads out": Planted(
        link_out, [(TRAIN, "escaping_path", "images/train800/000005.jpg", "links out of the data folder")]
    ),
    "link that leads nowhere": Planted(
        dangling,
        [
            (TRAIN, "escaping_path", "images/train800/000005.jpg", "links out of the data folder"),
            (TRAIN, "missing_file", "images/train800/000005.jpg", "is not there"),
        ],
    ),
    "extra file": Planted(
        lambda task: new_image(task / "images/val200/extra.jpg"),
        [(VAL, "extra_file", "images/val200/extra.jpg", "no list names this file")],
    ),
    "empty folder": Planted(
        lambda task: emptied(task / "images/test"),
        [(TEST, "empty_folder", "images/test", "the folder is empty")],
        also={"missing_file"},
    ),
    "missing folder": Planted(
        lambda task: shutil.rmtree(task / "images/test"),
        [(TEST, "missing_folder", "images/test", "the folder is not there")],
        also={"missing_file"},
    ),
    "folder without anything": Planted(
        emptied,
        [
            *((split, "missing_list", f"{name}.txt", "not there") for split, name in LISTS.items()),
            *((split, "missing_folder", f"images/{name}", "not there") for split, name in LISTS.items()),
        ],
    ),
    "other image in train800val200": Planted(
        lambda task: new_image(task / "images/train800val200/000005.jpg"),
        [(BOTH, "trainval_differs", "train800val200.txt", "lacks 1 of the images")],
    ),
    "other label in train800val200": Planted(
        lambda task: edit(
            task / "train800val200.txt", lambda lines: [label(lines[0], 1), label(lines[1], 0), *lines[2:]]
        ),
        [(BOTH, "trainval_differs", "train800val200.txt", "lacks 2 of the images.*labels")],
    ),
    "train800val200 short of a line": Planted(
        lambda task: edit(task / "train800val200.txt", lambda lines: lines[:-1]),
        [
            (BOTH, "count", "train800val200.txt", f"{TRAINS + VALS - 1} images.* {TRAINS + VALS}"),
            (BOTH, "trainval_differs", "train800val200.txt", "lacks 1 of the images"),
            (BOTH, "extra_file", f"images/train800val200/{TRAINS + VALS - 1:06d}.jpg", "no list names"),
        ],
    ),
}
