"""Data whose lists stand in a folder `lists`."""

from pathlib import Path

from petl_bench.data.layouts import LAYOUTS, Layout
from petl_bench.data.lists import Listing, read_list
from petl_bench.types import Manifest, TaskSpec

NAMES = {"train": "train.txt", "val": "val.txt", "trainval": "both.txt", "test": "test.txt"}


def locate(manifest: Manifest, root: Path) -> dict[str, str]:
    """Return the folders of a task."""
    return {"lists": str(root / manifest.folders[0] / "lists"), "images": str(root / manifest.folders[0])}


def listings(task: TaskSpec) -> dict[str, Listing]:
    """Return the listings of a located task."""
    lists, images = Path(task.place["lists"]), Path(task.place["images"])
    return {split: read_list(lists / name, images) for split, name in NAMES.items()}


LAYOUTS.register("listed")(Layout(locate, listings))
