"""The Pareto front of accuracy and bytes."""

from __future__ import annotations

from collections.abc import Sequence

from petl_bench.report.tables import Row

PARETO = "§"
"""Mark of the mean of groups of a row on the Pareto front of its table."""
MEANING = (
    f"{PARETO} Pareto front: no other row has a mean of groups at least as high in a file of at most as many "
    "bytes"
)
"""Explanation of the mark."""


def pareto(sizes: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points on the Pareto front, smallest first; the first of equal points.

    Args:
        sizes: bytes and accuracy of each point. A point dominates another one that has at least as many bytes
            and at most the same accuracy, unless they are equal.
    """
    front: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: (sizes[index][0], -sizes[index][1], index)):
        if not front or sizes[index][1] > sizes[front[-1]][1]:
            front.append(index)
    return front


def front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows on the Pareto front of the mean of groups and the bytes of the file, smallest first.

    It is empty where fewer than two rows have a mean of groups.
    """
    known = [(row, row.mean_of_groups.mean) for row in rows if row.mean_of_groups.mean is not None]
    found = pareto([(row.bytes["bytes_file"], mean) for row, mean in known]) if len(known) > 1 else []
    return [known[index][0] for index in found]
