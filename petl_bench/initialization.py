"""The seeded initialization of trainable matrices, from words that no library's release changes.

The stream of a tensor is SHAKE-256 (FIPS 202) of the text `petl-bench/SEED/NAME`, read as little-endian
32-bit words, row-major. A word w stands for the probability (w + 0.5) / 2**32; a value is the quantile of its
distribution there. An adapter file that states the seed thus states every initial value: the coded payload
predicts the trained codes from these words (petl_bench.packing).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Values = NDArray[np.float32]
Initializer = Callable[[int, str, tuple[int, int]], Values]
"""Seed, name and shape (outputs, inputs) of a matrix -> its initial values."""


def words(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """The words of tensor `name`: uint32 of `shape`."""
    stream = hashlib.shake_256(f"petl-bench/{seed}/{name}".encode())
    return np.frombuffer(stream.digest(4 * math.prod(shape)), "<u4").astype(np.uint32).reshape(shape)


def linear(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """Uniform between -1 and 1 over the square root of the inputs, the distribution of torch's Linear."""
    return ((2 * _probabilities(seed, name, shape) - 1) / math.sqrt(shape[1])).astype(np.float32)


def uniform(bound: float) -> Initializer:
    """Uniform between -bound and bound."""

    def initialize(seed: int, name: str, shape: tuple[int, int]) -> Values:
        return (bound * (2 * _probabilities(seed, name, shape) - 1)).astype(np.float32)

    return initialize


def xavier(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """Uniform within the square root of 6 / (inputs + outputs) (Glorot and Bengio 2010)."""
    return uniform(math.sqrt(6 / sum(shape)))(seed, name, shape)


def normal(std: float, cut: float = math.inf) -> Initializer:
    """Normal, cut off at -cut and cut deviations; its last bits are those of scipy's quantile."""

    def initialize(seed: int, name: str, shape: tuple[int, int]) -> Values:
        low, high = ndtr(-cut), ndtr(cut)
        return (std * ndtri(low + _probabilities(seed, name, shape) * (high - low))).astype(np.float32)

    return initialize


def given(values: Any) -> Initializer:
    """These, an array or a tensor, whatever the seed; read when they are needed."""
    return lambda seed, name, shape: np.asarray(values, np.float32).reshape(shape)


def near_zero(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """A normal of std 1e-3, cut off at -2e-3 and 2e-3."""
    return normal(1e-3, 2)(seed, name, shape)


def zero(seed: int, name: str, shape: tuple[int, int]) -> Values:
    """Zeros, whatever the seed."""
    return np.zeros(shape, np.float32)


def _probabilities(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return (words(seed, name, shape) + 0.5) / 2**32
