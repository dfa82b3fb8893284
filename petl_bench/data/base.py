"""Splits of a task as uint8 arrays, and the registry of generators for bundled tasks."""

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
    """Images of different sizes in one flat array.

    Attributes:
        flat: the pixels of all images, one image after another, each in the order (height, width, 3).
        heights, widths: (N,) in pixels.
    """

    flat: Pixels
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.heights)

    def offsets(self) -> NDArray[np.int64]:
        """Return the offset of each image in `flat` and the end of the last one: (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.heights * self.widths * 3)])


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: (N, channels, height, width) in 0..255 with 1 or 3 channels; or Ragged, in native sizes.
        labels: (N,).
    """

    images: Pixels | Ragged
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice) -> Split:
        assert isinstance(self.images, np.ndarray)
        return Split(self.images[index], self.labels[index])


def concatenate(first: Split, second: Split) -> Split:
    """Return one split with the images of `first` followed by those of `second`."""
    assert isinstance(first.images, np.ndarray)
    assert isinstance(second.images, np.ndarray)
    return Split(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


GENERATORS: Registry[Callable[[int], Split]] = Registry("data source", "GENERATORS")
"""Functions by task that return a given number of images, in the order train, val, test."""


def generate(source: str, sizes: Mapping[str, int]) -> dict[str, Split]:
    """Return all splits of a bundled task, without a check of their content.

    Args:
        source: name of the generator.
        sizes: number of images by split.
    """
    everything = GENERATORS.get(source)(sum(sizes.values()))
    splits, start = {}, 0
    for split in SPLITS:
        splits[split] = everything[start : start + sizes[split]]
        start += sizes[split]
    return splits


def digest(splits: Mapping[str, Split]) -> str:
    """Return the fingerprint of generated splits.

    The fingerprint is the SHA-256 over names, shapes, images and labels (int64, little-endian) of all splits.
    """
    sha = hashlib.sha256()
    for name in SPLITS:
        images, labels = splits[name].images, splits[name].labels
        assert isinstance(images, np.ndarray)
        sha.update(f"{name} {images.shape}".encode())
        sha.update(np.ascontiguousarray(images).tobytes() + labels.astype("<i8").tobytes())
    return sha.hexdigest()
