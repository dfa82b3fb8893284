"""Registration of the tasks of suite `pocket19`: each is a function that draws any number of images.

All arithmetic that decides a pixel uses integers, and random numbers come from numpy's RandomState, whose
stream is frozen. So the images are the same on every machine. Training and test images come from streams of
their own, and, where they show parts of files (photographs, scans, terrain), from separate parts of these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from petl_bench.data.base import GENERATORS, Pixels, Split, concatenate
from petl_bench.registry import Registry

Numbers = NDArray[np.integer]

SUITE = "pocket19"
TRAINING = 1000
"""Number of images for training and validation."""
CHUNK = 50
"""Images drawn at once, so that little memory is needed."""

Draw = Callable[[RandomState, int, bool], tuple[Numbers, Numbers]]
"""Random stream, number N, whether to draw test images -> images (N, 32, 32) in 0..255, labels (N,)."""

DRAWS: Registry[Draw] = Registry("drawing")
"""The functions that draw the tasks, by name of the task."""


def task(name: str) -> Callable[[Draw], Draw]:
    """Return a decorator that registers a drawing as task and as generator `pocket19_NAME`."""

    def register(draw: Draw) -> Draw:
        full = f"{SUITE}_{name}"

        def generator(count: int) -> Split:
            training = min(count, TRAINING)
            return concatenate(part(full, training, test=False), part(full, count - training, test=True))

        GENERATORS.register(full)(generator)
        return DRAWS.register(full)(draw)

    return register


def part(name: str, count: int, test: bool) -> Split:
    """Return the first images of one stream of a task.

    Args:
        name: name of the task.
        count: number of images; any number can be drawn.
        test: draw test images; otherwise images for training and validation.
    """
    draw = DRAWS.get(name)
    random = RandomState([*name.encode(), int(test)])
    images: Pixels = np.empty((count, 1, 32, 32), np.uint8)
    labels = np.empty(count, np.int64)
    for start in range(0, count, CHUNK):
        drawn, label = draw(random, CHUNK, test)
        here = slice(start, min(start + CHUNK, count))
        images[here, 0] = np.clip(drawn, 0, 255)[: here.stop - start]
        labels[here] = label[: here.stop - start]
    return Split(images, labels)
