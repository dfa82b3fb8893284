"""Splits of a task as uint8 arrays, checked against its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from petl_bench.errors import UserError
from petl_bench.registry import Registry
from petl_bench.types import SPLITS, TaskSpec


@dataclass(frozen=True)
class Split:
    """Images (N, channels, height, width) in 0..255, channels 1 or 3, and labels (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice) -> Split:
        return Split(self.images[index], self.labels[index])


def concatenate(first: Split, second: Split) -> Split:
    """Both splits' images, the first's before the second's."""
    return Split(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


SOURCES: Registry[Callable[[int], Split]] = Registry("data source")
"""Generators and readers: number of images in all -> the images in the order train800, val200, test."""


def load(task: TaskSpec, split: str) -> Split:
    """One split of a task, verified; `train800val200` is the two training splits together.

    Raises:
        UserError: the data are not those that the manifest describes.
    """
    splits = _verified(task.name, task.source, tuple(task.splits.items()), task.classes, task.fingerprint)
    if split == "train800val200":
        return concatenate(splits["train800"], splits["val200"])
    return splits[split]


@cache
def _verified(
    name: str, source: str, sizes: tuple[tuple[str, int], ...], classes: int, fingerprint: str
) -> Mapping[str, Split]:
    splits = read(source, dict(sizes))
    found = digest(splits)
    if found != fingerprint:
        raise UserError(
            f"task {name}: the data have fingerprint {found[:16]}..., "
            f"its manifest says {fingerprint[:16]}...; "
            "the library that ships or draws the images has changed them, so results would not compare"
        )
    labels = np.concatenate([split.labels for split in splits.values()])
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"task {name}: labels reach {labels.max()}, its manifest says {classes} classes")
    return splits


def read(source: str, sizes: Mapping[str, int]) -> dict[str, Split]:
    """All splits of a source, unverified, cut in the order train800, val200, test."""
    everything = SOURCES.get(source)(sum(sizes.values()))
    splits, start = {}, 0
    for split in SPLITS:
        splits[split] = everything[start : start + sizes[split]]
        start += sizes[split]
    return splits


def digest(splits: Mapping[str, Split]) -> str:
    """SHA-256 over names, shapes, images and labels (int64, little-endian) of all splits."""
    sha = hashlib.sha256()
    for name in SPLITS:
        images, labels = splits[name].images, splits[name].labels
        sha.update(f"{name} {images.shape}".encode())
        sha.update(np.ascontiguousarray(images).tobytes() + labels.astype("<i8").tobytes())
    return sha.hexdigest()
