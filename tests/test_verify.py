"""`petl-bench data verify`: a clean tree passes with its facts, and every planted fault is named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from petl_bench.config import manifests, plan_task
from petl_bench.data import settle
from petl_bench.data.files import look
from petl_bench.data.lists import read_list
from petl_bench.types import Cache
from tests.conftest import error_of, json_lines, quickly
from tests.trees import few_shot, picture, save, vtab, vtab_task

GOLDEN = Path(os.environ.get("PETL_BENCH_GOLDEN", Path(__file__).parents[2] / "shared/golden"))
golden = pytest.mark.skipif(
    not (GOLDEN / "noah-few-shot").is_dir(), reason=f"no circulated few-shot lists in {GOLDEN}"
)

TRAIN, VAL, BOTH, TEST = "train", "val", "trainval", "test"
LISTS = {TRAIN: "train800", VAL: "val200", BOTH: "train800val200", TEST: "test"}
CLASSES = 47  # of dtd
TESTS = 94  # two of each class of dtd, as tests.trees makes them


def verify(
    suite: str, root: Path, cache: Path, override: Path | None = None, json: bool = True
) -> subprocess.CompletedProcess[str]:
    """The real command, in this process: a hundred times the two seconds of a new one are too many."""
    more = [*(["--override", override] if override else []), *(["--json"] if json else [])]
    return quickly("data", "verify", suite, "--root", root, *more, PETL_BENCH_CACHE=str(cache))


def found(done: subprocess.CompletedProcess[str]) -> tuple[list[dict], dict]:
    """Problems and summary of --json, which agree with each other, the exit code and the note on stderr."""
    assert done.stdout, done.stderr
    *problems, summary = json_lines(done.stdout)
    assert summary["summary"] is True
    assert all(set(problem) == {"task", "split", "kind", "path", "message"} for problem in problems)
    assert all(problem["message"] and problem["kind"] and problem["path"] for problem in problems)
    assert summary["ok"] is not bool(problems)
    assert done.returncode == (1 if problems else 0), done.stderr
    assert ("problem" in done.stderr) is bool(problems)
    assert "Traceback" not in done.stderr
    return problems, summary


def kinds(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {problem["kind"] for problem in found(done)[0]}


def settings(root: Path, override: Path | str = "") -> dict:
    return {"root": str(root), "override": str(override), "images": 1000}


# Changes of a copy whose files are links to the originals: none is written through


def copy_of(tree: Path, target: Path) -> Path:
    return Path(shutil.copytree(tree, target, copy_function=os.link))


def write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """New lines for a list file."""
    lines = change(path.read_text().splitlines())
    write(path, "".join(f"{line}\n" for line in lines).encode())


def swap(first: Path, second: Path) -> None:
    """The contents of two files, exchanged."""
    one, other = first.read_bytes(), second.read_bytes()
    write(first, other)
    write(second, one)


def new_image(path: Path, number: int = 999_999) -> None:
    path.unlink(missing_ok=True)
    save(picture(0, number, 24), path)


def copy_over(task: Path, source: str, split: str, number: int) -> None:
    """The bytes of a file put in the place of a training image, in the folder of both lists too."""
    data = (task / source).read_bytes()
    write(task / f"images/{LISTS[split]}/{number:06d}.jpg", data)
    whole = number if split == TRAIN else 800 + number
    write(task / f"images/train800val200/{whole:06d}.jpg", data)


def label(line: str, new: object) -> str:
    return f"{line.rpartition(' ')[0]} {new}"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """dtd in JPEG and svhn in PNG, and the file that says how small their test sets are."""
    root = tmp_path_factory.mktemp("clean") / "root"
    return root, vtab(root, [manifests()["vtab_dtd"], manifests()["vtab_svhn"]])


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all checks of this module: what is kept there may not hide a fault."""
    return tmp_path_factory.mktemp("cache")


# A clean tree


