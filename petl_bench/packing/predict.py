"""Adaptive model of the codes of quantized matrices, in integer arithmetic, so it is exact on any machine.

A matrix is a table of positions (its longer axis) by units (its shorter axis: an adapter's hidden units).
Codes are processed position by position. At each position the upper bits of all units, called signs, come
first, in the order of units; the lower bits follow plane by plane:

    logit of a sign   bias of the unit + weights times the signs of the earlier units at this position
                      + gain times the initial value, where the seed is known
    logit of a bit    bias of the unit in this plane + value of the node, which is the tuple of higher bits,
                      mirrored so that equal distances from the middle share a node

All parameters are initialized to constants and follow the gradient of the code length with a learning rate
that falls with the square root of the position (online logistic regression). Logits, parameters and
probabilities are in units of 2**-16. Matrices of one shape are processed together, each with its own
parameters and learning rate.
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
"""Fixed-point 1 of logits and probabilities."""
RATES = tuple(128 << k for k in range(7))
"""Learning rates to choose from, 1/512 to 1/8 in units of 2**-16."""
_REACH = 8
"""Logits are clipped to -8 and 8."""
_STEPS = 256
"""Entries of the table per unit of the logit."""
_RAREST = 32
"""Smallest probability, which limits the code length of a bit to 11 bits."""
_GAIN, _GAIN_RATE = ONE, 4096
_NODE_RATE = 2048


@cache
def _probabilities() -> Integers:
    """Return the logistic function from -8 to 8, in decimal arithmetic, whose digits are all specified."""
    with localcontext(Context(prec=30)):
        first, factor = (Decimal(-1) / (2 * _STEPS)).exp(), (Decimal(-1) / _STEPS).exp()
        powers = accumulate(range(_REACH * _STEPS - 1), lambda power, _: power * factor, initial=first)
        upper = [int((ONE / (1 + power)).to_integral_value()) for power in powers]
    table = np.array([ONE - value for value in reversed(upper)] + upper, np.int64)
    return np.clip(table, _RAREST, ONE - _RAREST)


def probability(logits: Integers | Short) -> Integers:
    """Return the probability of a 1 for each logit, both in units of 2**-16."""
    table = _probabilities()
    # Not np.clip, which takes several times as long for small arrays.
    return table[np.minimum(np.maximum((logits + _REACH * ONE) >> 8, 0), len(table) - 1)]


class Predictor:
    """Prediction of the codes of a stack of matrices, position by position.

    Args:
        units: number of units.
        bits: bits per code.
        rates: learning rate of each matrix: (matrices,).
        initial: initial values from -2**15 to 2**15: (matrices, positions, units); 0 where unknown.
    """

    def __init__(self, units: int, bits: int, rates: Integers, initial: Integers) -> None:
        matrices = len(rates)
        self.rates = rates
        self.initial = initial
        self.biases = np.zeros((matrices, units), np.int64)
        # 32 bits for speed: an overflow would wrap around equally in the encoder and the decoder.
        self.weights = np.zeros((matrices, units, units), np.int32)
        self.is_earlier = np.tril(np.ones((units, units), np.int32), -1)
        self.gain = np.full((matrices, 1), _GAIN, np.int64)
        self.nodes = np.zeros((matrices, 1 << (bits - 1)), np.int64)
        self.plane_biases = np.zeros((max(bits - 1, 1), matrices, units), np.int64)
        self.position = -1
        self.step = np.zeros((matrices, 1), np.int64)

    def advance(self) -> Short:
        """Go to the next position and return the logits of its signs without earlier signs."""
        self.position += 1
        falling = math.isqrt((1 << 23) // (8 + self.position))
        self.step = (self.rates[:, None] * falling) >> 8
        return (self.biases + ((self.gain * self.initial[:, self.position]) >> 15)).astype(np.int32)

    def earlier_signs(self, signs: Short) -> Short:
        """Return the signs of the earlier units for each unit, 0 for the others: (matrices, units, units).

        Args:
            signs: signs of a position, -1 or 1: (matrices, units).
        """
        return signs[:, None, :] * self.is_earlier

    def sign_logits(self, logits: Short, earlier: Short) -> Short:
        """Return the logits of all signs (matrices, units), given the earlier signs of each unit."""
        return logits + np.einsum("muv,muv->mu", self.weights, earlier)

    def add_sign(self, logits: Short, unit: int, signs: Short) -> None:
        """Add the contribution of the signs (matrices,) of `unit` to the logits of the units after it."""
        logits += self.weights[:, :, unit] * signs[:, None]

    def update_signs(self, signs: Short, earlier: Short, probabilities: Integers) -> None:
        """Update the parameters of signs once all signs of a position are known."""
        errors = (signs + 1) * (ONE // 2) - probabilities
        change = (self.step * errors) >> 16
        self.biases += change
        self.weights += change.astype(np.int32)[:, :, None] * earlier
        gradient = ((errors * self.initial[:, self.position]) >> 15).sum(1, keepdims=True)
        self.gain += (_GAIN_RATE * gradient) >> 16

    def plane_logits(self, plane: int, nodes: Integers) -> Integers:
        """Return the logits of the bits of a plane below the signs: (matrices, units).

        Args:
            plane: number of the plane, from 0.
            nodes: node of each unit: (matrices, units).
        """
        return self.plane_biases[plane] + np.take_along_axis(self.nodes, nodes, 1)

    def update_plane(self, plane: int, nodes: Integers, bits: Integers, probabilities: Integers) -> None:
        """Update the parameters of a plane once its bits, 0 or 1, are known: (matrices, units)."""
        errors = bits * ONE - probabilities
        self.plane_biases[plane] += (self.step * errors) >> 16
        np.add.at(self.nodes, (np.arange(len(nodes))[:, None], nodes), (_NODE_RATE * errors) >> 16)


def split_sign(codes: Integers, bits: int) -> tuple[Short, Integers]:
    """Split codes into signs (-1 or 1) and distances from the middle (0 to 2**(bits-1) - 1)."""
    half = 1 << (bits - 1)
    signs = np.where(codes >= half, np.int32(1), np.int32(-1))
    return signs, np.where(codes >= half, codes - half, half - 1 - codes)


def join_sign(signs: Short, distances: Integers, bits: int) -> Integers:
    """Return the codes that `split_sign` has split."""
    half = 1 << (bits - 1)
    return np.where(signs > 0, half + distances, half - 1 - distances)
