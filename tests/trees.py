"""Folders in the exact layouts of the benchmarks, with small generated images that a model can learn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from petl_bench.data import manifests
from petl_bench.types import Manifest
from tests.golden import FewShotSet

VTAB = [manifest for manifest in manifests().values() if manifest.suite == "vtab"]
TESTS = 2
"""Test images per class in the small test sets."""


def picture(label: int, number: int, side: int) -> Image.Image:
    """Return a unique picture whose colour and stripes depend on its class."""
    random = np.random.RandomState((label * 100_003 + number) % 2**32)
    colour = np.array([(label * 83 + 40) % 200 + 28, (label * 47 + 90) % 200 + 28, (label * 29) % 200 + 28])
    wave = np.sin(np.arange(side) * (0.3 + label % 7) + label)[None, :, None]
    pixels = colour + 25 * wave + random.normal(0, 12, (side, side, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path) -> None:
    """Save as JPEG of quality 90 or as PNG, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


def vtab_task(
    folder: Path, classes: int, sizes: dict[str, int], suffix: str = ".jpg", side: int = 24, seen: int = 0
) -> None:
    """Write one task in the layout of VTAB-1K.

    Args:
        sizes: of train, val and test.
        seen: classes that training images show; 0: all.
    """
    names = {"train": "train800", "val": "val200", "test": "test"}
    number, lists = 0, {}
    for split, name in names.items():
        lines = []
        for index in range(sizes[split]):
            label = number % (classes if split == "test" else seen or classes)
            path = f"images/{name}/{index:06d}{suffix}"
            save(picture(label, number, side), folder / path)
            lines.append((path, label))
            number += 1
        lists[split] = lines
    both, union = [*lists["train"], *lists["val"]], []
    (folder / "images/train800val200").mkdir()
    for index, (path, label) in enumerate(both):
        copy = f"images/train800val200/{index:06d}{suffix}"
        os.link(folder / path, folder / copy)
        union.append((copy, label))
    for name, lines in (*((names[s], lists[s]) for s in names), ("train800val200", union)):
        write_list(folder / f"{name}.txt", lines)


def write_list(path: Path, lines: Sequence[tuple[str, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} {label}\n" for name, label in lines))


def vtab(root: Path, tasks: Sequence[Manifest] = VTAB, fewer: Collection[str] = ()) -> Path:
    """Write tasks with 1,000 training images and small test sets; return the override file that states these.

    The tasks named in `fewer` have 80, those of many classes 200.

    svhn and eurosat hold PNG files, the others JPEG; svhn, cifar, dsprites and others are smaller than 32
    pixels, resisc45 and kitti larger.
    """
    overrides = {}
    for manifest in tasks:
        name = manifest.folders[0]
        changed = {"test": max(TESTS * manifest.classes, 20)}
        if manifest.name in fewer:
            changed = few(manifest) | changed
        sizes = manifest.splits | changed
        suffix = ".png" if name in ("svhn", "eurosat") else ".jpg"
        side = 40 if name in ("resisc45", "kitti") else 24
        vtab_task(root / name, manifest.classes, sizes, suffix, side, manifest.train_classes)
        overrides[manifest.name] = {"splits": changed}
    path = root.parent / f"{root.name}-override.yaml"
    path.write_text(yaml.safe_dump(overrides))
    return path


def few(manifest: Manifest) -> dict[str, int]:
    """Return small sizes of train and val in which every class has an image."""
    return {"train": 160, "val": 40} if manifest.classes > 64 else {"train": 64, "val": 16}


def few_shot(root: Path, chosen: FewShotSet, lists: Sequence[str] = ()) -> Path:
    """Write the lists of a few-shot set, val and test cut short, and generated images of several sizes.

    Args:
        lists: names of the lists to write; none: all.

    Returns:
        The override file that states the sizes of val and test.
    """
    wanted = dict[str, int]()
    target = root / chosen.manifest.folders[0] / "annotations"
    target.mkdir(parents=True)
    for path in sorted(chosen.lists.glob("*_meta.list*")):
        if path.name == "train_meta.list" or (lists and path.name not in lists):
            continue
        lines = path.read_text().splitlines(keepends=True)
        if path.name in ("val_meta.list", "test_meta.list"):
            lines = lines[:: len(lines) // chosen.held][: chosen.held]
        (target / path.name).write_text("".join(lines))
        for line in lines:
            image, label = line.rsplit(" ", 1)
            wanted[image] = int(label)
    for image, label in wanted.items():
        number = int.from_bytes(hashlib.sha256(image.encode()).digest()[:3], "big")
        save(picture(label, number, 30 + number % 25), root / chosen.manifest.images[0] / image)
    overrides = {chosen.manifest.name: {"splits": {"val": chosen.held, "test": chosen.held}}}
    path = root.parent / f"{root.name}-override.yaml"
    path.write_text(yaml.safe_dump(overrides))
    return path
