"""Trees of class folders: their images, classes, splits and litter, and the draw of training images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petl_bench.data.lists import Fault, Listing
from petl_bench.errors import UserError
from petl_bench.types import TRAINVAL, TaskSpec

IMAGES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jp2",
        ".j2k",
        ".jpx",
        ".png",
        ".apng",
        ".gif",
        ".bmp",
        ".dib",
        ".webp",
    }
    | {".avif", ".tif", ".tiff", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)
"""Suffixes of image files in a folder tree, in any case."""

LITTER = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"}
)
"""Files and folders of systems and tools, in lower case; hidden names are litter too."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Splits by the names of their folders, in any case."""

DEEPEST = 64
"""Levels of folders that are searched below a class folder."""

LITTERED = "hidden files and files of systems and tools"
CIRCULAR = "links to themselves or to folders above"
LeftOut = dict[str, list[str]]
"""Paths below the root that are not used, by reason."""


def is_litter(name: str) -> bool:
    """Return whether a file or folder name is that of litter: hidden, or of a system or a tool."""
    return name.startswith(".") or name.lower() in LITTER


def split_folders(root: Path) -> dict[str, str]:
    """Return the names of the folders of train, val and test in a root by split, as far as there are any.

    Raises:
        UserError: two folders are of one split.
    """
    found: dict[str, str] = {}
    for name in _folders(root):
        split = SPLIT_NAMES.get(name.lower())
        if split in found:
            raise UserError(f"{root}: holds both {found[split]}/ and {name}/; which is {split}?")
        if split:
            found[split] = name
    return found


def tree_listings(task: TaskSpec) -> dict[str, Listing]:
    """Return the listings of a folder tree `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` alone.

    Classes are the sorted folder names. `task.drawn` images, or all if there are fewer, are drawn by
    `task.split_seed` for trainval; four fifths of them are train. Without a test folder, the remaining images
    are test. A folder val/ is not used.

    Raises:
        UserError: there are folders of splits, but not train/ and test/; or they are a level below.
    """
    root = Path(task.place["images"])
    folders = split_folders(root)
    if folders and not {"train", "test"} <= folders.keys():
        raise UserError(
            f"{root}: holds {', '.join(f'{name}/' for name in sorted(folders.values()))} but not both train/ "
            "and test/; a tree must have train/CLASS/ and test/CLASS/, or CLASS/ alone"
        )
    if folders and (root / folders["train"]).samefile(root / folders["test"]):
        raise UserError(
            f"{root}: {folders['train']}/ and {folders['test']}/ are one folder, by a link; test images must "
            "be others than training images"
        )
    left_out: LeftOut = {}
    pool = _walk(root, folders.get("train", ""), left_out)
    order = draw(pool.labels, task.split_seed)
    drawn = min(task.drawn, len(pool))
    cut = drawn * 4 // 5
    parts = {"train": order[:cut], "val": order[cut:drawn], TRAINVAL: order[:drawn]}
    listings = {split: _chosen(pool, index) for split, index in parts.items()}
    if not folders:
        return listings | {"test": _chosen(pool, np.sort(order[drawn:]))}
    test = _walk(root, folders["test"], left_out)
    if test.classes != pool.classes:
        differing = sorted({*test.classes} ^ {*pool.classes})
        message = (
            f"{folders['train']}/ and {folders['test']}/ do not hold the same class folders; only one has "
            f"{', '.join(differing[:3])}"
        )
        test.faults.append(Fault("class_coverage", str(root), message))
    _beside(root, folders, left_out)
    return listings | {"test": test}


def draw(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a random order of images of which each beginning has the classes in their proportions.

    The images of each class are shuffled and spread evenly over the order. The first image of every class
    comes before all others, so that any beginning of at least so many images has all classes.

    Args:
        labels: (N,).
        seed: of the shuffling.

    Returns:
        Indices (N,).
    """
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
        place[members[0]] = 0
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if not _passed_over(entry))


def _passed_over(entry: os.DirEntry[str]) -> str:
    """Return why an entry beside class folders is not used; empty for folders."""
    if is_litter(entry.name):
        return LITTERED
    if _is_circular(entry):
        return CIRCULAR
    return "" if entry.is_dir() else "files in no class folder"


def _is_circular(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link that leads to itself, or to a folder in which it lies."""
    if not entry.is_symlink():
        return False
    try:
        return Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve(strict=True))
    except FileNotFoundError:
        return False
    except (OSError, RuntimeError):  # Python 3.13 raises an OSError for a circle, earlier ones a RuntimeError
        return True


