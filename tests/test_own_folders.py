"""The user's own folders as they are: litter, folders of splits, levels, odd labels, and a fair draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from petl_bench.config import plan_task
from petl_bench.data import resolve
from petl_bench.errors import UserError
from petl_bench.types import Cache, DataSettings, TaskSpec
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
