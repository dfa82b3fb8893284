"""Codes <-> an entropy-coded stream: a range coder driven by petl_bench.packing.predict.

The stream holds the codes of the matrices that get smaller; a mode says of each matrix how:

    0         not in the stream
    1 + k     in the stream, at learning rate RATES[k]
    8 + k     the same, its initial values used to predict

A matrix wider than MAX_UNITS units is cut into nearly equal pieces that know nothing of each other. Pieces of
one shape step together, in the order in which the shapes first appear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from constriction import stream as range_coder
from numpy.typing import NDArray

from petl_bench.packing.bits import Codes, packed_size
from petl_bench.packing.predict import ONE, RATES, Integers, Predictor, mirror, probability, unmirror

MAX_UNITS = 64
MODES = 1 + 2 * len(RATES)
MOST_BITS = 1_600
"""A byte of a stream stands for no more bits of codes: a shorter stream ends in zeros."""
MOST_POSITIONS = 1 << 14
"""A matrix with more positions stays raw: both keep small files from asking for much time and memory."""
SEEDED = 1 + len(RATES)
"""The first mode that uses initial values."""
Words = NDArray[np.uint32]
Modes = NDArray[np.intp]


@dataclass(frozen=True)
class Matrix:
    """A matrix to code or decode.

    Attributes:
        shape: of its codes; other than two dimensions count as (first, all others).
        bits: 1 to 8.
        words: of its seeded initialization (petl_bench.initialization); None where unknown.
    """

    shape: tuple[int, ...]
    bits: int
    words: Words | None

    @property
    def table(self) -> tuple[int, int]:
        """Its rows and columns."""
        return (self.shape[0] if self.shape else 1), math.prod(self.shape[1:])

    def pieces(self, values: NDArray[np.generic]) -> list[Integers]:
        """Values of the matrix as tables of positions by units."""
        table = values.reshape(self.table).astype(np.int64)
        table = table if table.shape[0] >= table.shape[1] else table.T
        return np.array_split(table, -(-table.shape[1] // MAX_UNITS) or 1, axis=1)

    def join(self, pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The values of which `pieces` gave the tables."""
        table = np.concatenate(pieces, axis=1)
        table = table if self.table[0] >= self.table[1] else table.T
        return table.reshape(self.shape)


@dataclass(frozen=True)
class _Stack:
    """Pieces of one shape.

    Attributes:
        places: of each piece, the index of its matrix and its number within that.
        initial: (pieces, positions, units): the initial values, as the predictor takes them; 0 where unknown.
    """

    places: list[tuple[int, int]]
    bits: int
    initial: Integers

    @property
    def owners(self) -> NDArray[np.intp]:
        return np.array([index for index, _ in self.places])

    def predictor(self, modes: Modes) -> Predictor:
        """Of the pieces, by the modes (1 or more) of all matrices."""
        own = modes[self.owners]
        rates = np.array(RATES, np.int64)[(own - 1) % len(RATES)]
        seeded = (own >= SEEDED)[:, None, None]
        return Predictor(self.initial.shape[2], self.bits, rates, np.where(seeded, self.initial, 0))

    def trace(self, codes: Integers, modes: Modes, signs_only: bool = False) -> tuple[Integers, Integers]:
        """All bits of codes (pieces, positions, units) and the probabilities of a 1: (bits, pieces)."""
        predictor = self.predictor(modes)
        signs, distances = mirror(codes, self.bits)
        bits: list[NDArray[Any]] = []
        chances: list[Integers] = []
        for position in range(codes.shape[1]):
            here = signs[:, position]
            seen = predictor.seen(here)
            found = probability(predictor.signs(predictor.advance(), seen))
            predictor.learn_signs(here, seen, found)
            bits.append((here > 0).T)
            chances.append(found.T)
            nodes = np.ones(here.shape, np.int64)
            for plane in range(0 if signs_only else self.bits - 1):
                now = (distances[:, position] >> (self.bits - 2 - plane)) & 1
                found = probability(predictor.plane(plane, nodes))
                predictor.learn_plane(plane, nodes, now, found)
                nodes = 2 * nodes + now
                bits.append(now.T)
                chances.append(found.T)
        empty = np.zeros((0, len(self.places)), np.int64)
        return np.concatenate([empty, *bits]), np.concatenate([empty, *chances])

    def read(self, decoder: Any, modes: Modes) -> tuple[Integers, NDArray[np.float64]]:
        """The codes of which `trace` gave the encoded bits, and what each piece cost, in bits."""
        predictor = self.predictor(modes)
        codes = np.zeros_like(self.initial)
        costs = np.zeros(len(self.places))
        for position in range(codes.shape[1]):
            logits = predictor.advance()
            signs, found = np.zeros_like(logits), np.zeros(logits.shape, np.int64)
            for unit in range(logits.shape[1]):
                found[:, unit] = probability(logits[:, unit])
                signs[:, unit] = 2 * _decode(decoder, found[:, unit]) - 1
                predictor.see(logits, unit, signs[:, unit])
            predictor.learn_signs(signs, predictor.seen(signs), found)
            costs += _costs((signs > 0).T, found.T)
            nodes = np.ones(signs.shape, np.int64)
            for plane in range(self.bits - 1):
                found = probability(predictor.plane(plane, nodes))
                now = _decode(decoder, found.T.ravel()).reshape(found.T.shape).T
                predictor.learn_plane(plane, nodes, now, found)
                nodes = 2 * nodes + now
                costs += _costs(now.T, found.T)
            codes[:, position] = unmirror(signs, nodes - (1 << (self.bits - 1)), self.bits)
        return codes, costs


