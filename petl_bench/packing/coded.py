"""Entropy coding of the codes of quantized matrices: a range coder driven by petl_bench.packing.predict.

The stream holds the codes of all matrices that become smaller by coding. The mode of a matrix states how it
is coded:

    0         not in the stream
    1 + k     in the stream, predicted with learning rate RATES[k]
    8 + k     the same, with its initial values as additional inputs of the prediction

The stream is that of the pieces of these matrices, in the order of petl_bench.packing.pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from constriction import stream as range_coder
from numpy.typing import NDArray

from petl_bench.packing.bits import Codes, packed_size
from petl_bench.packing.pieces import (
    BIT_MODEL,
    SEEDED,
    CodeMatrix,
    Modes,
    PieceStack,
    code_lengths,
    stacks_of,
)
from petl_bench.packing.predict import ONE, RATES, Integers

MODES = 1 + 2 * len(RATES)
"""Number of modes."""
AT_ONCE = 1 << 19
"""Largest number of codes that are predicted at once when modes are compared; more take longer each."""
MAX_BITS_PER_BYTE = 1_600
"""Maximum bits of codes per byte of a stream; a stream that would be shorter is padded with zeros."""
MAX_POSITIONS = 1 << 14
"""Maximum positions of a coded matrix. Both limits keep small files from needing much time and memory."""


Held = list[tuple[PieceStack, Integers]]
"""Stacks of pieces with their codes (pieces, positions, units)."""


def encode(
    matrices: Sequence[CodeMatrix], codes: Sequence[Codes | None]
) -> tuple[list[int], bytes, list[float]]:
    """Encode the codes of matrices.

    A matrix gets the mode with the shortest code for its signs, or 0 if it has no codes, if they would not
    become smaller, or if it has more than MAX_POSITIONS positions.

    Args:
        matrices: matrices in the order of the file.
        codes: codes of each matrix; None where it has none.

    Returns:
        The mode of each matrix, the stream, and the code length of each matrix in bits.
    """
    given = {
        index: values
        for index, values in enumerate(codes)
        if values is not None and max(matrices[index].table) <= MAX_POSITIONS
    }
    pieces = {index: matrices[index].pieces(values) for index, values in given.items()}
    held = [
        (stack, np.stack([pieces[index][number] for index, number in stack.places]))
        for stack in stacks_of(matrices, list(given))
    ]
    modes = _best_modes(matrices, held)
    traces = [stack.trace(values, modes) for stack, values in held]
    costs, raw = np.zeros(len(matrices)), np.zeros(len(matrices))
    for (stack, _), trace in zip(held, traces, strict=True):
        np.add.at(costs, stack.owners, code_lengths(*trace))
    raw[list(given)] = [8 * packed_size(values.size, matrices[i].bits) for i, values in given.items()]
    kept = costs < raw
    stream = _stream([stack for stack, _ in held], traces, kept)
    stream = stream.ljust(int(raw[kept].sum()) // MAX_BITS_PER_BYTE, b"\0")
    return np.where(kept, modes, 0).tolist(), stream, np.where(kept, costs, 0).tolist()


def _best_modes(matrices: Sequence[CodeMatrix], held: Held) -> Modes:
    """Return the mode of each matrix, 1 or more, with the shortest code for its signs."""
    modes = MODES if any(matrix.words is not None for matrix in matrices) else SEEDED
    lengths = np.zeros((modes, len(matrices)))
    for stack, values in held:
        together = max(1, AT_ONCE // max(values.size, 1))
        for first in range(1, modes, together):
            tried = np.arange(first, min(first + together, modes))
            many, copies = stack.repeated(len(tried), len(matrices)), np.tile(values, (len(tried), 1, 1))
            trace = many.trace(copies, np.repeat(tried, len(matrices)), signs_only=True)
            for mode, *one in zip(
                tried, *(np.split(part, len(tried), axis=1) for part in trace), strict=True
            ):
                # Contiguous as the trace of one mode is: the order of a sum may decide between equal modes.
                np.add.at(lengths[mode], stack.owners, code_lengths(*map(np.ascontiguousarray, one)))
    return 1 + lengths[1:].argmin(0)


def _stream(
    stacks: Sequence[PieceStack], traces: Sequence[tuple[Integers, Integers]], kept: NDArray[np.bool_]
) -> bytes:
    """Return the stream of the traces of all kept matrices, without zeros at its end."""
    encoder = range_coder.queue.RangeEncoder()
    columns = [kept[stack.owners] for stack in stacks]
    # The decoder knows only the kept pieces, and orders its stacks by the first of these.
    order = sorted(
        (number for number, own in enumerate(columns) if own.any()),
        key=lambda number: stacks[number].places[columns[number].argmax()],
    )
    for number in order:
        bits, probabilities = (values[:, columns[number]].ravel() for values in traces[number])
        encoder.encode(bits.astype(np.int32), BIT_MODEL, probabilities / ONE)
    stream: bytes = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    return stream


def decode(
    matrices: Sequence[CodeMatrix], modes: Sequence[int], stream: bytes
) -> dict[int, tuple[Codes, float]]:
    """Decode the codes of all matrices whose mode is not 0.

    A stream that `encode` did not write gives arbitrary codes or an error.

    Args:
        matrices: matrices in the order of the file.
        modes: mode of each matrix.
        stream: stream that `encode` returned.

    Returns:
        By index of the matrix, its codes and their code length in bits.

    Raises:
        ValueError: the stream cannot be read.
    """
    whole = np.frombuffer(stream + bytes(-len(stream) % 4), "<u4").astype(np.uint32)
    decoder = range_coder.queue.RangeDecoder(whole)
    pieces: dict[int, dict[int, Integers]] = {}
    costs = dict.fromkeys(range(len(matrices)), 0.0)
    for stack in stacks_of(matrices, [index for index, mode in enumerate(modes) if mode]):
        codes, cost = stack.read(decoder, np.array(modes))
        for (index, number), piece, bits in zip(stack.places, codes, cost.tolist(), strict=True):
            pieces.setdefault(index, {})[number] = piece
            costs[index] += bits
    joined = {i: matrices[i].join([own[number] for number in sorted(own)]) for i, own in pieces.items()}
    return {index: (codes.astype(np.uint8), costs[index]) for index, codes in joined.items()}


def expected_log_odds(matrices: Sequence[CodeMatrix], codes: Sequence[Codes]) -> list[NDArray[np.float32]]:
    """Return the log-odds that the model assigns to the upper bit of each code before seeing the code.

    Args:
        matrices: matrices with known initial values.
        codes: codes of each matrix.

    Returns:
        Natural log-odds of a 1 for each code, float32 in the shapes of the codes, with the middle learning
        rate of RATES.
    """
    modes = np.full(len(matrices), SEEDED + len(RATES) // 2)
    pieces = [matrix.pieces(values) for matrix, values in zip(matrices, codes, strict=True)]
    log_odds: list[dict[int, NDArray[np.float32]]] = [{} for _ in matrices]
    for stack in stacks_of(matrices, range(len(matrices))):
        held = np.stack([pieces[index][number] for index, number in stack.places])
        _, probabilities = stack.trace(held, modes, signs_only=True)
        odds = np.log(probabilities / (ONE - probabilities)).astype(np.float32).T.reshape(held.shape)
        for (index, number), values in zip(stack.places, odds, strict=True):
            log_odds[index][number] = values
    return [
        matrix.join([own[n] for n in sorted(own)]) for matrix, own in zip(matrices, log_odds, strict=True)
    ]