def test_a_clean_tree_passes_and_its_facts_are_told(clean: tuple[Path, Path], warm: Path) -> None:
    root, override = clean
    tasks = {}
    for name in ("vtab_dtd", "vtab_svhn"):
        problems, summary = found(verify(name, root, warm, override))
        assert problems == []
        assert {k: v for k, v in summary.items() if k != "tasks"} == {
            "summary": True,
            "suite": name,
            "root": str(root),
            "ok": True,
            "problems": 0,
        }
        (tasks[name],) = summary["tasks"]
    expected = {
        # 1000 training images, the same once more in the folder of both, and the test images;
        # tests.trees saves JPEG at quality 90.
        "vtab_dtd": {"images": 2000 + TESTS, "formats": {"JPEG": 2000 + TESTS}, "jpeg_quality": [90, 90, 90]},
        "vtab_svhn": {"images": 2020, "formats": {"PNG": 2020}, "jpeg_quality": []},
    }
    for name, facts in expected.items():
        settled = settle(plan_task(name, settings(root, override)), Cache(str(warm)))
        facts |= {"task": name, "fingerprint": settled.fingerprint, "notes": [], "problems": 0}
        assert tasks[name] == facts
    assert tasks["vtab_dtd"]["fingerprint"] != tasks["vtab_svhn"]["fingerprint"]


