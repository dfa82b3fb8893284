"""Splits of a task as uint8 arrays, and the generators of the bundled tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petl_bench.registry import Registry
from petl_bench.types import SPLITS

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Ragged:
    """Images of different sizes, one after another in one flat array, each (height, width, 3)."""

    flat: Pixels
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.heights)

    def offsets(self) -> NDArray[np.int64]:
        """Where each image begins, and where the last one ends: (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.heights * self.widths * 3)])


@dataclass(frozen=True)
class Split:
    """Images and labels (N,).

    Images are (N, channels, height, width) in 0..255, channels 1 or 3; or Ragged in their native sizes.
    """

    images: Pixels | Ragged
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice) -> Split:
        assert isinstance(self.images, np.ndarray)
        return Split(self.images[index], self.labels[index])


def concatenate(first: Split, second: Split) -> Split:
    """Both splits' images, the first's before the second's."""
    assert isinstance(first.images, np.ndarray)
    assert isinstance(second.images, np.ndarray)
    return Split(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


GENERATORS: Registry[Callable[[int], Split]] = Registry("data source")
"""Bundled tasks: number of images in all -> the images in the order train, val, test."""


def generate(source: str, sizes: Mapping[str, int]) -> dict[str, Split]:
    """All splits of a generator, unverified, cut in the order train, val, test."""
    everything = GENERATORS.get(source)(sum(sizes.values()))
    splits, start = {}, 0
    for split in SPLITS:
        splits[split] = everything[start : start + sizes[split]]
        start += sizes[split]
    return splits


def digest(splits: Mapping[str, Split]) -> str:
    """SHA-256 over names, shapes, images and labels (int64, little-endian) of all generated splits."""
    sha = hashlib.sha256()
    for name in SPLITS:
        images, labels = splits[name].images, splits[name].labels
        assert isinstance(images, np.ndarray)
        sha.update(f"{name} {images.shape}".encode())
        sha.update(np.ascontiguousarray(images).tobytes() + labels.astype("<i8").tobytes())
    return sha.hexdigest()
