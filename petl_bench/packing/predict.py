"""An adaptive model of the codes of quantized matrices, in integers: it says the same on any machine.

A matrix is a table of positions (its longer axis) by units (its shorter axis: an adapter's hidden units).
Codes come position by position. At each, first the upper bits of all units in order, called signs, then the
bits below, plane by plane:

    logit of a sign   bias of the unit + weights on the signs of the earlier units at this position
                      + pull times the initial value, where the seed is known
    logit of a bit    bias of the unit in this plane + value of the node (the bits above it, mirrored so that
                      equal distances from the middle share a node)

All parameters start at a constant and follow the gradient of the code length at a rate that falls with the
square root of the position (online logistic regression). Logits, parameters and probabilities are counts of
2**-16. Matrices of one shape step together, each with its own parameters and rate.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Short = NDArray[np.int32]

ONE = 1 << 16
"""The fixed-point 1, of logits as of probabilities."""
RATES = tuple(128 << k for k in range(7))
"""Learning rates to choose from: 1/512 to 1/8."""
_REACH = 8
"""Logits beyond -8 and 8 count as these."""
_STEPS = 256
"""Entries of the table for each 1 of the logit."""
_RAREST = 32
"""The least probability, which keeps a surprise at 11 bits."""
_PULL_START, _PULL_RATE = ONE, 4096
_NODE_RATE = 2048


@cache
def _probabilities() -> Integers:
    """The logistic function over -8 to 8, by decimal arithmetic, whose every digit is specified."""
    with localcontext(Context(prec=30)):
        first, factor = (Decimal(-1) / (2 * _STEPS)).exp(), (Decimal(-1) / _STEPS).exp()
        powers = accumulate(range(_REACH * _STEPS - 1), lambda power, _: power * factor, initial=first)
        upper = [int((ONE / (1 + power)).to_integral_value()) for power in powers]
    table = np.array([ONE - value for value in reversed(upper)] + upper, np.int64)
    return np.clip(table, _RAREST, ONE - _RAREST)


def probability(logits: Integers | Short) -> Integers:
    """Probability of a 1, in units of 2**-16."""
    table = _probabilities()
    return table[np.clip((logits + _REACH * ONE) >> 8, 0, len(table) - 1)]


class Predictor:
    """The state of a stack of matrices; `position` moves through them.

    Attributes:
        initial: (matrices, positions, units), from -2**15 to 2**15: the initial values; zeros where unknown.
    """

    def __init__(self, units: int, bits: int, rates: Integers, initial: Integers) -> None:
        matrices = len(rates)
        self.rates = rates
        self.initial = initial
        self.biases = np.zeros((matrices, units), np.int64)
        # 32 bits for speed: a sum beyond them would wrap around, in the decoder as in the encoder.
        self.weights = np.zeros((matrices, units, units), np.int32)
        self.earlier = np.tril(np.ones((units, units), np.int32), -1)
        self.pull = np.full((matrices, 1), _PULL_START, np.int64)
        self.nodes = np.zeros((matrices, 1 << (bits - 1)), np.int64)
        self.plane_biases = np.zeros((max(bits - 1, 1), matrices, units), np.int64)
        self.position = -1
        self.step = np.zeros((matrices, 1), np.int64)

    def advance(self) -> Short:
        """Go to the next position; the logits of its signs before any is known: (matrices, units)."""
        self.position += 1
        falling = math.isqrt((1 << 23) // (8 + self.position))
        self.step = (self.rates[:, None] * falling) >> 8
        return (self.biases + ((self.pull * self.initial[:, self.position]) >> 15)).astype(np.int32)

    def seen(self, signs: Short) -> Short:
        """What each unit knows of a position's signs, (matrices, units) of -1 and 1: one more axis."""
        return signs[:, None, :] * self.earlier

    def signs(self, logits: Short, seen: Short) -> Short:
        """Logits of all signs, given what each unit knows of the others: (matrices, units)."""
        return logits + np.einsum("muv,muv->mu", self.weights, seen)

    def see(self, logits: Short, unit: int, signs: Short) -> None:
        """Add to the logits what the signs (one a matrix) of `unit` say of the units after it."""
        logits += self.weights[:, :, unit] * signs[:, None]

    def learn_signs(self, signs: Short, seen: Short, probabilities: Integers) -> None:
        """Follow the gradient once the signs of a position are all known."""
        errors = (signs + 1) * (ONE // 2) - probabilities
        change = (self.step * errors) >> 16
        self.biases += change
        self.weights += change.astype(np.int32)[:, :, None] * seen
        gradient = ((errors * self.initial[:, self.position]) >> 15).sum(1, keepdims=True)
        self.pull += (_PULL_RATE * gradient) >> 16

    def plane(self, plane: int, nodes: Integers) -> Integers:
        """Logits of the bits of a plane below the signs: (matrices, units)."""
        return self.plane_biases[plane] + np.take_along_axis(self.nodes, nodes, 1)

    def learn_plane(self, plane: int, nodes: Integers, bits: Integers, probabilities: Integers) -> None:
        """The same for the bits, (matrices, units) of 0 and 1, of a plane."""
        errors = bits * ONE - probabilities
        self.plane_biases[plane] += (self.step * errors) >> 16
        np.add.at(self.nodes, (np.arange(len(nodes))[:, None], nodes), (_NODE_RATE * errors) >> 16)


def mirror(codes: Integers, bits: int) -> tuple[Short, Integers]:
    """Signs (-1 or 1) and distances from the middle (0 to 2**(bits-1) - 1) of codes; `unmirror` undoes it."""
    half = 1 << (bits - 1)
    signs = np.where(codes >= half, np.int32(1), np.int32(-1))
    return signs, np.where(codes >= half, codes - half, half - 1 - codes)


def unmirror(signs: Short, distances: Integers, bits: int) -> Integers:
    """The codes that `mirror` split."""
    half = 1 << (bits - 1)
    return np.where(signs > 0, half + distances, half - 1 - distances)
