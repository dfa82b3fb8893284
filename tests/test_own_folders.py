"""The user's own folders as they are: litter, folders of splits, levels, odd labels, and a fair draw."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench.config import plan_task
from petl_bench.data import manifest_of, resolve
from petl_bench.data.layouts import LAYOUTS, located
from petl_bench.data.tree import IMAGES, draw, is_litter
from petl_bench.errors import UserError
from petl_bench.types import TRAINVAL, Cache, DataSettings, TaskSpec
from tests.conftest import error_of, json_lines, quickly
from tests.trees import picture, save, write_list

OWN = ["sweep=none", "adapter=linear", "bits=32", "protocol=fixed", "scale=1"]


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch) -> Cache:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(tmp_path / "cache"))
    return Cache(str(tmp_path / "cache"))


def classes(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            save(picture(label, number, 8), root / name / f"{number}.png")
    return root


def planned(source: str, root: Path, images: int = 8, seed: int = 0) -> TaskSpec:
    return plan_task(source, DataSettings(root=str(root), images=images), split_seed=seed)


def refusal(source: str, root: Path, cache: Cache, images: int = 8) -> str:
    with pytest.raises(UserError) as caught:
        resolve(planned(source, root, images), cache)
    return str(caught.value)


def verified(source: str, root: Path, *overrides: object) -> tuple[list[dict], dict]:
    """Problems and the task of `data verify --json`, whose exit code must agree with them."""
    done = quickly("data", "verify", source, *overrides, "--root", root, "--json")
    *problems, summary = json_lines(done.stdout)
    assert done.returncode == (1 if problems else 0), done.stderr
    return problems, summary["tasks"][0]


# Litter

LITTER = [
    ".ipynb_checkpoints/a.png", "._1.png", ".DS_Store", "@eaDir/a.png", "@eaDir/1.png@SynoEAStream",
    "__MACOSX/a.png", "Thumbs.db", "thumbs.db", "desktop.ini", ".git/a.png", ".hidden.png",
    "__pycache__/a.png", "#recycle/a.png", "$RECYCLE.BIN/a.png", "System Volume Information/a.png",
]  # fmt: skip


@pytest.mark.parametrize("where", ["", "rose/"])
@pytest.mark.parametrize("name", LITTER)
def test_litter_is_neither_an_image_nor_a_class(name: str, where: str, tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"daisy": 6, "rose": 6})
    clean = resolve(planned("tree", root), cached)
    save(picture(0, 99, 8), root / where / Path(name).parent / "a.png")
    if Path(name).parent == Path():
        (root / where / "a.png").rename(root / where / name)
    assert is_litter(Path(name).parts[0])
    said: list[str] = []
    found = resolve(planned("tree", root), cached, warn=said.append)
    assert (found.classes, found.fingerprint) == (2, clean.fingerprint)
    assert said == []


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20))
def test_only_hidden_names_and_known_ones_are_litter(name: str) -> None:
    known = {Path(known).parts[0].lower() for known in LITTER} | {"lost+found", "ehthumbs.db", "icon\r"}
    assert is_litter(name) == (name.startswith(".") or name.lower() in known)


def test_files_that_are_passed_over_are_told(tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"daisy": 6, "rose": 6})
    for name in ("rose/a.heic", "rose/b.HEIC", "rose/notes", "loose.png", "daisy/.hidden"):
        (root / name).write_bytes(b"x")
    (root / "rose/more").symlink_to(root / "daisy")
    said: list[str] = []
    resolve(planned("tree", root), cached, warn=said.append)
    (line,) = said
    for part in (
        "2 files with suffix .heic",
        "1 files without suffix",
        "1 links to folders",
        "1 files in no",
    ):
        assert part in line
    assert f"petl-bench data verify tree --root {root}" in line
    problems, task = verified("tree", root, "data.images=8")
    assert problems == []
    left = {held["reason"]: (held["files"], held["first"]) for held in task["left_out"]}
    assert left["files with suffix .heic"][0] == 2
    assert left["files in no class folder"] == (1, "loose.png")
    assert left["hidden files and files of systems and tools"] == (1, "daisy/.hidden")


@pytest.mark.parametrize("suffix", sorted(IMAGES))
def test_every_suffix_is_read_in_any_case(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for spelled in (suffix, suffix.upper()):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"x{spelled}").write_bytes(b"")
    listings = listings_of(tmp_path, images=2)
    names = sorted(name for part in (TRAINVAL, "test") for name in listings[part].names)
    assert len(names) == 4


def test_the_suffixes_that_were_passed_over_are_there() -> None:
    assert {".jfif", ".avif", ".webp", ".tif", ".tiff", ".jpe", ".jp2"} <= IMAGES


def listings_of(root: Path, images: int, seed: int = 0) -> dict:
    task = planned("tree", root, images, seed)
    return LAYOUTS.get("tree").listings(located(task, manifest_of(task)))


# Levels and splits


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing"])
def test_folders_of_splits_are_known_by_their_usual_names(
    train: str, test: str, tmp_path: Path, cached: Cache
) -> None:
    classes(tmp_path / "root" / train, {"daisy": 6, "rose": 6})
    root = classes(tmp_path / "root" / test, {"daisy": 2, "rose": 1}, first=50).parent
    found = resolve(planned("tree", root), cached)
    assert (found.classes, found.splits) == (2, {"train": 6, "val": 2, "test": 3})


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_a_folder_beside_the_splits_is_told(val: str, tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root/train", {"daisy": 6, "rose": 6}).parent
    classes(root / "test", {"daisy": 2, "rose": 1}, first=50)
    classes(root / val, {"daisy": 2, "rose": 3}, first=70)
    said: list[str] = []
    resolve(planned("tree", root), cached, warn=said.append)
    assert f"5 images in {val}/" in said[0]


def test_two_folders_of_one_split_are_refused(tmp_path: Path, cached: Cache) -> None:
    for name in ("train", "Training", "test"):
        classes(tmp_path / name, {"daisy": 2, "rose": 2})
    assert "which is train?" in refusal("tree", tmp_path, cached)


@pytest.mark.parametrize("images", [2, 8, 1000])
def test_a_root_one_level_too_high_is_refused(images: int, tmp_path: Path, cached: Cache) -> None:
    classes(tmp_path / "above/photos", {"daisy": 6, "rose": 6})
    message = refusal("tree", tmp_path / "above", cached, images)
    assert "holds a single class, the folder photos/" in message
    assert f"data.root={tmp_path}/above/photos" in message


def test_a_root_above_data_sets_with_splits_is_refused(tmp_path: Path, cached: Cache) -> None:
    for name in ("birds", "flowers"):
        for split in ("train", "test"):
            classes(tmp_path / name / split, {"a": 2, "b": 2})
    assert f"a level too high: data.root={tmp_path}/birds" in refusal("tree", tmp_path, cached)


ABOVE = {
    "doubled": (["train_set/train_set", "test_set/test_set"], ["test_set/test_set", "train_set/train_set"]),
    "other names": (["seg_train", "seg_test"], ["seg_test", "seg_train"]),
    "deep": (["a/b/c/d", "e/f"], ["a/b/c/d", "e/f"]),
    "one of two": (["old"], ["old"]),
    "below train/": (["train/all", "test/all"], ["train/all"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ABOVE)
def test_class_folders_of_class_folders_are_refused(case: str, tmp_path: Path, cached: Cache) -> None:
    """Each folder is the whole of a data set, or of one split, so folders are no classes."""
    holding, likely = ABOVE[case]
    for folder in holding:
        classes(tmp_path / folder, {"daisy": 3, "rose": 3})
    if case == "one of two":
        classes(tmp_path, {"daisy": 3})
    if case == "below train/":
        classes(tmp_path / "train", {"tulip": 2})
        classes(tmp_path / "test", {"tulip": 2})
    message = refusal("tree", tmp_path, cached, images=4)
    assert "no image there, but several folders of images" in message
    assert f"is {' or '.join(f'data.root={tmp_path / folder}' for folder in likely)} meant" in message
    problems, _ = verified("tree", tmp_path, "data.images=4")
    assert "class_level" in {problem["kind"] for problem in problems}


@pytest.mark.parametrize("inside", [["images"], ["", "more", "even/more"], ["scans/images"]])
def test_subfolders_of_a_class_are_its_own(inside: list[str], tmp_path: Path, cached: Cache) -> None:
    """With one folder of images, as in Tiny ImageNet, or images beside subfolders, a class is meant."""
    for label, name in enumerate(("daisy", "rose")):
        for number, below in enumerate(inside):
            save(picture(label, number, 8), tmp_path / "root" / name / below / "1.png")
            save(picture(label, number + 50, 8), tmp_path / "root" / name / below / "2.png")
    assert resolve(planned("tree", tmp_path / "root", images=3), cached).classes == 2


def test_a_sweep_names_the_classes_and_their_images(tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "flowers", {"daisy": 6, "rose": 6})
    arguments = ["sweep", *OWN, "train.batch_size=4", f"data.root={root}", "--dry-run"]
    done = quickly(*arguments, "task=tree", "data.images=8", "--store", tmp_path / "store")
    assert "flowers: 2 classes: daisy, rose; images: 6 train, 2 val, 4 test" in done.stderr
    assert "pixels of 12 not checked yet, the sweep does before it trains" in done.stderr
    verified("tree", root, "data.images=8")
    done = quickly(*arguments, "task=tree", "data.images=8", "--store", tmp_path / "store")
    assert "not checked" not in done.stderr
    folder(root, [0, 1, 2, 0], [1], [2, 2])
    done = quickly(*arguments, "task=folder", "--store", tmp_path / "store")
    assert "flowers: 3 classes; images: 4 train, 1 val, 2 test" in done.stderr


@pytest.mark.parametrize("kept", [0.4, 0.6])
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_that_cannot_be_decoded_is_named_before_anything_is_trained(
    part: str, kept: float, tmp_path: Path, cached: Cache
) -> None:
    root = tmp_path / "root"
    for number, name in enumerate(("train", "test")):
        classes(root / name, {"daisy": 6, "rose": 6}, first=50 * number)
    image = root / part / "rose" / ("3.png" if part == "train" else "53.png")
    content = image.read_bytes()
    image.write_bytes(content[: int(kept * len(content))])
    arguments = ["sweep", *OWN, "task=tree", f"data.root={root}", "data.images=12", "train.batch_size=4"]
    store = tmp_path / "store"
    message = error_of(quickly(*arguments, "--store", store))
    assert message.startswith(f"task tree: {image}: cannot be decoded")
    assert not store.exists()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("target", ["rose", "rose/inside", "tulip"])
def test_a_class_that_is_a_link_into_another_is_refused(
    target: str, split: bool, tmp_path: Path, cached: Cache
) -> None:
    root = tmp_path / "root"
    for number, name in enumerate(("train", "test") if split else ("",)):
        classes(root / name, {"daisy": 6, "rose": 6, "rose/inside": 2}, first=50 * number)
        (root / name / "tulip").symlink_to("rose")
        (root / name / "wolf").symlink_to(target)
    folder = root / "train" if split else root
    message = refusal("tree", root, cached)
    assert message.startswith(f"task tree: {folder}/tulip: is a link into the class folder rose/")
    (folder / "tulip").unlink()
    (folder / "tulip").symlink_to("..")  # a circle, which is left out
    problems, _ = verified("tree", root, "data.images=8")
    assert ("linked_class" in {problem["kind"] for problem in problems}) == (target != "tulip" or split)


def test_a_class_may_be_a_link_to_images_elsewhere(tmp_path: Path, cached: Cache) -> None:
    elsewhere = classes(tmp_path / "elsewhere", {"daisy": 6, "rose": 6})
    root = tmp_path / "root"
    root.mkdir()
    for name in ("daisy", "rose"):
        (root / name).symlink_to(elsewhere / name)
    assert resolve(planned("tree", root), cached).classes == 2


def test_one_folder_cannot_be_both_splits(tmp_path: Path, cached: Cache) -> None:
    root = tmp_path / "root"
    classes(root / "train", {"daisy": 6, "rose": 6})
    (root / "test").symlink_to("train")
    assert "train/ and test/ are one folder, by a link" in refusal("tree", root, cached)


@pytest.mark.parametrize("where", ["", "train", "val"])
@pytest.mark.parametrize("target", ["self", "other", ".", "..", "../.."])
def test_links_in_a_circle_are_left_out(where: str, target: str, tmp_path: Path, cached: Cache) -> None:
    root, parts = tmp_path / "root", [where, "test"] if where == "train" else [where]
    for part in [*parts, *(["train", "test"] if where == "val" else [])]:
        classes(root / part, {"daisy": 6, "rose": 6}, first=50 * (part == "test"))
    (root / where / "self").symlink_to(target)
    if target == "other":
        (root / where / "other").symlink_to("self")
    said: list[str] = []
    found = resolve(planned("tree", root, images=8), cached, warn=said.append)
    assert (found.classes, sum(found.splits.values())) == (2, 12 if where == "" else 20)
    if where != "val":
        count = 2 if target == "other" else 1
        assert f"left out are {count} links to themselves or to folders above" in said[0]
    if where:
        (root / "self").symlink_to("self")
        resolve(planned("tree", root, images=8), cached)


def test_a_class_without_images_is_refused(tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"daisy": 6, "empty": 0, "rose": 6})
    message = refusal("tree", root, cached)
    assert message.startswith(f"task tree: {root}/empty: holds no image")


def test_fewer_images_than_classes_are_refused(tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"a": 3, "b": 3, "c": 3})
    message = refusal("tree", root, cached, images=2)
    assert "1 of 3 classes have no training image" in message
    assert "data.images=2 are too few" in message


# The draw


@settings(max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.integers(0, 2**32 - 1), st.randoms())
def test_a_draw_has_the_classes_in_proportion(counts: list[int], seed: int, random) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    random.shuffle(labels)
    order = draw(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for taken in range(len(counts), len(labels) + 1):
        found = np.bincount(labels[order[:taken]], minlength=len(counts))
        assert found.min() >= 1
        # The first images of all classes come first, and move every quota by less than one image a class.
        quota = taken * np.array(counts) / len(labels)
        assert (abs(found - quota) <= 1 + len(counts) * np.array(counts) / len(labels)).all()


def test_a_draw_of_equal_classes_is_even() -> None:
    labels = np.tile(np.arange(10), 50)
    for seed in range(3):
        order = draw(labels, seed)
        for part, each in ((order[:80], 8), (order[80:100], 2), (order[100:], 40)):
            assert np.bincount(labels[part]).tolist() == [each] * 10
    assert (draw(labels, 0) != draw(labels, 1)).any()


def test_verify_shows_what_a_sweep_would_use(tmp_path: Path, cached: Cache) -> None:
    root = classes(tmp_path / "root", {"daisy": 20, "rose": 10})
    save(picture(0, 3, 8), root / "rose/again.png")  # as daisy/3.png
    for images, seed in ((15, 0), (21, 3)):
        found = resolve(planned("tree", root, images, seed), cached)
        _, task = verified("tree", root, f"data.images={images}", f"split_seed={seed}")
        assert task["fingerprint"] == found.fingerprint
        for split in ("train", "val", "test"):
            assert sum(held[split] for held in task["classes"]) == found.splits[split]
        assert [held["class"] for held in task["classes"]] == ["daisy", "rose"]
        assert [sum(held[s] for s in ("train", "val", "test")) for held in task["classes"]] == [20, 11]
        assert task["modes"] == {"RGB": 31}
        assert task["sizes"] == ["8x8"] * 3
        assert any("the same image with several labels: 1" in note for note in task["notes"])
    done = quickly("data", "info", "tree", "data.images=15", "--root", root)
    assert "daisy" in done.stdout
    assert "modes: RGB 31; sizes: 8x8" in done.stdout
    for setting in ("adapter=lora", "data.root=x", "data.imges=3"):
        message = error_of(quickly("data", "verify", "tree", setting, "--root", root))
        assert setting in message
        assert "data.images, split_seed" in message
    assert "only own data" in error_of(quickly("data", "verify", "vtab", "data.images=3", "--root", root))


# Lists


def folder(root: Path, train: list[int], val: list[int], test: list[int]) -> Path:
    number, both = 0, []
    for name, labels in (("train800", train), ("val200", val), ("test", test)):
        lines = []
        for label in labels:
            save(picture(0, number, 8), root / f"images/{number}.png")
            lines.append((f"images/{number}.png", label))
            number += 1
        both += lines if name != "test" else []
        write_list(root / f"{name}.txt", lines)
    write_list(root / "train800val200.txt", both)
    return root


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_labels_are_right_exactly_if_every_class_is_trained(
    tmp_path_factory, train: list[int], val: list[int], test: list[int]
) -> None:
    root = folder(tmp_path_factory.mktemp("folder"), train, val, test)
    cache = Cache(str(root / "cache"))
    highest = max(train + val + test)
    if highest > 0 and {*train, *val} == {*range(highest + 1)}:
        assert resolve(planned("folder", root), cache).classes == highest + 1
    else:
        message = refusal("folder", root, cache)
        assert "single class" in message if highest == 0 else "without gaps" in message


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, 2, 3], "found are 1 to 3"),  # counted from 1
        ([0, 1, 5], "3 of 6 classes have no training image, the first is label 2"),
        ([0, 1, 100_000], "99998 of 100001 classes"),
        ([0, 1, 999_999_999], "999999997 of 1000000000 classes"),
        ([7, 7, 7], "found are 7, labels must be"),
        ([0, 0, 0], "single class"),
        ([0, 1, -1], "out of range"),
    ],
)
def test_labels_that_make_empty_classes_are_refused(
    labels: list[int], said: str, tmp_path: Path, cached: Cache
) -> None:
    root = folder(tmp_path / "root", labels, labels, labels)
    assert said in refusal("folder", root, cached)
    problems, task = verified("folder", root)
    assert any(said in problem["message"] for problem in problems)
    assert len(task["classes"]) <= 10


ALTERED = {
    "other labels": ("train800val200", lambda lines: [f"{line[:-1]}{1 - int(line[-1])}" for line in lines]),
    "fewer": ("train800val200", lambda lines: lines[1:]),
    "a test image": ("train800val200", lambda lines: [*lines, "images/6.png 0"]),
    "train twice": ("train800", lambda lines: [*lines, lines[0]]),
    "two labels": ("train800", lambda lines: [*lines, f"{lines[0][:-1]}1"]),
    "test, two labels": ("test", lambda lines: [*lines, f"{lines[0][:-1]}1"]),
    "val in place of train": ("train800", lambda lines: ["images/4.png 0", *lines[1:]]),
}


@pytest.mark.parametrize("case", ALTERED)
def test_lists_that_contradict_each_other_are_refused_as_verify_does(
    case: str, tmp_path: Path, cached: Cache
) -> None:
    """The final model is trained on the third list: other images or labels there are another task."""
    root, (name, change) = folder(tmp_path / "root", [0, 1, 0, 1], [0, 1], [0, 1]), ALTERED[case]
    resolve(planned("folder", root), cached)
    lines = change((root / f"{name}.txt").read_text().splitlines())
    (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    problems, _ = verified("folder", root)
    found = {problem["kind"] for problem in problems} & {"trainval_differs", "repeated_line"}
    message = refusal("folder", root, cached)
    assert found
    assert any(problem["message"] in message for problem in problems if problem["kind"] in found)


def test_one_image_with_two_labels_is_told(tmp_path: Path, cached: Cache) -> None:
    root = folder(tmp_path / "root", [0, 1, 0, 1], [0, 1], [0, 1])
    (root / "images/1.png").write_bytes((root / "images/0.png").read_bytes())
    said: list[str] = []
    resolve(planned("folder", root), cached, warn=said.append)
    assert said == ["root: the same image with several labels: 1; the first is images/0.png"]


def test_images_that_no_list_names_are_told(tmp_path: Path, cached: Cache) -> None:
    root = folder(tmp_path / "root", [0, 1], [0, 1], [0, 1])
    save(picture(0, 50, 8), root / "images/more.webp")
    problems, task = verified("folder", root)
    assert problems == []
    (left,) = task["left_out"]
    assert left == {"reason": "images that no list names", "files": 1, "first": "images/more.webp"}
    assert [held["train"] for held in task["classes"]] == [1, 1]


# Files that are none


@pytest.mark.parametrize("kind", ["pipe", "zeros", "sparse"])
@pytest.mark.parametrize("what", ["image", "list"])
def test_a_file_of_another_kind_is_refused_unread(
    what: str, kind: str, tmp_path: Path, cached: Cache
) -> None:
    root = folder(tmp_path / "root", [0, 1], [0, 1], [0, 1])
    path = root / ("images/1.png" if what == "image" else "val200.txt")
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(10**12)
    said = {"pipe": "is a pipe", "zeros": "is a device", "sparse": "has 1,000,000,000,000 bytes, more than"}
    message = refusal("folder", root, cached)
    assert str(path) in message
    assert said[kind] in message
    problems, _ = verified("folder", root)
    assert any(said[kind] in problem["message"] for problem in problems)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_with_a_byte_order_mark_is_read(encoding: str, tmp_path: Path, cached: Cache) -> None:
    root = folder(tmp_path / "root", [0, 1], [0, 1], [0, 1])
    before = resolve(planned("folder", root), cached).fingerprint
    text = (root / "test.txt").read_text()
    (root / "test.txt").write_text(text, encoding=encoding)
    assert resolve(planned("folder", root), cached).fingerprint == before
