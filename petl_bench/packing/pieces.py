"""Matrices of codes as stacks of pieces, and the predictions of their bits (petl_bench.packing.predict).

A matrix with more than MAX_UNITS units is split into nearly equal pieces, which are predicted independently.
Pieces of one shape are processed together, in the order in which their shapes first appear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from constriction import stream as range_coder
from numpy.typing import NDArray

from petl_bench.packing.predict import ONE, RATES, Integers, Predictor, join_sign, probability, split_sign

MAX_UNITS = 64
"""Maximum number of units of a piece."""
SEEDED = 1 + len(RATES)
"""First mode that uses initial values."""
BIT_MODEL = range_coder.model.Bernoulli(perfect=False)
"""Distribution of a bit in the range coder, given the probability of a 1."""
Words = NDArray[np.uint32]
Modes = NDArray[np.intp]


@dataclass(frozen=True)
class CodeMatrix:
    """A matrix to code or decode.

    Attributes:
        shape: shape of its codes; dimensions after the first are flattened into one.
        bits: bits per code, 1 to 8.
        words: random words of its initialization (petl_bench.initialization), of the same shape; None where
            unknown.
    """

    shape: tuple[int, ...]
    bits: int
    words: Words | None

    @property
    def table(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return (self.shape[0] if self.shape else 1), math.prod(self.shape[1:])

    def pieces(self, values: NDArray[np.generic]) -> list[Integers]:
        """Split values of the matrix into pieces (positions, units).

        Positions run along the longer axis, units along the shorter one.
        """
        table = values.reshape(self.table).astype(np.int64)
        table = table if table.shape[0] >= table.shape[1] else table.T
        return np.array_split(table, -(-table.shape[1] // MAX_UNITS) or 1, axis=1)

    def join(self, pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the values, in the shape of the matrix, that `pieces` has split."""
        table = np.concatenate(pieces, axis=1)
        table = table if self.table[0] >= self.table[1] else table.T
        return table.reshape(self.shape)


@dataclass(frozen=True)
class PieceStack:
    """Pieces of one shape and number of bits.

    Attributes:
        places: index of the matrix of each piece, and the number of the piece within the matrix.
        bits: bits per code.
        initial: (pieces, positions, units): initial values in units of the predictor; 0 where unknown.
    """

    places: list[tuple[int, int]]
    bits: int
    initial: Integers

    @property
    def owners(self) -> NDArray[np.intp]:
        """Index of the matrix of each piece: (pieces,)."""
        return np.array([index for index, _ in self.places])

    def repeated(self, times: int, matrices: int) -> PieceStack:
        """Return copies of the stack; the matrices of copy k are numbered from k * `matrices`."""
        places = [(copy * matrices + index, number) for copy in range(times) for index, number in self.places]
        return PieceStack(places, self.bits, np.tile(self.initial, (times, 1, 1)))

    def predictor(self, modes: Modes) -> Predictor:
        """Return a predictor of the pieces, given the modes (1 or more) of all matrices."""
        own = modes[self.owners]
        rates = np.array(RATES, np.int64)[(own - 1) % len(RATES)]
        seeded = (own >= SEEDED)[:, None, None]
        return Predictor(self.initial.shape[2], self.bits, rates, np.where(seeded, self.initial, 0))

    def trace(self, codes: Integers, modes: Modes, signs_only: bool = False) -> tuple[Integers, Integers]:
        """Return all bits of codes and their predicted probabilities, in the order of the stream.

        Args:
            codes: (pieces, positions, units).
            modes: modes of all matrices.
            signs_only: whether to return only the upper bit of each code.

        Returns:
            Bits, and probabilities of a 1 in units of 1 / ONE, both (bits, pieces).
        """
        predictor = self.predictor(modes)
        signs, distances = split_sign(codes, self.bits)
        bits: list[NDArray[Any]] = []
        probabilities: list[Integers] = []
        for position in range(codes.shape[1]):
            here = signs[:, position]
            earlier = predictor.earlier_signs(here)
            predicted = probability(predictor.sign_logits(predictor.advance(), earlier))
            predictor.update_signs(here, earlier, predicted)
            bits.append((here > 0).T)
            probabilities.append(predicted.T)
            nodes = np.ones(here.shape, np.int64)
            for plane in range(0 if signs_only else self.bits - 1):
                now = (distances[:, position] >> (self.bits - 2 - plane)) & 1
                predicted = probability(predictor.plane_logits(plane, nodes))
                predictor.update_plane(plane, nodes, now, predicted)
                nodes = 2 * nodes + now
                bits.append(now.T)
                probabilities.append(predicted.T)
        empty = np.zeros((0, len(self.places)), np.int64)
        return np.concatenate([empty, *bits]), np.concatenate([empty, *probabilities])

    def read(self, decoder: Any, modes: Modes) -> tuple[Integers, NDArray[np.float64]]:
        """Decode the codes that were encoded by `trace`.

        Returns:
            Codes (pieces, positions, units), and the code length of each piece in bits (pieces,).
        """
        predictor = self.predictor(modes)
        codes = np.zeros_like(self.initial)
        costs = np.zeros(len(self.places))
        for position in range(codes.shape[1]):
            logits = predictor.advance()
            signs, predicted = np.zeros_like(logits), np.zeros(logits.shape, np.int64)
            for unit in range(logits.shape[1]):
                predicted[:, unit] = probability(logits[:, unit])
                signs[:, unit] = 2 * _decode(decoder, predicted[:, unit]) - 1
                predictor.add_sign(logits, unit, signs[:, unit])
            predictor.update_signs(signs, predictor.earlier_signs(signs), predicted)
            costs += code_lengths((signs > 0).T, predicted.T)
            nodes = np.ones(signs.shape, np.int64)
            for plane in range(self.bits - 1):
                predicted = probability(predictor.plane_logits(plane, nodes))
                now = _decode(decoder, predicted.T.ravel()).reshape(predicted.T.shape).T
                predictor.update_plane(plane, nodes, now, predicted)
                nodes = 2 * nodes + now
                costs += code_lengths(now.T, predicted.T)
            codes[:, position] = join_sign(signs, nodes - (1 << (self.bits - 1)), self.bits)
        return codes, costs


def stacks_of(matrices: Sequence[CodeMatrix], chosen: Sequence[int]) -> list[PieceStack]:
    """Return the pieces of the chosen matrices, grouped by shape and bits."""
    places: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    initial: dict[tuple[int, ...], list[Integers]] = {}
    for index in chosen:
        matrix = matrices[index]
        words = np.full(matrix.shape, 1 << 31, np.uint32) if matrix.words is None else matrix.words
        for number, piece in enumerate(matrix.pieces(words)):
            key = (*piece.shape, matrix.bits)
            places.setdefault(key, []).append((index, number))
            initial.setdefault(key, []).append((piece >> 16) - (1 << 15))
    return [PieceStack(places[key], key[2], np.stack(initial[key])) for key in places]


def _decode(decoder: Any, probabilities: Integers) -> Integers:
    try:
        return decoder.decode(BIT_MODEL, probabilities / ONE).astype(np.int64)
    except AssertionError as error:
        raise ValueError(f"the coded stream cannot be read: {error}") from error


def code_lengths(bits: NDArray[np.generic], probabilities: Integers) -> NDArray[np.float64]:
    """Return the code length of each column in bits: (bits, pieces) -> (pieces,)."""
    return -np.log2(np.where(bits, probabilities, ONE - probabilities) / ONE).sum(0)
