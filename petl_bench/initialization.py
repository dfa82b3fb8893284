"""Seeded initialization of trainable matrices that does not depend on library versions.

The random stream of a tensor is SHAKE-256 (FIPS 202) of the text `petl-bench/SEED/NAME`, read as
little-endian 32-bit words in row-major order. A word w stands for the probability (w + 0.5) / 2**32, and an
initial value is the quantile of its distribution at that probability. An adapter file that states the seed
thus states every initial value; the entropy coder predicts the trained codes from these words
(petl_bench.packing).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Initializer = Callable[[int, str, tuple[int, int]], Values]
"""Function of the seed, the name and the shape (outputs, inputs) of a matrix that returns its values."""


def words(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """Return the random words of a tensor.

    Args:
        seed: seed of the run.
        name: name of the tensor, for example adapter.0.down.
        shape: shape of the tensor.

    Returns:
        Words uniform over all uint32, of shape `shape`.
    """
    stream = hashlib.shake_256(f"petl-bench/{seed}/{name}".encode())
    return np.frombuffer(stream.digest(4 * math.prod(shape)), "<u4").astype(np.uint32).reshape(shape)


def linear(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """Initialize uniformly within 1 / sqrt(inputs), as torch.nn.Linear does."""
    return ((2 * _probabilities(seed, name, shape) - 1) / math.sqrt(shape[1])).astype(np.float32)


def uniform(bound: float) -> Initializer:
    """Return an initializer that is uniform between -bound and bound."""

    def initialize(seed: int, name: str, shape: tuple[int, int]) -> Values:
        return (bound * (2 * _probabilities(seed, name, shape) - 1)).astype(np.float32)

    return initialize


def xavier(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """Initialize uniformly within sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010)."""
    return uniform(math.sqrt(6 / sum(shape)))(seed, name, shape)


def normal(std: float, cutoff: float = math.inf) -> Initializer:
    """Return an initializer that is normal with mean 0, truncated at `cutoff` standard deviations.

    The last bits of a value depend on scipy's quantile function.

    Args:
        std: standard deviation before truncation.
        cutoff: largest magnitude of a value, in units of `std`.
    """

    def initialize(seed: int, name: str, shape: tuple[int, int]) -> Values:
        from scipy.special import ndtr, ndtri

        low, high = ndtr(-cutoff), ndtr(cutoff)
        return (std * ndtri(low + _probabilities(seed, name, shape) * (high - low))).astype(np.float32)

    return initialize


def given(values: Any) -> Initializer:
    """Return an initializer that gives `values` for any seed.

    Args:
        values: array or tensor, read when the matrix is initialized and reshaped to its shape.
    """
    return lambda seed, name, shape: np.asarray(values, np.float32).reshape(shape)


def near_zero(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """Initialize from a normal distribution of standard deviation 1e-3, truncated at -2e-3 and 2e-3."""
    return normal(1e-3, 2)(seed, name, shape)


def zero(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """Initialize with zeros for any seed."""
    return np.zeros(shape, np.float32)


def _probabilities(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return (words(seed, name, shape) + 0.5) / 2**32
