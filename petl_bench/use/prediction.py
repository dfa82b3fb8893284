"""Predictions: classes and probabilities of images, read ahead in threads while the model computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from petl_bench.data.file_facts import THREADS
from petl_bench.errors import DivergedError, UserError
from petl_bench.use.images import Image


@dataclass(frozen=True)
class ClassProbability:
    """A class of the task and its probability.

    Attributes:
        label: number of the class, from 0.
        name: its name; empty where it is not known.
        probability: softmax of the logits, from 0 to 1.
    """

    label: int
    name: str
    probability: float

    def __str__(self) -> str:
        """Return name, or number, and probability."""
        return f"{self.name or f'class {self.label}'} {self.probability:.4f}"


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        image: path of the image; empty for an image that was given opened.
        top: classes by descending probability; of equal ones the lower label comes first.
    """

    image: str
    top: tuple[ClassProbability, ...]

    @property
    def label(self) -> int:
        """The number of the predicted class."""
        return self.top[0].label

    @property
    def name(self) -> str:
        """The name of the predicted class; empty where it is not known."""
        return self.top[0].name

    @property
    def probability(self) -> float:
        """The probability of the predicted class."""
        return self.top[0].probability


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and the reason."""

    image: str
    reason: str


def predictions(
    prepare: Callable[[Image], Tensor],
    logits: Callable[[Tensor], Tensor],
    images: Sequence[Image],
    names: Sequence[str],
    top: int,
    batch_size: int,
) -> Iterator[Prediction | Unreadable]:
    """Yield the prediction of each image, or why it could not be read, in order.

    Args:
        prepare: image -> (3, S, S), uint8; raises a UserError for images that cannot be read.
        logits: (batch, 3, S, S), uint8 -> (batch, classes).
        images: the images.
        names: names of the classes; empty if they are not known.
        top: number of classes of a prediction.
        batch_size: images that pass through the model together.

    Raises:
        DivergedError: a logit is not finite.
    """

    for batch, ready in _read_ahead(prepare, images, batch_size):
        stacked = [image for image in ready if isinstance(image, Tensor)]
        rows = iter(_ranked(logits(torch.stack(stacked)), top) if stacked else ())
        for image, found in zip(batch, ready, strict=True):
            if isinstance(found, Unreadable):
                yield found
                continue
            classes = [
                ClassProbability(label, names[label] if names else "", probability)
                for label, probability in zip(*next(rows), strict=True)
            ]
            yield Prediction(_path(image), tuple(classes))


def _read_ahead(
    prepare: Callable[[Image], Tensor], images: Sequence[Image], batch_size: int
) -> Iterator[tuple[Sequence[Image], list[Tensor | Unreadable]]]:
    """Yield batches of images with what was read of them; the next one is read meanwhile."""

    def read(image: Image) -> Tensor | Unreadable:
        try:
            return prepare(image)
        except UserError as error:
            return Unreadable(_path(image), str(error))

    waiting: deque[tuple[Sequence[Image], list[Future[Tensor | Unreadable]]]] = deque()
    threads = ThreadPoolExecutor(THREADS)
    try:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            waiting.append((batch, [threads.submit(read, image) for image in batch]))
            if len(waiting) > 1:
                first, reading = waiting.popleft()
                yield first, [one.result() for one in reading]
        for first, reading in waiting:
            yield first, [one.result() for one in reading]
    finally:
        threads.shutdown(cancel_futures=True)


def _ranked(logits: Tensor, top: int) -> Iterator[tuple[list[int], list[float]]]:
    """Yield labels and probabilities of the most probable classes of each image.

    The first label is that of `argmax`: of equal logits that of the lower label.

    Raises:
        DivergedError: a logit is not finite.
    """
    if not logits.isfinite().all():
        raise DivergedError("the model's outputs are not finite: the file holds a training that has diverged")
    logits = logits.double().cpu()
    order = logits.sort(dim=1, descending=True, stable=True).indices[:, :top]
    probabilities = logits.softmax(1).gather(1, order)
    yield from zip(order.tolist(), probabilities.tolist(), strict=True)


def _path(image: Image) -> str:
    return str(image) if isinstance(image, str | Path) else ""