def test_the_table_has_a_line_for_each_task(clean: tuple[Path, Path], warm: Path) -> None:
    root, override = clean
    done = verify("vtab_[ds][tv]*", root, warm, override, json=False)  # a pattern: dtd and svhn
    assert (done.returncode, done.stderr) == (0, "")
    for name, formats, quality in (("vtab_dtd", "JPEG 100%", "90..90..90"), ("vtab_svhn", "PNG 100%", "-")):
        fingerprint = settle(plan_task(name, settings(root, override)), Cache(str(warm))).fingerprint
        (line,) = [line for line in done.stdout.splitlines() if name in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells[0] == name
        assert cells[2:] == [formats, quality, fingerprint[:16], "0"]


def test_the_fingerprint_is_of_the_content_alone(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    def fingerprint() -> str:
        return found(verify("vtab_dtd", root, warm, override))[1]["tasks"][0]["fingerprint"]

    override = clean[1]
    root = copy_of(clean[0], tmp_path / "elsewhere")
    first = settle(plan_task("vtab_dtd", settings(*clean)), Cache(str(warm))).fingerprint
    assert fingerprint() == first
    new_image(root / "dtd/images/test/000003.jpg")
    assert fingerprint() != first
    edit(root / "dtd/test.txt", lambda lines: [label(lines[0], 1), *lines[1:]])
    second = fingerprint()
    edit(root / "dtd/test.txt", lambda lines: [label(lines[0], 2), *lines[1:]])
    assert fingerprint() != second


def test_formats_and_quality_are_told_where_they_are_mixed(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    # As in a copy whose PNG files someone made JPEG files of: 10 files at quality 35, one at 98, 20 PNG.
    root = copy_of(clean[0], tmp_path / "root")
    task = root / "dtd"
    for number, quality in enumerate([35] * 10 + [98]):
        path = task / f"images/test/{number:06d}.jpg"
        path.unlink()
        picture(0, 5000 + number, 24).save(path, quality=quality)
    for number in range(20, 40):
        old = task / f"images/test/{number:06d}.jpg"
        save(Image.open(old), old.with_suffix(".png"))
        old.unlink()
    edit(
        task / "test.txt",
        lambda lines: lines[:20] + [line.replace(".jpg", ".png") for line in lines[20:40]] + lines[40:],
    )
    problems, summary = found(verify("vtab_dtd", root, warm, clean[1]))
    assert problems == []
    assert summary["tasks"][0]["formats"] == {"JPEG": 2000 + TESTS - 20, "PNG": 20}
    assert summary["tasks"][0]["jpeg_quality"] == [35, 90, 98]
    human = verify("vtab_dtd", root, warm, clean[1], json=False).stdout
    assert "JPEG 99%, PNG 1%" in human  # 20 of 2094
    assert "35..90..98" in human


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_quality_is_what_pillow_was_told(tmp_path: Path, mode: str) -> None:
    image = picture(3, 7, 16).convert(mode)
    estimates = {}
    for quality in range(1, 101):
        image.save(tmp_path / f"{quality}.jpg", quality=quality)
        estimates[quality] = look(tmp_path / f"{quality}.jpg", decode=False).quality
    assert estimates == {quality: quality for quality in range(1, 101)}


def test_a_link_within_the_root_and_hidden_files_are_no_fault(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    root = copy_of(clean[0], tmp_path / "root")
    linked = root / "dtd/images/train800val200/000005.jpg"
    linked.unlink()
    linked.symlink_to("../train800/000005.jpg")
    (root / "dtd/images/test/.DS_Store").write_text("of a file manager")
    assert kinds(verify("vtab_dtd", root, warm, clean[1])) == set()


# Planted faults


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
            (TRAIN, "count", "train800.txt", "799 images.* 800"),
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
            (TRAIN, "count", "train800.txt", "799 images.* 800"),
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


def without_a_class(task: Path) -> None:
    """What was of class 46 in training is of class 45, in all three lists alike."""
    for split in (TRAIN, VAL, BOTH):
        edit(
            task / f"{LISTS[split]}.txt",
            lambda lines: [label(line, 45) if line.endswith(" 46") else line for line in lines],
        )


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
            (TRAIN, "count", "train800.txt", "801 images.* 800"),
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
                r"same image as images/(val200/000005|train800val200/000805)\.jpg",
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
            (TRAIN, "swapped_lists", "train800.txt", "200 of 200 lines .*images/val200/.*swapped"),
            (VAL, "swapped_lists", "val200.txt", "800 of 800 lines .*images/train800/.*swapped"),
            (TRAIN, "count", "train800.txt", "200 images.* 800"),
            (VAL, "count", "val200.txt", "800 images.* 200"),
        ],
    ),
    "train and test lists swapped": Planted(
        lambda task: swap(task / "train800.txt", task / "test.txt"),
        [
            (TRAIN, "swapped_lists", "train800.txt", f"{TESTS} of {TESTS} lines .*images/test/.*swapped"),
            (TEST, "swapped_lists", "test.txt", "800 of 800 lines .*images/train800/.*swapped"),
            (TRAIN, "count", "train800.txt", f"{TESTS} images.* 800"),
            (TEST, "count", "test.txt", f"800 images.* {TESTS}"),
        ],
        also={"duplicate", "trainval_differs"},  # what test now lists is in train800val200 too
    ),
    "a line of another split's folder": Planted(
        lambda task: edit(
            task / "val200.txt", lambda lines: ["images/train800val200/000800.jpg 1", *lines[1:]]
        ),
        [
            (VAL, "swapped_lists", "val200.txt", "1 of 200 lines .*images/train800val200/"),
            (VAL, "extra_file", "images/val200/000000.jpg", "no list names"),
        ],
        # labels count in VTAB's union: image 800 is of class 800 % 47 = 1, so it does not differ
    ),
    "folder of no split": Planted(
        lambda task: (
            (task / "pictures").mkdir(),
            (task / "images/test/000000.jpg").rename(task / "pictures/0.jpg"),
            edit(task / "test.txt", lambda lines: [f"pictures/0.jpg {lines[0].split()[1]}", *lines[1:]]),
        ),
        [(TEST, "wrong_folder", "test.txt", "1 of 94 lines .*pictures/.*images/test/")],
    ),
    "class missing": Planted(
        without_a_class,
        [(BOTH, "class_coverage", "train800val200.txt", "46 classes.* 47: wrong class count")],
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
            (BOTH, "count", "train800val200.txt", "999 images.* 1000"),
            (BOTH, "trainval_differs", "train800val200.txt", "lacks 1 of the images"),
            (BOTH, "extra_file", "images/train800val200/000999.jpg", "no list names"),
        ],
    ),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=list(PLANTED))
