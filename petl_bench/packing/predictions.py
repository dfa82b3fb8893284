"""Predictions of a run on the test images, packed.

A file states which images are classified correctly, and the predicted classes of the others. It does not hold
the labels, since the data set has them.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petl_bench.errors import UserError

Classes = NDArray[np.int64]

_HEADER = struct.Struct("<II")
"""Number of images and number of classes, before the bits and the classes; all are compressed as one."""
_MOST = 256
"""Number of classes up to which a class is one byte; beyond it, it is two."""
MOST_IMAGES = 10**8
"""Maximum number of images, beyond which a file is no file of predictions."""


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of the test images.

    Attributes:
        right: whether each image is classified correctly: (images,).
        wrong: classes that are predicted for the other images, in order: (images that are not right,).
        classes: number of classes of the task.
    """

    right: NDArray[np.bool_]
    wrong: Classes
    classes: int

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self.right)

    @property
    def correct(self) -> int:
        """Number of images that are classified correctly."""
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are classified correctly."""
        return self.correct / self.images

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of a SHA-256; equal for equal predictions on the same images."""
        return hashlib.sha256(self._content()).hexdigest()[:16]

    def given(self, labels: Classes) -> Classes:
        """Return the predicted class of each image (images,), given the labels of all images (images,)."""
        predicted = labels.copy()
        predicted[~self.right] = self.wrong
        return predicted

    def differing(self, other: Predictions) -> int:
        """Return the number of images for which another run on the same images predicts another class."""
        neither = ~(self.right | other.right)
        same = self.wrong[neither[~self.right]] == other.wrong[neither[~other.right]]
        return int((self.right != other.right).sum() + (~same).sum())

    def pack(self) -> bytes:
        """Return the content of a file; `unpack` reads it."""
        return zlib.compress(self._content(), 9)

    def _content(self) -> bytes:
        header, bits = _HEADER.pack(self.images, self.classes), np.packbits(self.right, bitorder="little")
        return header + bits.tobytes() + self.wrong.astype(_dtype(self.classes)).tobytes()


def compared(predicted: Classes, labels: Classes, classes: int) -> Predictions:
    """Return the predictions of a model.

    Args:
        predicted: predicted class of each image: (images,).
        labels: true class of each image: (images,).
        classes: number of classes of the task.
    """
    right = predicted == labels
    return Predictions(right, predicted[~right], classes)


def unpack_predictions(data: bytes, where: str) -> Predictions:
    """Return the predictions that `Predictions.pack` has packed.

    Args:
        data: content of a file.
        where: path of the file, for messages.

    Raises:
        UserError: the file is truncated, altered or foreign.
    """
    decoder = zlib.decompressobj()
    try:
        header = decoder.decompress(data, _HEADER.size)
        images, classes = _HEADER.unpack(header)
        size = (images + 7) // 8 + images * _dtype(classes).itemsize
        if not 0 < images <= MOST_IMAGES:
            raise ValueError("it states no number of images")
        content = decoder.decompress(decoder.unconsumed_tail, size + 1)  # never more, whatever is compressed
        if not decoder.eof or decoder.unused_data:
            raise ValueError("it is truncated, or something follows")
        bits = np.frombuffer(content, np.uint8, (images + 7) // 8)
        wrong = np.frombuffer(content[len(bits) :], _dtype(classes)).astype(np.int64)
    except (zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{where}: damaged file of predictions: {error}") from error
    found = Predictions(np.unpackbits(bits, count=images, bitorder="little").astype(bool), wrong, classes)
    if len(wrong) != images - found.correct or (len(wrong) and wrong.max() >= classes):
        raise UserError(f"{where}: damaged file of predictions: its classes are not those of wrong images")
    return found


def _dtype(classes: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    return np.dtype("<u1") if classes <= _MOST else np.dtype("<u2")
