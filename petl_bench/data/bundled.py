"""Bundled tasks of real images from installed packages: scikit-learn (digits) and scikit-image (surfaces)."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petl_bench.data.base import GENERATORS, Split

SIZE = 32


@GENERATORS.register("digits")
def digits(count: int) -> Split:
    """Return scanned handwritten digits, enlarged from 8x8 to 32x32 pixels by PIL's bilinear filter.

    Source: test part (1,797 images) of the UCI data set Optical Recognition of Handwritten Digits.
    """
    order, (large, labels) = np.random.RandomState(0).permutation(1797)[:count], digit_scans()
    return Split(large[order][:, None], labels[order])


@cache
def digit_scans() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all scans of handwritten digits in 32x32 pixels, and their labels, in the order of the file."""
    with gzip.open(package_file("sklearn", "datasets/data/digits.csv.gz"), "rt") as lines:
        table = np.loadtxt(lines, delimiter=",").astype(np.int64)  # 64 pixels from 0 to 16, then the digit
    small = np.minimum(table[:, :64].reshape(-1, 8, 8) * 16, 255).astype(np.uint8)
    large = [Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in small]
    return np.stack([np.asarray(image) for image in large]), table[:, 64]


SURFACES = ("brick", "grass", "gravel", "ihc", "moon")


@GENERATORS.register("surfaces")
def surfaces(count: int) -> Split:
    """Return 32x32 crops of five photographed surfaces: brick, grass, gravel, stained tissue and the moon.

    Training, validation and test crops come from separate columns of each 512x512 image (0 to 255, 256 to
    319, 320 to 511). They are grey, rotated by multiples of 90 degrees, and have equal mean and contrast.
    """
    grey = [luma(np.asarray(Image.open(package_file("skimage", f"data/{name}.png")))) for name in SURFACES]
    random = np.random.RandomState(4)
    label = random.randint(len(SURFACES), size=count).astype(np.int64)
    turn, top = random.randint(4, size=count), random.randint(512 - SIZE + 1, size=count)
    images = np.empty((count, 1, SIZE, SIZE), np.uint8)
    for i in range(count):
        low, high = (0, 256) if i < 800 else (256, 320) if i < 1000 else (320, 512)
        left = random.randint(low, high - SIZE + 1)
        crop = grey[label[i]][top[i] : top[i] + SIZE, left : left + SIZE]
        images[i, 0] = leveled(np.rot90(crop, turn[i]))
    return Split(images, label)


def package_file(package: str, path: str) -> Path:
    """Return the path of a file of an installed package without the seconds of importing it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / path


def luma(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the luma in 0..255, by integer weights; a grey image is returned unchanged."""
    wide = image.astype(np.int64)
    return wide if wide.ndim == 2 else wide @ np.array([299, 587, 114]) // 1000


def leveled(crop: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Normalize a crop to mean 128 and standard deviation 48, so that neither reveals the class."""
    total, count = crop.sum(), crop.size
    std = np.sqrt(float(count * (crop * crop).sum() - total * total)) / count
    level = (crop - total / count) * (48 / (std + 1)) + 128
    return np.clip(np.rint(level), 0, 255).astype(np.uint8)