def test_a_planted_fault_is_named(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path, planted: Planted
) -> None:
    root = tmp_path / "root"
    copy_of(clean[0] / "dtd", root / "dtd")
    planted.plant(root / "dtd")
    problems, summary = found(verify("vtab_dtd", root, warm, clean[1]))
    assert {problem["task"] for problem in problems} == {"vtab_dtd"}
    told = [problem for problem in problems if problem["kind"] not in planted.also]
    places = Counter((p["split"], p["kind"], p["path"]) for p in told)
    assert places == Counter(
        (split, kind, str(root / "dtd" / path)) for split, kind, path, _ in planted.finds
    )
    for split, kind, _, pattern in planted.finds:
        messages = [p["message"] for p in told if (p["split"], p["kind"]) == (split, kind)]
        assert any(re.search(pattern, message) for message in messages), messages
    assert summary["problems"] == len(problems)
    assert [task["problems"] for task in summary["tasks"]] == [len(problems)]


def test_no_plant_has_written_through_to_the_originals(clean: tuple[Path, Path], tmp_path: Path) -> None:
    # Runs after those above: with a new cache, every file is read again.
    assert kinds(verify("vtab_dtd", clean[0], tmp_path / "cache", clean[1])) == set()


@pytest.mark.parametrize(
    "line",
    [
        "images/test/\0.jpg 1",
        f"images/test/{'0' * 300}.jpg 1",
        "images/test/000000.jpg ²",
        f"images/test/000000.jpg {10**30}",
        f"images/test/000000.jpg {'9' * 5000}",
    ],
    ids=["name with a zero byte", "name too long", "digit of another kind", "beyond 64 bits", "5000 digits"],
)
def test_a_line_beyond_reason_is_a_fault_and_no_crash(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path, line: str
) -> None:
    root = tmp_path / "root"
    copy_of(clean[0] / "dtd", root / "dtd")
    edit(root / "dtd/test.txt", lambda lines: [line, *lines[1:]])
    problems, _ = found(verify("vtab_dtd", root, warm, clean[1]))
    assert {problem["split"] for problem in problems} == {TEST}
    assert {"malformed_line", "label_range", "missing_file"} & {problem["kind"] for problem in problems}


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example("a.jpg ²\n".encode())
@example(b"a.jpg 99999999999999999999\n")
@example(b"a.jpg -9223372036854775809\n")
@example(b"a.jpg --1\n")
def test_any_list_is_read_or_its_faults_named(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    listing = read_list(path, path.parent)
    assert len(listing.names) == len(listing.labels)
    assert listing.names or listing.faults
    for name in listing.names:
        assert not os.path.isabs(name)
        assert ".." not in name.split("/")


def test_people_are_told_the_first_faults_and_how_many_more(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    copy_of(clean[0] / "dtd", root / "dtd")
    for number in range(30, 42):
        (root / f"dtd/images/test/{number:06d}.jpg").unlink()
    (root / "dtd/images/val200/000000.jpg").unlink()
    done = verify("vtab_dtd", root, warm, clean[1], json=False)
    assert done.returncode == 1
    assert done.stderr == f"13 problems in {root}\n"
    lines = [line for line in done.stdout.splitlines() if "missing_file" in line]
    shown = [line for line in lines if " test: missing_file: " in line]
    assert 1 <= len(shown) < 12
    for number, line in enumerate(shown, 30):
        assert f"{root}/dtd/images/test/{number:06d}.jpg: is not there" in line
        assert line.startswith("vtab_dtd ")
    assert sum("images/val200/000000.jpg" in line for line in lines) == 1
    assert f"... and {12 - len(shown)} more missing_file test" in done.stdout


# The whole root


def test_an_empty_root_is_said(tmp_path: Path, warm: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for suite in ("vtab", "fgvc", "vtab_dtd"):
        problems, summary = found(verify(suite, root, warm))
        (problem,) = problems
        assert (problem["kind"], problem["path"]) == ("empty_folder", str(root))
        assert f"data prepare {suite} " in problem["message"]
        assert summary["tasks"] == []
    human = verify("vtab", root, warm, json=False)
    assert human.returncode == 1
    assert f"empty_folder: {root}: the folder is empty" in human.stdout


def test_the_folder_of_another_suite_is_said(clean: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    (few / "few-shot/oxford-pets/annotations").mkdir(parents=True)
    for suite, other, root in (
        ("fgvc", "vtab", clean[0]),
        ("vtab", "fgvc", few),
        ("vtab_cifar", "fgvc", few),
    ):
        (problem,), _ = found(verify(suite, root, warm))
        assert (problem["kind"], problem["path"]) == ("wrong_suite", str(root))
        assert f"no folder of {suite} but those of {other}" in problem["message"]
        assert f"data verify {other}" in problem["message"]


def test_each_absent_task_of_a_suite_is_said(clean: tuple[Path, Path], warm: Path) -> None:
    problems, summary = found(verify("vtab", clean[0], warm, clean[1]))
    vtab_tasks = {name for name, manifest in manifests().items() if manifest.suite == "vtab"}
    assert {p["task"] for p in problems} == vtab_tasks - {"vtab_dtd", "vtab_svhn"}
    assert {(p["kind"], p["path"]) for p in problems} == {("missing_folder", str(clean[0]))}
    for problem in problems:
        assert f"looked for {manifests()[problem['task']].folders[0]}" in problem["message"]
    assert {task["task"]: task["problems"] for task in summary["tasks"]} == {
        name: 0 if name in ("vtab_dtd", "vtab_svhn") else 1 for name in vtab_tasks
    }


def test_what_cannot_be_verified_is_refused(clean: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, override = clean
    assert "did you mean 'vtab'" in error_of(verify("vtap", root, warm))
    assert "did you mean 'vtab_dtd'" in error_of(verify("vtab_ddt", root, warm))
    assert "bundled and has no files" in error_of(verify("digits", root, warm))
    assert f"{tmp_path}/nowhere: no such folder" in error_of(verify("vtab", tmp_path / "nowhere", warm))
    assert f"{override}: no such folder" in error_of(verify("vtab", override, warm))  # a file
    message = error_of(verify("vtab_dtd", root, override, override))  # a file in the cache's place
    assert f"data.cache={override}: cannot be made" in message


def test_a_bad_override_file_is_refused(clean: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    cases = (
        ("vtab_dtt: {splits: {test: 94}}", "'vtab_dtt' is no task"),
        ("vtab_dtd: {splits: {test: 0}}", "positive"),
        ("vtab_dtd: {classes: 46}", "expected `splits"),
        ("vtab_dtd: {splits: {trainval: 1000}}", "sizes of train, val, test"),
        ("[", "not valid YAML"),
    )
    for number, (content, message) in enumerate(cases):
        file = tmp_path / f"{number}.yaml"  # a command reads its override file once
        file.write_text(content)
        said = error_of(verify("vtab_dtd", clean[0], warm, file))
        assert said.startswith(f"data.override={file}: ")
        assert message in said


def test_the_manifests_sizes_hold_without_an_override(clean: tuple[Path, Path], warm: Path) -> None:
    problems, _ = found(verify("vtab_dtd", clean[0], warm))
    (problem,) = problems  # 1880: guide/data.md
    assert problem["kind"] == "count"
    assert f"{TESTS} images, it should be 1880" in problem["message"]


# Facts of single tasks


def task_tree(root: Path, name: str, tests: int, seen: int = 0) -> Path:
    """One task with its 1,000 training images and a small test set; returns the override file."""
    manifest = manifests()[name]
    sizes = manifest.splits | {"test": tests}
    vtab_task(root / manifest.folders[0], manifest.classes, sizes, side=8, seen=seen)
    override = root / "override.yaml"
    override.write_text(yaml.safe_dump({name: {"splits": {"test": tests}}}))
    return override


def test_dsprites_repeats_itself_and_that_is_a_note(warm: Path, tmp_path: Path) -> None:
    override = task_tree(tmp_path, "vtab_dsprites_loc", 32)
    clean = found(verify("vtab_dsprites_loc", tmp_path, warm, override))[1]["tasks"][0]
    assert clean["notes"] == []
    for number in (4, 9):
        copy_over(tmp_path / "dsprites_loc", f"images/test/{number:06d}.jpg", TRAIN, number)
    copy_over(tmp_path / "dsprites_loc", "images/val200/000004.jpg", TRAIN, 5)
    problems, summary = found(verify("vtab_dsprites_loc", tmp_path, warm, override))
    assert problems == []
    (note,) = summary["tasks"][0]["notes"]
    assert note.startswith("2 test images are training images too")
    human = verify("vtab_dsprites_loc", tmp_path, warm, override, json=False)
    assert human.returncode == 0
    assert "vtab_dsprites_loc: note: 2 test images" in human.stdout


@pytest.mark.parametrize(("seen", "right"), [(396, True), (395, False), (397, False)])
def test_sun397_has_396_classes_in_training(warm: Path, tmp_path: Path, seen: int, right: bool) -> None:
    # 396 of 397: guide/data.md. Another number is another draw of the 1,000 images.
    override = task_tree(tmp_path, "vtab_sun397", 397, seen)
    problems, _ = found(verify("vtab_sun397", tmp_path, warm, override))
    if right:
        assert problems == []
        return
    (problem,) = problems
    assert (problem["split"], problem["kind"]) == (BOTH, "class_coverage")
    assert problem["path"] == str(tmp_path / "sun397/train800val200.txt")
    assert f"{seen} classes, it should be 396" in problem["message"]


def test_a_whole_test_set_is_held_to_its_classes(warm: Path, tmp_path: Path) -> None:
    # kitti, the smallest: 711 test images of 4 classes (guide/data.md), no override.
    task = tmp_path / "kitti"
    vtab_task(task, 4, {"train": 800, "val": 200, "test": 711}, side=8)
    assert kinds(verify("vtab_kitti", tmp_path, warm)) == set()
    edit(task / "test.txt", lambda lines: [label(line, min(int(line[-1]), 2)) for line in lines])
    (problem,), _ = found(verify("vtab_kitti", tmp_path, warm))
    assert (problem["split"], problem["kind"]) == (TEST, "class_coverage")
    assert "3 classes, it should be 4" in problem["message"]


def test_both_sizes_of_caltech101_that_circulate_are_right(warm: Path, tmp_path: Path) -> None:
    task = tmp_path / "caltech101"
    vtab_task(task, 102, {"train": 800, "val": 200, "test": 204}, side=8)
    names = [f"images/test/{number:06d}.jpg" for number in range(6086)]
    for number, name in enumerate(names[204:], 204):
        os.link(task / names[number % 204], task / name)
    for count, right in ((6084, True), (6085, True), (6083, False)):  # guide/data.md: 6084 or 6085
        edit(task / "test.txt", lambda _, n=count: [f"{name} {i % 102}" for i, name in enumerate(names[:n])])
        for path in names[count:]:
            (task / path).unlink(missing_ok=True)
        for number in range(204, count):
            if not (task / names[number]).exists():
                os.link(task / names[number % 204], task / names[number])
        problems, _ = found(verify("vtab_caltech101", tmp_path, warm))
        if right:
            assert problems == []
        else:
            assert [p["kind"] for p in problems] == ["count"]
            assert "6083 images, it should be 6084 or 6085" in problems[0]["message"]


# What is kept between two calls


def test_a_second_call_believes_size_and_time(clean: tuple[Path, Path], tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    copy_of(clean[0] / "dtd", root / "dtd")
    path = root / "dtd/images/test/000003.jpg"
    before = found(verify("vtab_dtd", root, cache, clean[1]))
    stat = path.stat()
    write(path, b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found(verify("vtab_dtd", root, cache, clean[1])) == before  # documented: nothing is read again
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    (problem,), _ = found(verify("vtab_dtd", root, cache, clean[1]))
    assert (problem["kind"], problem["path"]) == ("undecodable", str(path))
    assert found(verify("vtab_dtd", root, cache, clean[1]))[0] == [problem]  # and remembers what is wrong
    write(path, (clean[0] / "dtd/images/test/000003.jpg").read_bytes())
    assert found(verify("vtab_dtd", root, cache, clean[1])) == before


def test_a_sweeps_quick_look_does_not_stand_for_a_decoded_image(
    clean: tuple[Path, Path], tmp_path: Path
) -> None:
    # Planning hashes files without decoding them; verify must decode what only planning has seen.
    root, cache = tmp_path / "root", tmp_path / "cache"
    copy_of(clean[0] / "dtd", root / "dtd")
    path = root / "dtd/images/test/000003.jpg"
    write(path, path.read_bytes()[:-60])
    settle(plan_task("vtab_dtd", settings(root, clean[1])), Cache(str(cache)))
    (problem,), _ = found(verify("vtab_dtd", root, cache, clean[1]))
    assert (problem["kind"], problem["path"]) == ("undecodable", str(path))


# Few-shot sets with their circulated lists

HELD = 37
"""Lines left in the val and test lists of pets: fewer images to make."""
SHOT = "train_meta.list.num_shot_{}.seed_{}"


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pets") / "root"
    return root, few_shot(root, GOLDEN / "noah-few-shot", ["oxford-pets"], HELD)


def pets_copy(pets: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy and its folder of lists."""
    root = copy_of(pets[0], tmp_path / "root")
    return root, root / "few-shot/oxford-pets/annotations"


@golden
def test_a_clean_few_shot_set_passes(pets: tuple[Path, Path], warm: Path) -> None:
    # Also: the 74 lines of the 1-shot lists, each of 37 images twice, are as circulated and no fault.
    problems, summary = found(verify("fgvc_pets", pets[0], warm, pets[1]))
    assert problems == []
    (task,) = summary["tasks"]
    lists = (pets[0] / "few-shot/oxford-pets/annotations").iterdir()
    images = {line.rsplit(" ", 1)[0] for path in lists for line in path.read_text().splitlines()}
    assert task["images"] == len(images)
    assert task["formats"] == {"JPEG": len(images)}
    assert task["jpeg_quality"] == [90, 90, 90]
    assert re.fullmatch("[0-9a-f]{64}", task["fingerprint"])
    # Every training list is one that a run can be made from.
    for shots in (1, 16):
        settled = settle(plan_task("fgvc_pets", settings(*pets), shots, 2), Cache(str(warm)))
        assert settled.splits == {"train": 37 * max(shots, 2), "val": HELD, "test": HELD}


@golden
def test_an_edited_few_shot_list_is_named(pets: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    name = SHOT.format(2, 1)
    edit(lists / name, lambda lines: [lines[1], lines[0], *lines[2:]])  # the same images in another order
    problems, _ = found(verify("fgvc_pets", root, warm, pets[1]))
    (problem,) = problems
    assert (problem["split"], problem["kind"], problem["path"]) == (name, "list_hash", str(lists / name))
    assert "not the circulated list" in problem["message"]
    assert "edited" in problem["message"]


@golden
def test_swapped_few_shot_lists_are_named(pets: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    same, other = [SHOT.format(1, 0), SHOT.format(1, 2)], [SHOT.format(4, 1), SHOT.format(16, 1)]
    for first, second in (same, other):
        swap(lists / first, lists / second)
    problems, _ = found(verify("fgvc_pets", root, warm, pets[1]))
    hashes = {p["split"]: p for p in problems if p["kind"] == "list_hash"}
    assert set(hashes) == {*same, *other}
    for first, second in (same, other):
        for one, held in ((first, second), (second, first)):
            assert f"it holds {held}: swapped?" in hashes[one]["message"]
            assert hashes[one]["path"] == str(lists / one)
    # 4 and 16 images of each of 37 classes
    counts = {p["split"]: p["message"] for p in problems if p["kind"] == "count"}
    assert set(counts) == set(other)
    assert "lists 592 images, it should be 148" in counts[other[0]]
    assert "lists 148 images, it should be 592" in counts[other[1]]
    assert len(problems) == 6


@golden
def test_other_faults_of_a_few_shot_set_are_named(
    pets: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    root, lists = pets_copy(pets, tmp_path)
    images = root / "oxford_pets/images"
    first = [line.rsplit(" ", 1)[0] for line in (lists / SHOT.format(16, 0)).read_text().splitlines()]
    tests = [line.rsplit(" ", 1)[0] for line in (lists / "test_meta.list").read_text().splitlines()]
    shared = {line.rsplit(" ", 1)[0] for line in (lists / SHOT.format(1, 2)).read_text().splitlines()}
    gone, cut, leaked = [name for name in first if name not in shared][:3]
    (lists / SHOT.format(1, 2)).unlink()
    (images / gone).unlink()
    write(images / cut, (images / cut).read_bytes()[:-60])
    write(images / leaked, (images / tests[5]).read_bytes())
    edit(lists / "test_meta.list", lambda lines: [*lines[:-1], label(lines[-1], 37)])
    problems, _ = found(verify("fgvc_pets", root, warm, pets[1]))
    told = {(p["kind"], p["path"]): p["message"] for p in problems}
    assert set(told) == {
        ("missing_list", str(lists / SHOT.format(1, 2))),
        ("missing_file", str(images / gone)),
        ("undecodable", str(images / cut)),
        ("duplicate", str(images / tests[5])),
        ("label_range", str(lists / "test_meta.list")),
    }
    assert leaked in told["duplicate", str(images / tests[5])]
    assert "37 classes are 0 to 36" in told["label_range", str(lists / "test_meta.list")]
    assert len(problems) == 5


@golden
def test_a_few_shot_set_without_its_images_is_said(
    pets: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    root, _ = pets_copy(pets, tmp_path)
    shutil.rmtree(root / "oxford_pets")
    (problem,), _ = found(verify("fgvc_pets", root, warm, pets[1]))
    assert problem["kind"] == "missing_folder"
    assert "images of fgvc_pets; looked for oxford_pets/images" in problem["message"]


@golden
def test_paths_may_hold_spaces(pets: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, lists = pets_copy(pets, tmp_path)
    images = root / "oxford_pets/images"
    old = (lists / "test_meta.list").read_text().splitlines()[3].rsplit(" ", 1)[0]
    new = "a folder with spaces/the cat 1 .jpg"
    (images / new).parent.mkdir()
    (images / old).rename(images / new)
    edit(lists / "test_meta.list", lambda lines: [line.replace(f"{old} ", f"{new} ") for line in lines])
    problems, summary = found(verify("fgvc_pets", root, warm, pets[1]))
    assert problems == []
    before = found(verify("fgvc_pets", pets[0], warm, pets[1]))[1]
    assert summary["tasks"] == before["tasks"]  # the same images: names do not count
    (images / new).unlink()
    (problem,), _ = found(verify("fgvc_pets", root, warm, pets[1]))
    assert (problem["kind"], problem["path"]) == ("missing_file", str(images / new))
