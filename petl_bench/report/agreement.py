"""Comparison of the predictions of two runs on the same test images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petl_bench.packing import Predictions


@dataclass(frozen=True)
class Agreement:
    """Numbers of test images by which of two runs, A and B, classifies them correctly.

    Attributes:
        both, only_a, only_b, neither: the four numbers; their sum is the number of images.
        p: p-value of the exact McNemar test, two-sided: the probability of a split of the images that one
            run alone classifies correctly at least as uneven as this one, if each had been right with
            probability 1/2.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float


def agreement(a: Predictions, b: Predictions) -> Agreement:
    """Compare two runs by the exact McNemar test (McNemar 1947, Psychometrika 12).

    Args:
        a, b: predictions on the same images.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    both = int((a.right & b.right).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return Agreement(both, only_a, only_b, a.images - both - only_a - only_b, p)


def by_class(a: Predictions, b: Predictions, labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the images of each class: all, those right in a run, and those right in one run alone."""
    counted = {
        "images": np.ones(a.images, bool),
        "right_a": a.right,
        "right_b": b.right,
        "only_a": a.right & ~b.right,
        "only_b": b.right & ~a.right,
    }
    counts = {name: np.bincount(labels[held], minlength=a.classes) for name, held in counted.items()}
    return [
        {"class": number, **{name: int(count[number]) for name, count in counts.items()}}
        for number in range(a.classes)
    ]


def confusions(a: Predictions, b: Predictions, labels: NDArray[np.int64]) -> list[dict[str, int]]:
    """Return the pairs of label and wrongly predicted class with their images in each run, the most first."""
    found = [_confused(held, labels) for held in (a, b)]
    pairs = sorted(
        found[0].keys() | found[1].keys(), key=lambda pair: (-found[0][pair] - found[1][pair], pair)
    )
    return [
        {"label": pair[0], "predicted": pair[1], "images_a": found[0][pair], "images_b": found[1][pair]}
        for pair in pairs
    ]


def _confused(predictions: Predictions, labels: NDArray[np.int64]) -> Counter[tuple[int, int]]:
    return Counter(zip(labels[~predictions.right].tolist(), predictions.wrong.tolist(), strict=True))