def _walk(root: Path, part: str, left_out: LeftOut) -> Listing:
    """Return all images of the class folders in `root/part`, and add what is left out to `left_out`."""
    folder = root / part
    classes = _folders(folder)
    names: list[str] = []
    labels: list[int] = []
    faults = _one_within_another(folder, classes)
    for label, name in enumerate(classes):
        _require_class(root, folder / name)
        found = _images(root, folder / name, left_out)
        if not found:
            message = "holds no image; remove this class folder, or put its images there"
            faults.append(Fault("empty_class", str(folder / name), message))
        names += found
        labels += [label] * len(found)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if reason := _passed_over(entry):
            left_out.setdefault(reason, []).append(Path(part, entry.name).as_posix())
    if not names:
        faults = [Fault("empty_folder", str(folder), "it holds no class folder with images")]
    return Listing(root, folder, names, np.array(labels, np.int64), faults, tuple(classes), left_out)


def _one_within_another(folder: Path, classes: Sequence[str]) -> list[Fault]:
    """Return a fault for each class folder that is, by a link, another one of these or lies within it."""
    links = {name: (folder / name).resolve() for name in classes if (folder / name).is_symlink()}
    if not links:
        return []
    places = {(folder / name).resolve(): name for name in classes if name not in links}
    faults = []
    for name, target in links.items():
        other = next((places[place] for place in (target, *target.parents) if place in places), None)
        if other is not None:
            message = (
                f"is a link into the class folder {other}/, so that images would have two labels; remove it"
            )
            faults.append(Fault("linked_class", str(folder / name), message))
        places.setdefault(target, name)
    return faults


def _require_class(root: Path, folder: Path) -> None:
    """Check that a class folder does not hold folders of splits.

    Raises:
        UserError: it does, so that the root is a level too high.
    """
    try:
        inside = split_folders(folder)
    except OSError:
        return
    if {"train", "test"} & inside.keys():
        held = ", ".join(f"{name}/" for name in inside.values())
        raise UserError(
            f"{root}: its folder {folder.name}/ holds {held}, so it is no class; the root is a level too "
            f"high: data.root={folder}"
        )


def _images(root: Path, folder: Path, left_out: LeftOut) -> list[str]:
    """Return the sorted paths of the images in a class folder and its subfolders, relative to the root."""
    found = []
    for directory, below, files in os.walk(folder):
        inside = Path(directory).relative_to(root)
        for name in [*below]:
            linked = os.path.islink(os.path.join(directory, name))
            deep = len(inside.parts) > DEEPEST
            if linked or deep or is_litter(name):
                below.remove(name)
                reason = LITTERED if is_litter(name) else "links to folders" if linked else "deeper folders"
                left_out.setdefault(reason, []).append((inside / name).as_posix())
        for name in files:
            suffix = os.path.splitext(name)[1]
            if suffix.lower() in IMAGES and not is_litter(name):
                found.append(f"{inside.as_posix()}/{name}")
            else:
                other = f"files with suffix {suffix.lower()}" if suffix else "files without suffix"
                reason = LITTERED if is_litter(name) else other
                left_out.setdefault(reason, []).append((inside / name).as_posix())
    return sorted(found)


def images_of_folder(folder: Path) -> tuple[list[Path], LeftOut]:
    """Return the sorted images in a folder and its subfolders, and what else is there, by reason."""
    left_out: LeftOut = {}
    return [folder / name for name in _images(folder, folder, left_out)], left_out


def _beside(root: Path, folders: Mapping[str, str], left_out: LeftOut) -> None:
    """Add the files of folders that stand beside train/ and test/ to what is left out."""
    used = {folders["train"], folders["test"]}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if reason := _passed_over(entry):
            left_out.setdefault(reason, []).append(entry.name)
        elif entry.name not in used:
            why = (
                "train/ alone gives validation images" if SPLIT_NAMES.get(entry.name.lower()) else "no split"
            )
            images = _images(root, Path(entry.path), {})
            left_out.setdefault(f"images in {entry.name}/ ({why})", []).extend(images or [entry.name])


def _chosen(pool: Listing, index: NDArray[np.int64]) -> Listing:
    """Return the images of a listing at some indices."""
    return replace(pool, names=[pool.names[i] for i in index], labels=pool.labels[index])
