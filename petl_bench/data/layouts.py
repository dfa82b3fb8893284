"""Layouts of data folders, which manifests name as `source`: where the lists and images of a task are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from petl_bench.data.lists import Listing, read_list
from petl_bench.data.tree import tree_listings
from petl_bench.errors import AbsentError
from petl_bench.registry import Registry
from petl_bench.types import TRAINVAL, Manifest, TaskSpec

VTAB_LISTS = {
    "train": "train800.txt",
    "val": "val200.txt",
    TRAINVAL: "train800val200.txt",
    "test": "test.txt",
}


@dataclass(frozen=True)
class Layout:
    """One layout of data folders.

    Attributes:
        locate: returns the folders `lists` and `images` for a manifest and a root folder; raises a UserError
            if there are none.
        listings: returns the listings of train, val, trainval and test for a located task.
        split_folders: whether the list of each split may name only files of the split's own folder
            (`folder_of`).
    """

    locate: Callable[[Manifest, Path], dict[str, str]]
    listings: Callable[[TaskSpec], dict[str, Listing]]
    split_folders: bool = False


LAYOUTS: Registry[Layout] = Registry("data layout", "LAYOUTS")


def located(task: TaskSpec, manifest: Manifest) -> TaskSpec:
    """Return a planned task with the folders of its files in `place`.

    Raises:
        UserError: the folders are not in the root folder.
    """
    root = Path(task.place.get("root", "")).expanduser()
    if not root.is_dir():
        raise AbsentError(f"data.root={root}: no such folder; it must hold the images of {task.name}")
    layout = LAYOUTS.get(task.source)
    return replace(task, place={**task.place, "root": str(root), **layout.locate(manifest, root)})


def _first(root: Path, candidates: list[str], what: str, inside: str = "") -> Path:
    """Return the first folder `root/CANDIDATE/inside` that exists."""
    for name in candidates:
        if (root / name / inside).is_dir():
            return root / name / inside
    tried = ", ".join(str(Path(name) / inside) for name in candidates)
    raise AbsentError(f"{root}: holds no folder for {what}; looked for {tried}")


def _vtab_place(manifest: Manifest, root: Path) -> dict[str, str]:
    folder = str(_first(root, manifest.folders, manifest.name))
    return {"lists": folder, "images": folder}


def _vtab_listings(task: TaskSpec) -> dict[str, Listing]:
    lists, images = Path(task.place["lists"]), Path(task.place["images"])
    return {split: read_list(lists / name, images) for split, name in VTAB_LISTS.items()}


def _own_place(manifest: Manifest, root: Path) -> dict[str, str]:
    return {"lists": str(root), "images": str(root)}


def _few_shot_place(manifest: Manifest, root: Path) -> dict[str, str]:
    lists = _first(root, manifest.folders, f"the lists of {manifest.name}", "annotations")
    test = read_list(lists / "test_meta.list", lists).names
    holding = [name for name in manifest.images if test and (root / name / test[0]).is_file()]
    images = root / holding[0] if holding else _first(root, manifest.images, f"the images of {manifest.name}")
    return {"lists": str(lists), "images": str(images)}


def few_shot_list(shots: int, split_seed: int) -> str:
    """Return the file name of a training list of a few-shot set."""
    return f"train_meta.list.num_shot_{shots}.seed_{split_seed}"


def _few_shot_listings(task: TaskSpec) -> dict[str, Listing]:
    lists, images = Path(task.place["lists"]), Path(task.place["images"])
    train = read_list(lists / few_shot_list(task.shots, task.split_seed), images)
    val, test = (read_list(lists / f"{split}_meta.list", images) for split in ("val", "test"))
    return {"train": train, "val": val, TRAINVAL: train, "test": test}


LAYOUTS.register("vtab")(Layout(_vtab_place, _vtab_listings, split_folders=True))
LAYOUTS.register("folder")(Layout(_own_place, _vtab_listings))
LAYOUTS.register("few_shot")(Layout(_few_shot_place, _few_shot_listings))
LAYOUTS.register("tree")(Layout(_own_place, tree_listings))


def folder_of(split: str) -> str:
    """Return the folder in which VTAB's layout keeps the files of a split, for example `images/train800`."""
    return f"images/{VTAB_LISTS[split].removesuffix('.txt')}"


def foreign(task: TaskSpec, split: str, listing: Listing) -> list[str]:
    """Return the listed files outside the split's own folder; none if the layout has no such folders."""
    own = f"{folder_of(split)}/" if LAYOUTS.get(task.source).split_folders else ""
    return [name for name in listing.names if own and name.rpartition("/")[0] + "/" != own]