def _stacks(matrices: Sequence[Matrix], chosen: Sequence[int]) -> list[_Stack]:
    """The pieces of the chosen matrices, stacked."""
    places: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    initial: dict[tuple[int, ...], list[Integers]] = {}
    for index in chosen:
        matrix = matrices[index]
        words = np.full(matrix.shape, 1 << 31, np.uint32) if matrix.words is None else matrix.words
        for number, piece in enumerate(matrix.pieces(words)):
            key = (*piece.shape, matrix.bits)
            places.setdefault(key, []).append((index, number))
            initial.setdefault(key, []).append((piece >> 16) - (1 << 15))
    return [_Stack(places[key], key[2], np.stack(initial[key])) for key in places]


def encode(matrices: Sequence[Matrix], codes: Sequence[Codes | None]) -> tuple[list[int], bytes, list[float]]:
    """The mode of each matrix, the stream, and what each matrix costs in it, in bits.

    Every matrix has the mode that codes its signs shortest, or 0 where it has no codes, they do not get
    smaller, or there are too many of them in a row.
    """
    given = {
        index: values
        for index, values in enumerate(codes)
        if values is not None and max(matrices[index].table) <= MOST_POSITIONS
    }
    pieces = {index: matrices[index].pieces(values) for index, values in given.items()}
    stacks = [
        (stack, np.stack([pieces[index][number] for index, number in stack.places]))
        for stack in _stacks(matrices, list(given))
    ]
    seeded = any(matrix.words is not None for matrix in matrices)
    trials = np.zeros((MODES, len(matrices)))
    for mode in range(1, MODES if seeded else SEEDED):
        modes = np.full(len(matrices), mode)
        for stack, held in stacks:
            np.add.at(trials[mode], stack.owners, _costs(*stack.trace(held, modes, signs_only=True)))
    modes = 1 + trials[1 : MODES if seeded else SEEDED].argmin(0)
    traces = [stack.trace(held, modes) for stack, held in stacks]
    costs = np.zeros(len(matrices))
    for (stack, _), trace in zip(stacks, traces, strict=True):
        np.add.at(costs, stack.owners, _costs(*trace))
    raw = np.zeros(len(matrices))
    raw[list(given)] = [8 * packed_size(values.size, matrices[i].bits) for i, values in given.items()]
    kept = costs < raw
    encoder = range_coder.queue.RangeEncoder()
    in_stream = [(kept[stack.owners], stack, trace) for (stack, _), trace in zip(stacks, traces, strict=True)]
    in_stream = [each for each in in_stream if each[0].any()]
    # The decoder sees none but the kept pieces: its stacks are in the order of their first ones.
    for columns, _, (bits, chances) in sorted(in_stream, key=lambda each: each[1].places[each[0].argmax()]):
        encoder.encode(bits[:, columns].astype(np.int32).ravel(), _MODEL, chances[:, columns].ravel() / ONE)
    stream = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    stream = stream.ljust(int(raw[kept].sum()) // MOST_BITS, b"\0")
    return np.where(kept, modes, 0).tolist(), stream, np.where(kept, costs, 0).tolist()


def decode(matrices: Sequence[Matrix], modes: Sequence[int], stream: bytes) -> dict[int, tuple[Codes, float]]:
    """Codes, and their cost in bits, of each matrix (by index) whose mode is not 0.

    A stream that `encode` did not write gives some codes, or an error.

    Raises:
        ValueError: the stream cannot be read.
    """
    whole = np.frombuffer(stream + bytes(-len(stream) % 4), "<u4").astype(np.uint32)
    decoder = range_coder.queue.RangeDecoder(whole)
    found: dict[int, dict[int, Integers]] = {}
    costs = dict.fromkeys(range(len(matrices)), 0.0)
    for stack in _stacks(matrices, [index for index, mode in enumerate(modes) if mode]):
        codes, cost = stack.read(decoder, np.array(modes))
        for (index, number), piece, bits in zip(stack.places, codes, cost.tolist(), strict=True):
            found.setdefault(index, {})[number] = piece
            costs[index] += bits
    joined = {i: matrices[i].join([held[number] for number in sorted(held)]) for i, held in found.items()}
    return {index: (codes.astype(np.uint8), costs[index]) for index, codes in joined.items()}


def expectations(matrices: Sequence[Matrix], codes: Sequence[Codes]) -> list[NDArray[np.float32]]:
    """The natural log-odds with which the model, before it sees a code, expects its upper bit to be 1.

    At a middling rate, with the initial values: float32 in the shapes of the codes.
    """
    modes = np.full(len(matrices), SEEDED + len(RATES) // 2)
    pieces = [matrix.pieces(values) for matrix, values in zip(matrices, codes, strict=True)]
    found: list[dict[int, NDArray[np.float32]]] = [{} for _ in matrices]
    for stack in _stacks(matrices, range(len(matrices))):
        held = np.stack([pieces[index][number] for index, number in stack.places])
        _, chances = stack.trace(held, modes, signs_only=True)
        odds = np.log(chances / (ONE - chances)).astype(np.float32).T.reshape(held.shape)
        for (index, number), values in zip(stack.places, odds, strict=True):
            found[index][number] = values
    return [
        matrix.join([held[n] for n in sorted(held)]) for matrix, held in zip(matrices, found, strict=True)
    ]


_MODEL = range_coder.model.Bernoulli(perfect=False)


def _decode(decoder: Any, chances: Integers) -> Integers:
    try:
        return decoder.decode(_MODEL, chances / ONE).astype(np.int64)
    except AssertionError as error:
        raise ValueError(f"the coded stream cannot be read: {error}") from error


def _costs(bits: NDArray[np.generic], chances: Integers) -> NDArray[np.float64]:
    """Code length of each column, in bits: (bits, pieces) -> (pieces,)."""
    return -np.log2(np.where(bits, chances, ONE - chances) / ONE).sum(0)
